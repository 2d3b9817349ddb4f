"""The predictions of trials on the validation rows, and how sure the differences of their metrics are.

Read without torch, for commands that only look.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray

from farsearch.select import Paired
from farsearch.tasks.noise import paired_error
from farsearch.tasks.spec import MetricName

__all__ = ["paired_errors", "trial_folder"]


def trial_folder(study_folder: Path, number: int) -> Path:
    """Where a trial's tensors are kept."""
    return study_folder / "trials" / f"{number:04d}"


def paired_errors(study_folder: Path, metric: MetricName, bring: Callable[[int], None] | None = None) -> Paired:
    """Standard errors of differences of trials, from the predictions that they left; each trial is read once.

    Args:
        bring: puts a trial's predictions there, where another host has them.
    """

    @cache
    def read(number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        if bring is not None:
            bring(number)
        return _predictions(trial_folder(study_folder, number) / "logits.safetensors")

    def error(number: int, other: int) -> float | None:
        first, second = read(number), read(other)
        if first is None or second is None or not np.array_equal(first[1], second[1]):
            return None
        return paired_error(metric, first[0].tolist(), second[0].tolist(), first[1].tolist())

    return error


def _predictions(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Predicted and true classes of the validation rows; None where they were not kept or can't be read."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            if "validation_labels" not in file.keys():  # noqa: SIM118 - it is no mapping
                return None
            return file.get_tensor("validation").argmax(1), file.get_tensor("validation_labels")
    except (OSError, safetensors.SafetensorError):
        return None
