"""The files that a trial leaves in its study's folder: which there are, and which trials may keep them.

Read without torch, for commands that only look and for the mirror.
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
from farsearch.records import TrialRecord
from farsearch.select import pareto_front
from farsearch.study.predictions import trial_folder

__all__ = ["FILES", "LEARNERS", "LOGITS", "TRAINED", "TrialFiles", "near_front", "primings_folder", "trial_files"]

TRAINED, LEARNERS, LOGITS = "trained.safetensors", "learners.json", "logits.safetensors"
FILES = (LOGITS, LEARNERS, TRAINED)
"""All files of a trial. The trained tensors are the last to be put there: where they are, the others are too."""

_NOISE = 2.0
"""Standard errors by which a trial must leave the front before its tensors go."""

_PRIMING = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*\.safetensors")


@dataclass(frozen=True)
class TrialFiles:
    """A trial's files on this host, none of them missing.

    Attributes:
        notes: what ``learners.json`` holds.
        priming: the file of the primed start, None where there was no priming.
    """

    folder: Path
    notes: Mapping[str, Any]
    priming: Path | None


def primings_folder(study_folder: Path) -> Path:
    """Where the primed starts are kept that trials need."""
    return study_folder / "primings"


def trial_files(study_folder: Path, trial: TrialRecord) -> TrialFiles | None:
    """The files of a complete trial; None where one is missing or cut.

    None too where they are of another study that had the same name: its trial had another metric.
    """
    folder = trial_folder(study_folder, trial.number)
    try:
        notes = read_json(folder / LEARNERS)
    except (OSError, ValueError):
        return None
    if not isinstance(notes, dict) or notes.get("metric", trial.metric) != trial.metric:
        return None
    primed = notes.get("primed")
    if primed is not None and not (isinstance(primed, str) and _PRIMING.fullmatch(primed)):
        return None
    priming = None if primed is None else primings_folder(study_folder) / primed
    needed = [folder / TRAINED, folder / LOGITS, *([] if priming is None else [priming])]
    return TrialFiles(folder, notes, priming) if all(map(_is_whole, needed)) else None


def _is_whole(path: Path) -> bool:
    """The file has what its header says, no less and no more."""
    try:
        with safetensors.safe_open(path, framework="numpy"):
            return True
    except (OSError, safetensors.SafetensorError):
        return False


def near_front(trials: Iterable[TrialRecord]) -> Callable[[TrialRecord], bool]:
    """Tells of a complete trial whether it is on the front of ``trials``, or would be if it were better by noise.

    One that is not will never be again: what dominates it is on the front, or dominated by what is.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    numbers = pareto_front(complete)
    front = [trial for trial in complete if trial.number in numbers]

    def near(trial: TrialRecord) -> bool:
        if trial.number in numbers:
            return True
        assert trial.metric is not None
        better = dataclasses.replace(trial, metric=trial.metric + _NOISE * (trial.metric_error or 0.0))
        return trial.number in pareto_front([*front, better])

    return near
