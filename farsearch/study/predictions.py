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

from farsearch.select import Paired
from farsearch.tasks.standard_errors import comparable, paired_error

__all__ = ["paired_errors", "trial_folder"]


def trial_folder(study_folder: Path, number: int) -> Path:
    """Return the folder of a trial's files."""
    return study_folder / "trials" / f"{number:04d}"


def paired_errors(study_folder: Path, metric: str, bring: Callable[[int], None] | None = None) -> Paired:
    """Return a function for the standard error of a difference of two trials; each trial is read once.

    Args:
        bring: fetches a trial's predictions from another host.
    """

    @cache
    def read(number: int) -> NDArray[np.float64] | None:
        if bring is not None:
            bring(number)
        return _evidence(trial_folder(study_folder, number) / "logits.safetensors")

    def error(number: int, other: int) -> float | None:
        first, second = read(number), read(other)
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
