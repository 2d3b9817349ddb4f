"""Write a bundle from the artifacts of a trial, without training."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from farsearch import far, runtime
from farsearch.bundle.card import card_of
from farsearch.bundle.delta import Base, base_of, save_delta
from farsearch.bundle.folder import check_new_folder, whole_folder
from farsearch.bundle.onnx import OnnxCheck, check_packages, export_onnx
from farsearch.bundle.phase import phase_record
from farsearch.cost.plans import for_engine
from farsearch.errors import BadInput, MissingResource
from farsearch.far import safetensors
from farsearch.far.display import shown
from farsearch.far.surgery import apply_far, merge
from farsearch.files import read_json, save_tensors, write_json, write_text
from farsearch.models.config import load_config
from farsearch.models.heads import Head, head_for
from farsearch.models.licences import licence_of
from farsearch.models.load import load_model
from farsearch.models.portable import save_portable
from farsearch.models.reading import quiet
from farsearch.models.source import ModelSource, resolve_model
from farsearch.models.tokenizer import load_tokenizer
from farsearch.priming import start_state
from farsearch.records import BaselineTrial, Completed, CompleteTrial, Engine, StudySnapshot, Trial, trial_to_dict
from farsearch.runtime.bundle_files import SCHEMA_VERSION, digest_of, file_digest
from farsearch.study.artifacts import SavedTrial, load_trial
from farsearch.study.refit import Refit
from farsearch.tasks.spec import study_task

__all__ = ["Written", "write_bundle"]

_LAUNCHER = '''"""Fine-tune this bundle's model: python3 train.py --help"""

import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
# no file of this folder shadows an installed module
sys.path[:] = [path for path in sys.path if os.path.realpath(path) != HERE]
sys.dont_write_bytecode = True  # the folder stays unchanged

import importlib.abc
import importlib.machinery
import importlib.util


class Source(importlib.machinery.SourceFileLoader):
    """Run a source, never its cached bytecode."""

    def get_code(self, fullname):
        return self.source_to_code(self.get_data(self.path), self.path)


class Finder(importlib.abc.MetaPathFinder):
    """Find the packages beside this file as bundle.far and bundle.runtime."""

    def find_spec(self, fullname, path=None, target=None):
        parts = fullname.split(".")
        if parts == ["bundle"]:
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = []
            return spec
        if parts[0] != "bundle" or parts[1] not in ("far", "runtime"):
            return None
        place = os.path.join(HERE, *parts[1:])
        package = os.path.isdir(place)
        file = os.path.join(place, "__init__.py") if package else place + ".py"
        folders = [place] if package else None
        loader = Source(fullname, file)
        return importlib.util.spec_from_file_location(
            fullname, file, loader=loader, submodule_search_locations=folders
        )


sys.meta_path.insert(0, Finder())

from bundle.runtime.main import main

