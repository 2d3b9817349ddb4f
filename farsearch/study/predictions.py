"""Standard errors of differences between trials, from their predictions on the validation rows.

Without torch, for commands that only read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import safetensors
from numpy.typing import NDArray

from farsearch.records import Paired, PointKey
from farsearch.tasks.standard_errors import comparable, paired_error

__all__ = ["paired_errors", "prediction_file", "trial_folder"]


def trial_folder(study_folder: Path, number: int) -> Path:
    """Return the folder of a trial's files."""
    return study_folder / "trials" / f"{number:04d}"


def prediction_file(study_folder: Path, key: PointKey) -> Path:
    """Return the file of the predictions of a trial, by number, or of a baseline."""
    if isinstance(key, str):
        return study_folder / "baselines" / f"{key}.safetensors"
    return trial_folder(study_folder, key) / "logits.safetensors"


def paired_errors(study_folder: Path, metric: str, bring: Callable[[int], None] | None = None) -> Paired:
    """Return a function for the standard error of a difference of two trials or baselines; each is read once.

    Args:
        bring: fetches a trial's predictions from another host.
    """

    @cache
    def read(key: PointKey) -> NDArray[np.float64] | None:
        if bring is not None and isinstance(key, int):
            bring(key)
        return _evidence(prediction_file(study_folder, key))

    def error(one: PointKey, other: PointKey) -> float | None:
        first, second = read(one), read(other)
        if first is None or second is None or not comparable(metric, first, second):
            return None
        return paired_error(metric, first, second)

    return error


def _evidence(path: Path) -> NDArray[np.float64] | None:
    """Return the contribution of each validation row to the metric; None where it is not stored or not readable."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            if "validation_evidence" not in file.keys():  # noqa: SIM118 - not a mapping
                return None
            evidence: NDArray[np.float64] = file.get_tensor("validation_evidence")
            return evidence
    except (OSError, safetensors.SafetensorError):
        return None
