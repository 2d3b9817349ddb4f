"""Bundles for measuring the engines, made without a study."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from farsearch import far, runtime
from farsearch.bundle.engine import compile_phase
from farsearch.cost.plans import for_engine
from farsearch.far.layout import ModelLayout
from farsearch.far.selection import learner_count, random_learners
from farsearch.far.surgery import width_of
from farsearch.files import save_tensors, write_json, write_text
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.portable import save_portable
from farsearch.models.source import resolve_model
from farsearch.models.tokenizer import load_tokenizer
from farsearch.records import Engine, FarConfig, StepPlan
from farsearch.runtime.bundle_files import SCHEMA_VERSION, digest_of, file_digest
from farsearch.runtime.task import Task
from farsearch.runtime.tokenizer_proof import token_ids

__all__ = ["RANDOM_TASK", "make_bundle", "spread_words", "write_rows"]

RANDOM_TASK = Task("random", "classification", ("no", "yes"), "accuracy", ("sentence",), "label")

_WORDS = ("the", "of", "and", "in", "to", "was", "he", "is", "as", "for", "on", "with", "that", "it", "his", "by")

_LAUNCHER = """\
import os, sys
here = os.path.dirname(os.path.realpath(__file__))
sys.path[0] = os.path.dirname(here)
sys.dont_write_bytecode = True
from bundle.runtime.main import main
sys.exit(main(here))
"""
"""Unlike that of ``export`` it has no import guard, which changes neither figure."""


def make_bundle(
    folder: Path, model_config: Any, engine: Engine, *, batch_size: int, length: int, config: FarConfig, plan: StepPlan,
    task: Task = RANDOM_TASK, weights: tuple[Any, ModelLayout] | None = None,
) -> Path:  # fmt: skip
    """Write ``folder/bundle``, with random learners.

    Args:
        model_config: of transformers, with BERT's vocabulary.
        config: what is frozen, and the learning rate.
        task: of two classes.
        weights: a model of ``model_config`` and its layout; None for random weights.
    """
    bundle = folder / "bundle"
    config = config.canonical()
    frozen = (config.frozen_embeddings, config.frozen_attention_layers, config.frozen_bottom_layers)
    model, layout = weights or build_model(model_config, Head())
    saved: Any = model
    saved.config.id2label = dict(enumerate(task.labels))
    saved.save_pretrained(bundle / "model")
    tokenizer = load_tokenizer(resolve_model("minilm"), "classification")
    portable = save_portable(tokenizer, bundle / "model")
    width = width_of(model, layout.layers[0])
    learners = [
        None if fraction == 0.0 else random_learners(width, learner_count(width, fraction), seed=i)
        for i, fraction in enumerate(layout.by_block(config.frozen_fractions))
    ]
    state, start = model.state_dict(), "start.safetensors"
    plan = for_engine(plan, engine, layout)
    if engine == "onnx":
        start = compile_phase(bundle, model, layout, Head(), state, learners, frozen, plan)
    else:
        save_tensors(bundle / start, state)
    for package in (far, runtime):
        code = Path(str(package.__file__)).parent
        shutil.copytree(code, bundle / code.name, ignore=shutil.ignore_patterns("__pycache__"))
    write_text(bundle / "train.py", _LAUNCHER)
    phase = {
        "layout": layout.to_dict(), "learners": learners, "frozen_embeddings": frozen[0],
        "frozen_attention_layers": frozen[1], "frozen_bottom_layers": frozen[2],
        "learning_rate": config.learning_rate, "epochs": 1.0, "batch_size": batch_size, "seed": 0, "max_length": length,
        "plan": plan.to_dict(), "task": task.to_dict(), "segments": False,
        "tokenizer": {
            "proof": [["a film", token_ids(tokenizer, ["a film"], length)[0]]], "special": dict(portable.special),
            "lower_case": portable.lower_case, "pad_id": 0,
        },
        # more than any machine has is never compared with what is free
        "predicted": {"device": "none", "process_mib": 1.0, "peaks": [[None, 1.0]], "step_s": {str(length): 1.0}},
        "weights": {"start": start, "tuned": "model/model.safetensors", "names": sorted(state)},
    }  # fmt: skip
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "study": "benchmark", "trial": {"number": 0}, "base": None, "phase": phase,
        "sha256": {
            path.relative_to(bundle).as_posix(): file_digest(str(path)) for path in bundle.rglob("*") if path.is_file()
        },
    }  # fmt: skip
    manifest = json.loads(json.dumps(manifest))
    write_json(bundle / "far.json", {**manifest, "digest": digest_of(manifest)})
    return bundle


def spread_words(count: int) -> list[str]:
    """Return words of the tokenizer, each one token, from all over its vocabulary, as a task's rows have them."""
    vocabulary = load_tokenizer(resolve_model("minilm"), "classification").get_vocab()
    words = sorted((word for word in vocabulary if word.isascii() and word.isalpha()), key=vocabulary.__getitem__)
    spread = [words[i * len(words) // count] for i in range(count)]
    random.Random(0).shuffle(spread)
    return spread


def write_rows(path: Path, rows: int, length: int, words: Sequence[str] = _WORDS) -> Path:
    """Write rows of ``length`` tokens of these words, each one token, with two special ones."""
    of_rows = islice(cycle(words), rows * (length - 2))
    lines = [f"{' '.join(islice(of_rows, length - 2))}\t{RANDOM_TASK.labels[i % 2]}" for i in range(rows)]
    write_text(path, "\n".join(["sentence\tlabel", *lines]) + "\n")
    return path