sys.exit(main(HERE))
'''


@dataclass(frozen=True)
class Written:
    """A bundle that was written.

    Attributes:
        mib: size of all its files.
        whole_mib: size without ``--delta``.
        bulk: bytes of the tensors of a delta's start weights by name, the largest first; empty without ``--delta``.
        onnx: check of the ONNX model, if there is one.
        predicted: cost of the bundle's training on the device, as ``far.json`` has it.
        refit: the final model, where the trial was trained again for it.
    """

    path: Path
    mib: float
    whole_mib: float
    bulk: Mapping[str, int] = field(default_factory=dict)
    onnx: OnnxCheck | None = None
    predicted: Mapping[str, Any] = field(default_factory=dict)
    refit: Refit | None = None


def write_bundle(
    snapshot: StudySnapshot,
    trial: CompleteTrial,
    study_folder: Path,
    out: Path,
    why: str,
    *,
    home: Path,
    delta: bool = False,
    onnx: bool = False,
    engine: Engine | None = None,
    refit: Callable[[Trial[Completed]], Refit] | None = None,
) -> Written:
    """Write the bundle of one trial into the folder ``out``, which must not exist or be empty, or into a ``.zip``.

    Args:
        why: reason for the choice, for the bundle's provenance.
        home: folder of the user's own profiles.
        delta: write only the differences from the public checkpoint.
        onnx: also write the fine-tuned model as ONNX.
        engine: that trains on the board; None for that of the trial's plan.
        refit: trains a trial again, and its tensors take the place of the trial's; called after all checks. None for
            the trial's own.

    Raises:
        BadInput: when ``out`` is in use, the trial is none of a search, or its model can't be compiled for the engine.
        MissingResource: when the trial's tensors or the model are missing, or the disk is full.
    """
    if not isinstance(trial, Trial):
        kind = "baseline" if isinstance(trial, BaselineTrial) else "verification"
        raise BadInput(
            f"trial {trial.number} of {snapshot.name} is a {kind}, whose weights are not stored; choose one of the "
            "search's, see farsearch pareto"
        )
    if delta and onnx:
        raise BadInput("`delta` omits the model and `onnx` adds one; give one of them")
    engine = engine or trial.plan.engine
    if delta and engine == "onnx":
        raise BadInput("`delta` omits weights that `engine` onnx needs in its own layout; give one of them")
    if onnx or engine == "onnx":
        check_packages()
    check_new_folder(out)
    final = None if refit is None else refit(trial)
    saved = load_trial(study_folder, trial.number) if final is None else final.saved
    with whole_folder(out) as work:
        whole, bulk, check, predicted = _fill(work, snapshot, trial, saved, final, why, home, delta, onnx, engine)
        size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    return Written(out, size / 2**20, (size + whole) / 2**20, bulk, check, predicted, final)


def _fill(
    work: Path, snapshot: StudySnapshot, trial: Trial[Completed], saved: SavedTrial, refit: Refit | None, why: str,
    home: Path, delta: bool, onnx: bool, engine: Engine,
) -> tuple[int, Mapping[str, int], OnnxCheck | None, Mapping[str, Any]]:  # fmt: skip
    """Write all files.

    Returns:
        the bytes that a delta saved, the bytes of its tensors, the check of ONNX, and the predicted cost.
    """
    source = _source_of(snapshot)
    spec = study_task(snapshot.meta, snapshot.settings.job.task)
    tokenizer = load_tokenizer(source, spec.kind)
    head = head_for(spec.task, load_config(source))
    job = snapshot.settings.job
    model, layout = load_model(source, head, spec.labels, job.seed, job.keep_head)
    pretrained = {name: value.clone() for name, value in model.state_dict().items()}
    base = base_of(source, pretrained) if delta else None
    start = _start_and_tuned(model, layout, snapshot, trial, saved, pretrained)
    with quiet():
        model.save_pretrained(work / "model")  # type: ignore[operator]
    (work / "model" / "model.safetensors").chmod((work / "model" / "config.json").stat().st_mode)  # readable for a team
    portable = save_portable(tokenizer, work / "model")
    _without_code(work / "model")
    weights, whole, bulk = _weights(work, start, base, engine)
    exported = replace(trial, plan=for_engine(trial.plan, engine, layout))
    if engine == "onnx":
        start = {name: start[name] for name in weights["names"]}
        weights["start"] = _compiled(work, model, layout, head, start, saved, exported)
    check = export_onnx(work / "model", spec.kind, work / "model" / "model.onnx") if onnx else None
    for package in (far, runtime):
        code = Path(str(package.__file__)).parent
        shutil.copytree(code, work / code.name, ignore=shutil.ignore_patterns("__pycache__"))
    write_text(work / "train.py", _LAUNCHER)
    phase = phase_record(work, snapshot, exported, source, spec.task, head, layout, saved, tokenizer, portable, home)
    licence, base_name = licence_of(source), None if base is None else base.name
    card = card_of(snapshot, exported, licence, base_name, phase["predicted"], refit)
    write_text(work / "README.md", card)
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "study": snapshot.name,
        "settings": snapshot.settings.to_dict(),
        "trial": trial_to_dict(trial),
        **({} if refit is None else {"refit": refit.to_dict()}),
        "why": why,
        "versions": snapshot.meta["versions"],
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "base": None if base is None else base.to_dict(),
        "phase": {**phase, "weights": weights},
        "sha256": _checksums(work),
    }
    manifest = json.loads(json.dumps(manifest))  # the digest is that of the parsed file
    write_json(work / "far.json", {**manifest, "digest": digest_of(manifest)})
    return whole, bulk, check, phase["predicted"]


def _compiled(
    work: Path, model: nn.Module, layout: Any, head: Head, start: dict[str, Tensor], saved: SavedTrial,
    trial: Trial[Completed],
) -> str:  # fmt: skip
    """Compile the trial's FAR phase; return the file of the start weights."""
    from farsearch.bundle.engine import compile_phase

    config = trial.config.canonical()
    frozen = (config.frozen_embeddings, config.frozen_attention_layers, config.frozen_bottom_layers)
    return compile_phase(work, model, layout, head, start, saved.learners, frozen, trial.plan, saved.heads)


def _without_code(folder: Path) -> None:
    """Remove references to code, which transformers copies from the checkpoint, and readers refuse."""
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        values = read_json(path) if path.is_file() else {}
        if values.pop("auto_map", None) is not None:
            write_json(path, values)


def _source_of(snapshot: StudySnapshot) -> ModelSource:
    """Return the model of a study, from the hub at the study's commit."""
    weights = snapshot.settings.job.weights
    pickled = bool(snapshot.meta.get("options", {}).get("allow_pickle", False))
    source = resolve_model(snapshot.meta["model"], pickled)
    if not source.local:
        name, _, commit = weights.rpartition("@")
        source = replace(source, revision=commit if name == source.location else None)
    if source.digest() != weights:
        raise MissingResource(
            f"the weights of {shown(source.name)} are no longer those of the study; restore them, or search again"
        )
    return source


def _start_and_tuned(
    model: nn.Module, layout: Any, snapshot: StudySnapshot, trial: Trial[Completed], saved: SavedTrial,
    pretrained: dict[str, Tensor],
) -> dict[str, Tensor]:  # fmt: skip
    """Return the start weights; the model is left with the trained ones."""
    primed = pretrained if saved.primed is None else saved.primed
    frozen_values = snapshot.settings.job.priming.frozen_values
    start = start_state(layout, pretrained, primed, saved.learners, trial.config, frozen_values, saved.heads)
    model.load_state_dict(start)
    _put_trained(model, layout, saved, trial.config)
    return start


def _weights(
    work: Path, start: dict[str, Tensor], base: Base | None, engine: Engine
) -> tuple[dict[str, Any], int, Mapping[str, int]]:
    """Write the weights, but for a compiled engine's start.

    Returns:
        their record in ``far.json``, the bytes that a delta saved, and those of its parts.
    """
    tuned = work / "model" / "model.safetensors"
    state = safetensors.load(str(tuned))
    start = {name: start[name] for name in state}
    names = sorted(state)
    if base is None:
        if engine == "torch":
            save_tensors(work / "start.safetensors", start)
        return {"start": "start.safetensors", "tuned": "model/model.safetensors", "names": names}, 0, {}
    whole = 2 * tuned.stat().st_size
    bulk = save_delta(work / "start.delta.safetensors", start, base)
    save_delta(work / "model" / "delta.safetensors", state, base)
    tuned.unlink()
    size = sum(path.stat().st_size for path in (work / "start.delta.safetensors", work / "model" / "delta.safetensors"))
    record = {"start": "start.delta.safetensors", "tuned": "model/delta.safetensors", "names": names}
    return record, whole - size, bulk


def _checksums(work: Path) -> dict[str, str]:
    files = sorted(path for path in work.rglob("*") if path.is_file())
    return {path.relative_to(work).as_posix(): file_digest(str(path)) for path in files}


def _put_trained(model: Any, layout: Any, saved: SavedTrial, config: Any) -> None:
    """Load the trained tensors into the reconfigured model, and merge it."""
    config = config.canonical()
    apply_far(
        model, layout, saved.learners, config.frozen_embeddings, config.frozen_attention_layers,
        config.frozen_bottom_layers, heads=saved.heads or None,
    )  # fmt: skip
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in saved.trained.items():
            parameters[name].copy_(value)
    merge(model, layout)
