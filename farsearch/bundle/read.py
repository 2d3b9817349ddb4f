"""Read a bundle, and run its FAR phase on other data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farsearch.bundle.write import BUNDLE_SCHEMA, sha256_of
from farsearch.errors import BadInput, BundleError
from farsearch.far.layout import ModelLayout
from farsearch.far.loop import predict
from farsearch.files import disk_errors, load_tensors, read_json, write_json
from farsearch.models.load import build_model, load_config, load_tokenizer, resolve_model
from farsearch.records import StudySettings, TrialRecord
from farsearch.tasks.encode import encode
from farsearch.tasks.load import read_examples
from farsearch.tasks.metrics import MetricValue, score
from farsearch.tasks.spec import get_task
from farsearch.training import far_phase

__all__ = ["Bundle", "Tuned", "finetune", "read_bundle"]

_KEYS = {
    "schema_version", "study", "settings", "trial", "labels", "metric", "layout", "learners", "why", "versions",
    "created", "sha256",
}  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked against their checksums."""

    folder: Path
    settings: StudySettings
    trial: TrialRecord
    labels: tuple[str, ...]
    metric: Any
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
        raise BundleError(f"{folder} has schema version {version!r}; this farsearch reads {BUNDLE_SCHEMA}")
    if set(data) != _KEYS:
        wrong = sorted(set(data) ^ _KEYS)[0]
        raise BundleError(f"{folder}/far.json has a missing or unknown key {wrong!r}; export the bundle again")
    _check_files(folder, data["sha256"])
    try:
        return Bundle(
            folder=folder,
            settings=StudySettings.from_dict(data["settings"]),
            trial=TrialRecord.from_dict(data["trial"]),
            labels=tuple(data["labels"]),
            metric=data["metric"],
            layout=ModelLayout.from_dict(data["layout"]),
            learners=data["learners"],
        )
    except (BadInput, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{folder}/far.json does not say a bundle: {error}; export it again") from error


def _check_files(folder: Path, checksums: Any) -> None:
    if not isinstance(checksums, dict) or "start.safetensors" not in checksums:
        raise BundleError(f"{folder}/far.json lists no start.safetensors; export the bundle again")
    root = folder.resolve()
    for name, digest in checksums.items():
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise BundleError(f"{folder}/far.json names {name!r}, which is outside the bundle; do not use it")
        if not path.is_file():
            raise BundleError(f"{folder} lacks {name}; copy the whole folder, or export it again")
        if sha256_of(path) != digest:
            raise BundleError(f"{folder}/{name} differs from its checksum; copy it again, or export it again")


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
        DataError: for rows that break the format, or labels that are not the bundle's.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} exists and is not empty; name a new folder, or remove it first")
    job, config, plan = bundle.settings.job, bundle.trial.config, bundle.trial.plan
    if config is None or plan is None:
        raise BundleError(f"{bundle.folder} says no configuration; export it again")
    spec = get_task(job.task)
    train_examples = read_examples(train, spec)
    dev_examples = None if dev is None else read_examples(dev, spec)
    source = resolve_model(str(bundle.folder / "model"))
    tokenizer = load_tokenizer(source)
    model, _ = build_model(load_config(source), len(bundle.labels))
    start = load_tensors(bundle.folder / "start.safetensors")
    if start is None or set(start) != set(model.state_dict()):
        raise BundleError(f"{bundle.folder}/start.safetensors does not go with its model; export the bundle again")
    model.load_state_dict(start)
    rows = encode(tokenizer, train_examples, job.max_length)
    if epochs is not None:
        config = type(config).from_dict({**config.to_dict(), "epochs": epochs})
    pad_id = int(tokenizer.pad_token_id or 0)
    _, curve = far_phase(
        model, bundle.layout, bundle.learners, config, plan, rows, job.batch_size, pad_id, job.seed, on_step
    )
    metric = None
    if dev_examples is not None:
        logits = predict(model, encode(tokenizer, dev_examples, job.max_length).input_ids, pad_id)
        metric = score(bundle.metric, logits.argmax(1).tolist(), list(dev_examples.labels))
    with disk_errors(out):
        model.save_pretrained(out)  # type: ignore[operator]
        tokenizer.save_pretrained(out)
    result = None if metric is None else {"metric": bundle.metric, "value": metric.value, "standard_error": metric.error}
    write_json(out / "result.json", {"schema_version": 1, "dev": result, "steps": curve[-1].step})
    return Tuned(metric, curve[-1].step)
