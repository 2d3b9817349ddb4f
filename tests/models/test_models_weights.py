"""Incomplete or foreign weights are refused by name; a checkpoint's own head is replaced or retained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import logging

from farsearch.errors import BadInput, FarsearchError, MissingResource
from farsearch.models.heads import Head
from farsearch.models.load import load_finetuned, load_model
from farsearch.models.source import resolve_model
from farsearch.models.tokenizer import load_tokenizer

LABELS = ("negative", "positive")

Weights = dict[str, Tensor]


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A tiny BERT that a test may change."""
    return shutil.copytree(tiny_bert, tmp_path / "model")


def change(folder: Path, how: Callable[[Weights], Weights]) -> None:
    """Rewrite the weights of a folder."""
    path = folder / "model.safetensors"
    changed = {name: value.clone() for name, value in how(load_file(path)).items()}
    save_file(changed, path, metadata={"format": "pt"})


def load(folder: Path, **options: Any) -> Any:
    """Load the folder's model with a head of two classes."""
    return load_model(resolve_model(str(folder)), Head(), LABELS, 0, **options)[0]


def without(part: str) -> Callable[[Weights], Weights]:
    """Leave out the tensors with ``part`` in their names."""
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def renamed(before: str, after: str) -> Callable[[Weights], Weights]:
    """Replace the prefix ``before`` of every name by ``after``."""
    return lambda weights: {after + name.removeprefix(before): value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (renamed("", "module."), "the prefix 'module.'"),
        (renamed("", "module.bert."), "the prefix 'module.'"),
        (renamed("", "model.encoder."), "the prefix 'model.encoder.'"),
        (without("layer.1."), "lack bert.encoder.layer.1.attention.output.LayerNorm.bias and 15 more"),
        (without("word_embeddings"), "lack bert.embeddings.word_embeddings.weight"),
        (
            lambda weights: {**weights, "encoder.layer.7.output.dense.bias": torch.zeros(32)},
            "have encoder.layer.7.output.dense.bias, for which",
        ),
        (
            lambda weights: {**weights, "embeddings.position_embeddings.weight": torch.zeros(64, 32)},
            "have other shapes than its config.json asks for, bert.embeddings.position_embeddings.weight first",
        ),
        (lambda _: {"nothing": torch.zeros(1)}, "lack bert.embeddings"),
    ],
    ids=[
        "module",
        "module and model",
        "wrapped",
        "a layer",
        "embeddings",
        "a layer more",
        "positions",
        "another model",
    ],
)
def test_an_incomplete_encoder_is_refused(folder: Path, how: Callable[[Weights], Weights], named: str) -> None:
    """A library that initialises missing tensors at random would continue silently."""
    change(folder, how)
    with pytest.raises(BadInput) as caught:
        load(folder)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "how",
    [
        renamed("", "bert."),
        without("pooler"),
        lambda weights: {**weights, "embeddings.position_ids": torch.arange(128)},
        lambda weights: {**renamed("", "bert.")(weights), "cls.predictions.bias": torch.zeros(9)},
    ],
    ids=["with the model's prefix", "no pooler", "a constant of old versions", "a pre-training head"],
)
def test_tensors_that_no_task_needs_are_optional(folder: Path, how: Callable[[Weights], Weights]) -> None:
    """The pooler, constants and pre-training heads: the encoder is the same."""
    expected = load(folder).bert.encoder.state_dict()
    change(folder, how)
    found = load(folder).bert.encoder.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def with_head(folder: Path, labels: tuple[str, ...], seed: int = 7) -> Weights:
    """Save a model with a trained head in the folder, and return the head."""
    model = load_model(resolve_model(str(folder)), Head(outputs=len(labels)), labels, seed)[0]
    with torch.no_grad():
        model.get_parameter("classifier.weight").add_(1.0)
    model.save_pretrained(folder)  # type: ignore[operator]
    return {name: value for name, value in model.state_dict().items() if name.startswith("classifier")}


