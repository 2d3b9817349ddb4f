"""Read a bundle, and run its FAR phase on other data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from farsearch.bundle.folder import BUNDLE_SCHEMA, digest_of, sha256_of, whole_folder
from farsearch.cost.plans import quickest
from farsearch.errors import BadInput, BundleError
from farsearch.far.layout import ModelLayout
from farsearch.far.loop import predict
from farsearch.files import load_tensors, read_json, write_json
from farsearch.models.load import build_model, load_config, load_tokenizer, resolve_model
from farsearch.records import FarConfig, StepPlan, StudySettings, TrialRecord
from farsearch.tasks.encode import encode
from farsearch.tasks.load import read_examples
from farsearch.tasks.metrics import MetricValue, score
from farsearch.tasks.spec import TaskSpec, get_task
from farsearch.training import far_phase

__all__ = ["Bundle", "Tuned", "finetune", "read_bundle"]

_KEYS = {
    "schema_version", "study", "settings", "trial", "labels", "metric", "layout", "learners", "why", "versions",
    "created", "sha256", "digest",
}  # fmt: skip
_NEEDED = ("start.safetensors", "model/config.json", "model/model.safetensors")


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked against their checksums."""

    folder: Path
    settings: StudySettings
    config: FarConfig
    plan: StepPlan
    spec: TaskSpec
    layout: ModelLayout
    learners: list[list[int] | None]


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning on the user's rows gave: the metric on the dev file, where there is one, and the steps."""

    metric: MetricValue | None
    steps: int


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle.

    Raises:
        BundleError: when it is missing, damaged, or of another schema.
    """
    try:
        data = read_json(folder / "far.json")
    except OSError as error:
        raise BundleError(f"{folder} is no bundle: far.json can't be read; make one with farsearch export") from error
    except ValueError as error:
        raise BundleError(f"{folder}/far.json is damaged: {error}; export the bundle again") from error
    if not isinstance(data, dict) or data.get("schema_version") != BUNDLE_SCHEMA:
        version = data.get("schema_version") if isinstance(data, dict) else None
        raise BundleError(
            f"{folder} has schema version {version!r}, this farsearch reads {BUNDLE_SCHEMA}; use the one that made it"
        )
    if set(data) != _KEYS:
        wrong = sorted(map(str, set(data) ^ _KEYS))[0]
        raise BundleError(f"{folder}/far.json has a missing or unknown key {wrong!r}; export the bundle again")
    if digest_of(data) != data["digest"]:
        raise BundleError(f"{folder}/far.json differs from its own digest; copy it again, or export it again")
    _check_files(folder, data["sha256"])
    try:
        settings, trial = StudySettings.from_dict(data["settings"]), TrialRecord.from_dict(data["trial"])
        spec, layout = get_task(settings.job.task), ModelLayout.from_dict(data["layout"])
        if trial.config is None or trial.plan is None:
            raise BadInput("its trial has no configuration")
        if (list(spec.labels), spec.metric) != (data["labels"], data["metric"]):
            raise BadInput(f"labels or metric are not those of the task {spec.name!r}")
        if len(trial.config.frozen_fractions) != len(layout.layers):
            raise BadInput("configuration and layout have different numbers of layers")
        learners = _learners(data["learners"], len(layout.layers))
        return Bundle(folder, settings, trial.config, trial.plan, spec, layout, learners)
    except (BadInput, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{folder}/far.json does not say a bundle: {error}; export it again") from error


def _learners(data: Any, layers: int) -> list[list[int] | None]:
    """Indices of the learners, one entry a layer; whether the model has them is seen when it is there."""
    if not isinstance(data, list) or len(data) != layers:
        raise BadInput(f"learners must have one entry for each of the {layers} layers")
    for i, chosen in enumerate(data):
        if chosen is not None and not (isinstance(chosen, list) and all(type(k) is int for k in chosen)):
            raise BadInput(f"the learners of layer {i} must be whole numbers")
    return data


def _check_files(folder: Path, checksums: Any) -> None:
    for name in _NEEDED:
        if not isinstance(checksums, dict) or name not in checksums:
            raise BundleError(f"{folder}/far.json lists no {name}; export the bundle again")
    root = folder.resolve()
    for name, digest in checksums.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise BundleError(f"{folder}/far.json names {name!r}, which is outside the bundle; do not use it")
        if not path.is_file():
            raise BundleError(f"{folder} lacks {name}; copy the whole folder, or export it again")
        if sha256_of(path) != digest:
            raise BundleError(f"{folder}/{name} differs from its checksum; copy it again, or export it again")
    for path in (root / "model").rglob("*"):
        # what is loaded from there must be what was written there
        if path.is_file() and path.relative_to(root).as_posix() not in checksums:
            raise BundleError(f"{folder} has {path.relative_to(root)}, which far.json does not list; remove it")


def finetune(
    bundle: Bundle,
    train: Path,
    dev: Path | None,
    out: Path,
    epochs: float | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Tuned:
    """Run the bundle's FAR phase on a user's own file and save the merged model into ``out``.

    Args:
        train, dev: TSV files ``sentence<TAB>label`` with the bundle's labels.
        epochs: instead of the bundle's.

    Raises:
        BadInput: when ``out`` is in use.
        BundleError: when the weights do not go with the model.
        DataError: for rows that break the format, or labels that are not the bundle's.
    """
    config = bundle.config if epochs is None else replace(bundle.config, epochs=epochs)
    job, spec = bundle.settings.job, bundle.spec
    with whole_folder(out) as work:
        train_examples = read_examples(train, spec)
        dev_examples = None if dev is None else read_examples(dev, spec)
        tokenizer = load_tokenizer(resolve_model(str(bundle.folder / "model")))
        model = _start_model(bundle)
        rows = encode(tokenizer, train_examples, job.max_length)
        pad_id = int(tokenizer.pad_token_id or 0)
        plan = quickest(bundle.plan)  # as the trial was trained; the bundle's own is the device's
        try:
            _, curve = far_phase(
                model, bundle.layout, bundle.learners, config, plan, rows, job.batch_size, pad_id, job.seed, on_step
            )
        except ValueError as error:
            raise BundleError(f"{bundle.folder} does not go with its model: {error}; export it again") from error
        metric = None
        if dev_examples is not None:
            logits = predict(model, encode(tokenizer, dev_examples, job.max_length).input_ids, pad_id)
            metric = score(spec.metric, logits.argmax(1).tolist(), list(dev_examples.labels))
        model.save_pretrained(work)  # type: ignore[operator]
        tokenizer.save_pretrained(work)
        said = None if metric is None else {"metric": spec.metric, "value": metric.value, "error": metric.error}
        write_json(work / "result.json", {"schema_version": 1, "dev": said, "steps": curve[-1].step})
    return Tuned(metric, curve[-1].step)


def _start_model(bundle: Bundle) -> nn.Module:
    """The model with the weights that the FAR phase starts from, where it can be trained."""
    source = resolve_model(str(bundle.folder / "model"))
    model, _ = build_model(load_config(source), len(bundle.spec.labels))
    start = load_tensors(bundle.folder / "start.safetensors")
    if start is None:
        raise BundleError(f"{bundle.folder}/start.safetensors is damaged; export the bundle again")
    try:
        model.load_state_dict(start)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise BundleError(
            f"{bundle.folder}/start.safetensors does not go with its model: {reason}; export the bundle again"
        ) from error
    return model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
