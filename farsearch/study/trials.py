"""What a trial leaves on disk, and how long it stays.

::

    .farsearch/studies/NAME/trials/0007/trained.safetensors    the trained tensors, by the reconfigured model's names
                                        learners.json          indices of the learners of each layer
                                        logits.safetensors     predictions on validation and development rows, and
                                                               the classes of the former
    .farsearch/studies/NAME/primings/                          the primed starts that those need
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from farsearch.errors import MissingResource
from farsearch.files import load_tensors, read_json, save_tensors, write_json
from farsearch.priming import keep
from farsearch.records import TrialRecord
from farsearch.select import pareto_front
from farsearch.study.predictions import trial_folder
from farsearch.training import Outcome

__all__ = ["SavedTrial", "load_trial", "save_trial", "sweep"]

_NOISE = 2.0
"""Standard errors by which a trial must leave the front before its tensors go."""


@dataclass(frozen=True)
class SavedTrial:
    """A trial's tensors, read back.

    Attributes:
        primed: the state that priming left, None where there was no priming.
    """

    trained: dict[str, Tensor]
    learners: list[list[int] | None]
    logits: dict[str, Tensor]
    primed: dict[str, Tensor] | None


def save_trial(study_folder: Path, number: int, outcome: Outcome) -> None:
    """Keep what an export needs.

    Done before the trial is told complete, so that no complete trial lacks it, and in the study's turn, so that no
    other worker sweeps it away meanwhile.
    """
    folder = trial_folder(study_folder, number)
    primed = None if outcome.primed is None else keep(outcome.primed, study_folder / "primings").name
    save_tensors(folder / "trained.safetensors", outcome.trained)
    logits = {"validation": outcome.validation_logits, "dev": outcome.dev_logits}
    save_tensors(folder / "logits.safetensors", {**logits, "validation_labels": outcome.validation_labels})
    write_json(folder / "learners.json", {"schema_version": 1, "learners": outcome.learners, "primed": primed})


def load_trial(study_folder: Path, number: int, layers: int) -> SavedTrial:
    """Read a trial's tensors.

    Raises:
        MissingResource: when they are not there any more.
    """
    folder = trial_folder(study_folder, number)
    trained = load_tensors(folder / "trained.safetensors")
    logits = load_tensors(folder / "logits.safetensors")
    if trained is None or logits is None:
        raise MissingResource(
            f"the tensors of trial {number} are gone: they are kept for trials on the front or within noise of it; "
            "choose one of the front, see farsearch pareto"
        )
    try:
        notes = read_json(folder / "learners.json")
    except (OSError, ValueError) as error:
        raise MissingResource(
            f"{folder}/learners.json can't be read: {error}; run more trials, or choose another"
        ) from error
    primed = None
    if notes["primed"] is not None:
        primed = load_tensors(study_folder / "primings" / notes["primed"])
        if primed is None:
            raise MissingResource(f"the priming {notes['primed']} of trial {number} is gone; run the trial again")
        extra = [f"{part}.{i}" for part in ("scores", "first_half", "second_half") for i in range(layers)]
        for name in [*extra, "seconds"]:
            primed.pop(name)
    return SavedTrial(trained, notes["learners"], logits, primed)


def sweep(study_folder: Path, trials: Iterable[TrialRecord]) -> None:
    """Remove the weights of trials that are off the front by more than noise, and primings that none left needs.

    Call it in the study's turn. What a trial left that was cut off before it was told goes too.
    """
    complete = {trial_folder(study_folder, trial.number): trial for trial in trials if trial.state == "complete"}
    numbers = pareto_front(complete.values())
    front = [trial for trial in complete.values() if trial.number in numbers]
    needed: set[str] = set()
    for weights in (study_folder / "trials").glob("*/trained.safetensors"):
        notes = weights.with_name("learners.json")
        trial = complete.get(weights.parent)
        if trial is not None and _within_noise(trial, front) and notes.is_file():
            needed.add(str(read_json(notes)["primed"]))
        else:
            weights.unlink(missing_ok=True)
    for priming in (study_folder / "primings").glob("*.safetensors"):
        if priming.name not in needed:
            priming.unlink(missing_ok=True)


def _within_noise(trial: TrialRecord, front: list[TrialRecord]) -> bool:
    """It is on the front, or would be if it were better by noise."""
    if any(other.number == trial.number for other in front):
        return True
    assert trial.metric is not None
    better = dataclasses.replace(trial, metric=trial.metric + _NOISE * (trial.metric_error or 0.0))
    # what dominates it is on the front, or dominated by what is
    return trial.number in pareto_front([*front, better])
