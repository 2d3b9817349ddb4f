"""Bundles of a tiny model for every engine, made without a study."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import farsearch.far
import farsearch.runtime
from farsearch.far import safetensors
from farsearch.far.loss import LossForm
from farsearch.far.surgery import apply_far
from farsearch.graph.compiler import compile_step, engine_execution
from farsearch.models.heads import Head
from farsearch.models.portable import save_portable
from farsearch.runtime.bundle_files import SCHEMA_VERSION, digest_of, file_digest
from farsearch.runtime.task import Task
from farsearch.runtime.tokenizer_proof import token_ids
from tests.tiny import make_distilbert, make_model

__all__ = ["ENGINES", "TASK", "make_bundle", "sign", "write_rows"]

ENGINES = ("torch", "onnx")

TASK = Task("reviews", "classification", ("negative", "positive"), "accuracy", ("sentence",), "label")

LEARNERS = [[0, 5, 9], None]
HEADS: list[list[int] | None] = [None, [1]]
"""Learners of the two layers; all of the second."""

_PLAN = {
    "optimizer": "adamw", "micro_batch_size": None, "feed_forward": "store", "attention": "modules",
    "dropout": "seed", "layer_norm": "modules", "frozen_dtype": "float32", "checkpointing": False,
    "optimizer_kernel": "loop", "optimizer_step": "end",
}  # fmt: skip

_LAUNCHER = """\
import os, sys
here = os.path.dirname(os.path.realpath(__file__))
sys.path[0] = os.path.dirname(here)
from bundle.runtime.main import main
sys.exit(main(here))
"""


def make_bundle(
    folder: Path, engine: str, dropout: float = 0.0, weighted: bool = False, smoothing: float = 0.0, **more: Any
) -> Path:
    """Write ``folder/bundle`` with a DistilBERT of two layers, ``weighted`` with balanced weights of the classes.

    ``more`` are further entries of its phase.
    """
    bundle = folder / "bundle"
    _, layout = make_model("distilbert", dropout=dropout)
    make_distilbert(bundle / "model", dropout=dropout)
    torch.manual_seed(0)  # of the head
    model = AutoModelForSequenceClassification.from_pretrained(
        bundle / "model", id2label=dict(enumerate(TASK.labels)), problem_type="single_label_classification"
    )
    model.save_pretrained(bundle / "model")
    tokenizer = AutoTokenizer.from_pretrained(bundle / "model")
    portable = save_portable(tokenizer, bundle / "model")
    names, start = sorted(model.state_dict()), "start.safetensors"
    if engine == "onnx":
        start = "engine/weights.safetensors"
        (bundle / "engine").mkdir()
        execution = engine_execution(layout)
        apply_far(model, layout, LEARNERS, frozen_embeddings=True, execution=execution, heads=HEADS)
        compile_step(model, layout, Head(), names, LossForm(weighted, smoothing)).write(bundle / "engine")
    else:
        safetensors.save(str(bundle / start), model.state_dict())
    for package in (farsearch.far, farsearch.runtime):
        code = Path(str(package.__file__)).parent
        shutil.copytree(code, bundle / code.name, ignore=shutil.ignore_patterns("__pycache__"))
    (bundle / "train.py").write_text(_LAUNCHER)
    texts = ("A quiet film.", "word " * 200)
    phase: dict[str, Any] = {
        "layout": layout.to_dict(), "learners": LEARNERS, "heads": HEADS, "frozen_embeddings": True,
        "frozen_attention_layers": 0, "frozen_bottom_layers": 0, "learning_rate": 0.01, "epochs": 2.0, "batch_size": 8,
        "seed": 3, "max_length": 32, "plan": {**_PLAN, "engine": engine}, "task": TASK.to_dict(), "segments": False,
        "tokenizer": {
            "proof": list(zip(texts, token_ids(tokenizer, texts, 32), strict=True)),
            "special": dict(portable.special), "lower_case": portable.lower_case, "pad_id": 0,
        },
        "predicted": {"device": "raspberry-pi-4", "process_mib": 50.0, "peaks": [[None, 60.0]], "step_s": {"32": 0.1}},
        "weights": {"start": start, "tuned": "model/model.safetensors", "names": names},
    }  # fmt: skip
    phase |= {**({"class_weights": "balanced"} if weighted else {}), **more}
    if smoothing:
        phase["label_smoothing"] = smoothing
    manifest = {"schema_version": SCHEMA_VERSION, "study": "tiny", "trial": {"number": 4}, "base": None, "phase": phase}
    (bundle / "far.json").write_text(json.dumps(manifest))
    return sign(bundle)


def sign(bundle: Path) -> Path:
    """List all files with their checksums; return the folder."""
    manifest = json.loads((bundle / "far.json").read_text())
    files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != "far.json")
    manifest["sha256"] = {path.relative_to(bundle).as_posix(): file_digest(str(path)) for path in files}
    manifest["digest"] = digest_of(manifest)
    (bundle / "far.json").write_text(json.dumps(manifest))
    return bundle


def write_rows(path: Path, count: int = 60) -> Path:
    """Write rows of various lengths, whose label is that of their words."""
    lines = [f"the film is {('bad ', 'good ')[i % 2] * (1 + i % 7)}\t{TASK.labels[i % 2]}" for i in range(count)]
    path.write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return path
