"""Write a bundle from what a trial kept. Nothing is trained here."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch

from farsearch.bundle.folder import BUNDLE_SCHEMA, digest_of, sha256_of, whole_folder
from farsearch.errors import BadInput, MissingResource
from farsearch.far.surgery import apply_far, merge
from farsearch.files import save_tensors, write_json
from farsearch.models.load import load_model, load_tokenizer, resolve_model
from farsearch.records import StudySnapshot, TrialRecord
from farsearch.study.trials import SavedTrial, load_trial
from farsearch.training import start_state

__all__ = ["write_bundle"]


def write_bundle(snapshot: StudySnapshot, trial: TrialRecord, study_folder: Path, out: Path, why: str) -> Path:
    """Write the bundle of one trial into the folder ``out``, which must not exist or be empty.

    Args:
        why: the reason for the choice, for the bundle's provenance.

    Raises:
        BadInput: when ``out`` is in use, or the trial was not trained to its end.
        MissingResource: when the trial's tensors or the model are gone, or the disk is full.
    """
    if trial.baseline is not None:
        raise BadInput(
            f"trial {trial.number} of {snapshot.name} is a baseline, whose weights are not kept; choose one of the "
            "search's, see farsearch pareto"
        )
    if trial.state != "complete" or trial.config is None:
        raise BadInput(f"trial {trial.number} is {trial.state}, not complete; choose one of farsearch pareto")
    with whole_folder(out) as work:
        _fill(work, snapshot, trial, study_folder, why)
    return out


def _fill(work: Path, snapshot: StudySnapshot, trial: TrialRecord, study_folder: Path, why: str) -> None:
    config, job = trial.config, snapshot.settings.job
    assert config is not None
    source = resolve_model(snapshot.meta["model"])
    if source.digest() != job.weights:
        raise MissingResource(
            f"the weights of {source.name!r} are not those of the study any more; put the old ones back, or search "
            "again"
        )
    saved = load_trial(study_folder, trial.number, len(config.frozen_fractions))
    model, layout = load_model(source, snapshot.meta["labels"], job.seed)
    pretrained = {name: value.clone() for name, value in model.state_dict().items()}
    primed = pretrained if saved.primed is None else saved.primed
    start = start_state(layout, pretrained, primed, saved.learners, config, job.priming.frozen_values)
    save_tensors(work / "start.safetensors", start)
    model.load_state_dict(start)
    _put_trained(model, layout, saved, config)
    model.save_pretrained(work / "model")  # type: ignore[operator]
    load_tokenizer(source).save_pretrained(work / "model")
    files = sorted(path for path in work.rglob("*") if path.is_file())
    says = {
        "schema_version": BUNDLE_SCHEMA,
        "study": snapshot.name,
        "settings": snapshot.settings.to_dict(),
        "trial": trial.to_dict(),
        "labels": list(snapshot.meta["labels"]),
        "metric": snapshot.metric_name,
        "layout": layout.to_dict(),
        "learners": saved.learners,
        "why": why,
        "versions": snapshot.meta["versions"],
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "sha256": {path.relative_to(work).as_posix(): sha256_of(path) for path in files},
    }
    write_json(work / "far.json", {**says, "digest": digest_of(says)})


def _put_trained(model: Any, layout: Any, saved: SavedTrial, config: Any) -> None:
    """Give the reconfigured model the tensors that the trial trained, and merge it back."""
    config = config.canonical()
    apply_far(
        model, layout, saved.learners, config.frozen_embeddings, config.frozen_attention_layers,
        config.frozen_bottom_layers,
    )  # fmt: skip
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in saved.trained.items():
            parameters[name].copy_(value)
    merge(model, layout)