@pytest.mark.parametrize("labels", [("negative", "positive"), ("bad", "good"), ("a", "b", "c")])
def test_the_head_of_a_checkpoint_is_replaced_with_a_note(folder: Path, labels: tuple[str, ...]) -> None:
    """The new head is drawn by the seed, as for a checkpoint without one, and one line reports it."""
    head, notes = with_head(folder, labels), []  # type: ignore[var-annotated]
    source = resolve_model(str(folder), note=notes.append)
    drawn = [load_model(source, Head(), LABELS, seed)[0].state_dict()["classifier.weight"] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].abs().max() < 0.2 < head["classifier.weight"].abs().max()
    assert len(notes) == 3
    assert "--keep-head" in notes[0]


def test_a_head_is_retained_if_its_labels_are_those_of_the_task(folder: Path) -> None:
    """Its tensors are those of the checkpoint."""
    head = with_head(folder, LABELS)
    found = load(folder, keep_head=True).state_dict()
    assert all(torch.equal(found[name], value) for name, value in head.items())


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (("positive", "negative"), "is for positive, negative, the task has negative, positive"),
        (("a", "b", "c"), "is for a, b, c"),
        (None, "is for LABEL_0, LABEL_1"),
    ],
)
def test_a_head_with_other_labels_is_replaced(folder: Path, labels: tuple[str, ...] | None, rule: str) -> None:
    """In another order every class would be another one."""
    if labels is not None:
        with_head(folder, labels)
    with pytest.raises(BadInput, match=rule):
        load(folder, keep_head=True)


def _shards(folder: Path) -> None:
    """Save the weights as transformers does with a small ``max_shard_size``."""
    weights, names = load_file(folder / "model.safetensors"), {}
    for i, half in enumerate((sorted(weights)[::2], sorted(weights)[1::2]), start=1):
        name = f"model-{i:05d}-of-00002.safetensors"
        save_file({key: weights[key] for key in half}, folder / name, metadata={"format": "pt"})
        names.update(dict.fromkeys(half, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "model.safetensors").unlink()


def test_shards_are_one_model(folder: Path) -> None:
    """The same tensors, and a digest that depends on every shard."""
    expected = load(folder).state_dict()
    _shards(folder)
    found, source = load(folder).state_dict(), resolve_model(str(folder))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    digest = source.digest()
    with (folder / "model-00002-of-00002.safetensors").open("ab") as file:
        file.write(b"\0")
    assert source.digest() != digest


def _pointer(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 90868376\n"
    (folder / "model.safetensors").write_text(text)


def _lost_shard(folder: Path) -> None:
    _shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _index(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(text)

    return write


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (_pointer, "model.safetensors of model is a Git LFS pointer"),
        (_lost_shard, "model lacks model-00002-of-00002.safetensors, which its index lists"),
        (_index("{"), "is no index of shards"),
        (_index('{"weight_map": {"a": "../../etc/passwd"}}'), "names no files beside it"),
        (_index('{"weight_map": {"a": 3}}'), "is no index of shards"),
        (_index('{"weight_map": {}}'), "names no files beside it"),
    ],
)
def test_files_without_weights_are_refused(folder: Path, damage: Callable[[Path], None], cause: str) -> None:
    """With the cause, both for the digest and when the model is loaded."""
    damage(folder)
    for ask in (lambda: load(folder), resolve_model(str(folder)).digest):
        with pytest.raises(FarsearchError, match=cause) as caught:
            ask()
        assert isinstance(caught.value, MissingResource)


def test_a_git_lfs_pointer_instead_of_a_tokenizer_is_reported(folder: Path) -> None:
    """Large vocabularies are stored by Git LFS too."""
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        MissingResource, match=r"tokenizer\.json of model is a Git LFS pointer of 63 bytes.*git lfs pull"
    ):
        load_tokenizer(resolve_model(str(folder)))


def test_an_incomplete_trained_head_is_refused(folder: Path) -> None:
    """If the head of a checkpoint is retained or passed on, no part of it is drawn at random."""
    with_head(folder, LABELS)
    change(folder, without("classifier.bias"))
    source = resolve_model(str(folder))
    for ask in (lambda: load(folder, keep_head=True), lambda: load_finetuned(source, "classification")):
        with pytest.raises(BadInput, match=r"lack classifier\.bias, which would be drawn at random"):
            ask()


def test_the_users_warning_settings_are_restored(folder: Path) -> None:
    """The vendor is silenced only while a model is loaded, where missing tensors are checked."""
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    try:
        load(folder)
        assert logging.get_verbosity() == logging.WARNING  # type: ignore[attr-defined]
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(before)
