"""The files of a trial in its study's folder, and the trials that retain them.

Without torch, for commands that only read and for the mirror.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors

from farsearch.files import read_json
from farsearch.records import AnyTrial, CompleteTrial, is_complete
from farsearch.select import pareto_front
from farsearch.study.predictions import trial_folder

__all__ = ["FILES", "LEARNERS", "LOGITS", "TRAINED", "TrialFiles", "near_front", "primings_folder", "trial_files"]

TRAINED, LEARNERS, LOGITS = "trained.safetensors", "learners.json", "logits.safetensors"
FILES = (LOGITS, LEARNERS, TRAINED)
"""All files of a trial. The trained tensors are written last: where they exist, the others do too."""

_NOISE = 2.0
"""Standard errors by which a trial must be off the front before its tensors are removed."""

_PRIMING = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*\.safetensors")


@dataclass(frozen=True)
class TrialFiles:
    """A trial's files on this host, all present.

    Attributes:
        notes: content of ``learners.json``.
        priming: the file of the primed start, None where there was no priming.
    """

    folder: Path
    notes: Mapping[str, Any]
    priming: Path | None


def primings_folder(study_folder: Path) -> Path:
    """Return the folder of the primed starts that trials need."""
    return study_folder / "primings"


def trial_files(study_folder: Path, trial: CompleteTrial) -> TrialFiles | None:
    """Return the files of a complete trial; None where one is missing or truncated.

    None too where they belong to an earlier study of the same name: its trial had another metric.
    """
    folder = trial_folder(study_folder, trial.number)
    try:
        notes = read_json(folder / LEARNERS)
    except (OSError, ValueError):
        return None
    if not isinstance(notes, dict) or notes.get("metric", trial.outcome.metric) != trial.outcome.metric:
        return None
    primed = notes.get("primed")
    if primed is not None and not (isinstance(primed, str) and _PRIMING.fullmatch(primed)):
        return None
    priming = None if primed is None else primings_folder(study_folder) / primed
    needed = [folder / TRAINED, folder / LOGITS, *([] if priming is None else [priming])]
    return TrialFiles(folder, notes, priming) if all(map(_is_complete, needed)) else None


def _is_complete(path: Path) -> bool:
    """Return whether the file has exactly the content that its header describes."""
    try:
        with safetensors.safe_open(path, framework="numpy"):
            return True
    except (OSError, safetensors.SafetensorError):
        return False


def near_front(trials: Iterable[AnyTrial]) -> Callable[[CompleteTrial], bool]:
    """Return a predicate for complete trials: on the front of ``trials``, or within noise of it.

    A trial that is off the front stays off: the trial that dominates it is on the front, or dominated by one that is.
    """
    complete = list(filter(is_complete, trials))
    numbers = pareto_front(complete)
    front = [trial for trial in complete if trial.number in numbers]

    def near(trial: CompleteTrial) -> bool:
        if trial.number in numbers:
            return True
        result = trial.outcome
        better = dataclasses.replace(result, metric=result.metric + _NOISE * result.metric_error)
        return trial.number in pareto_front([*front, dataclasses.replace(trial, outcome=better)])

    return near
