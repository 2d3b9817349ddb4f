"""Saved tensors of trials: write, read and remove them.

::

    .farsearch/studies/NAME/trials/0007/trained.safetensors    the trained tensors, by the reconfigured model's names
                                        learners.json          indices of the learners of each block and layer
                                        logits.safetensors     predictions on validation and development rows, and
                                                               the classes of the former
    .farsearch/studies/NAME/primings/                          the primed starts that those need
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from farsearch.errors import MissingResource
from farsearch.files import load_tensors, read_json, save_tensors, write_json
from farsearch.priming import retain
from farsearch.records import AnyTrial, is_complete
from farsearch.study.predictions import trial_folder
from farsearch.study.results import predictions_of
from farsearch.study.retention import LEARNERS, LOGITS, TRAINED, near_front, primings_folder
from farsearch.training import Outcome

__all__ = ["SavedTrial", "load_trial", "save_trial", "sweep"]


@dataclass(frozen=True)
class SavedTrial:
    """A trial's tensors.

    Attributes:
        heads: of each layer; empty if none was split.
        primed: the primed state; None without priming.
    """

    trained: dict[str, Tensor]
    learners: list[list[int] | None]
    logits: dict[str, Tensor]
    primed: dict[str, Tensor] | None
    heads: list[list[int] | None]


def save_trial(study_folder: Path, number: int, outcome: Outcome) -> None:
    """Save the tensors that an export needs.

    Call it before the trial is recorded as complete, so that every complete trial has them, and under the study's lock,
    so that no other worker removes them meanwhile.
    """
    folder = trial_folder(study_folder, number)
    primed = None if outcome.primed is None else retain(outcome.primed, primings_folder(study_folder)).name
    save_tensors(folder / TRAINED, outcome.trained)
    save_tensors(folder / LOGITS, predictions_of(outcome))
    notes = {"schema_version": 1, "learners": outcome.learners, "primed": primed, "metric": outcome.metric}
    # trials from before heads were split have none
    notes |= {"heads": outcome.heads} if any(heads is not None for heads in outcome.heads) else {}
    write_json(folder / LEARNERS, notes)


def load_trial(study_folder: Path, number: int) -> SavedTrial:
    """Read a trial's tensors.

    Raises:
        MissingResource: when they have been removed.
    """
    folder = trial_folder(study_folder, number)
    trained = load_tensors(folder / TRAINED)
    logits = load_tensors(folder / LOGITS)
    if trained is None or logits is None:
        raise MissingResource(
            f"the tensors of trial {number} are gone: they are kept for trials on the front or within noise of it; "
            "choose one of the front, see farsearch pareto"
        )
    try:
        notes = read_json(folder / LEARNERS)
    except (OSError, ValueError) as error:
        raise MissingResource(
            f"{folder / LEARNERS} can't be read: {error}; run more trials, or choose another"
        ) from error
    primed = None
    if notes["primed"] is not None:
        primed = load_tensors(primings_folder(study_folder) / notes["primed"])
        if primed is None:
            raise MissingResource(f"the priming {notes['primed']} of trial {number} is gone; run the trial again")
        blocks = range(len(notes["learners"]))
        extra = [f"{part}.{i}" for part in ("scores", "first_half", "second_half") for i in blocks]
        for name in [*extra, "seconds"]:
            primed.pop(name)
    return SavedTrial(trained, notes["learners"], logits, primed, notes.get("heads", []))


def sweep(study_folder: Path, trials: Iterable[AnyTrial]) -> None:
    """Remove the weights of trials that are off the front by more than noise, and primings that no trial needs.

    The files of interrupted trials are removed too. Call it under the study's lock.
    """
    complete = {trial_folder(study_folder, trial.number): trial for trial in filter(is_complete, trials)}
    near = near_front(complete.values())
    needed: set[str] = set()
    for weights in (study_folder / "trials").glob(f"*/{TRAINED}"):
        notes = weights.with_name(LEARNERS)
        trial = complete.get(weights.parent)
        if trial is not None and near(trial) and notes.is_file():
            needed.add(str(read_json(notes)["primed"]))
        else:
            weights.unlink(missing_ok=True)
    for priming in primings_folder(study_folder).glob("*.safetensors"):
        if priming.name not in needed:
            priming.unlink(missing_ok=True)
