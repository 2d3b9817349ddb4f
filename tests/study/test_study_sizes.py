"""Model-dependent spaces: groups of layers that share a frozen fraction, and defaults by model size."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from farsearch.errors import SpaceError
from farsearch.far.layout import ModelLayout
from farsearch.models.config import load_config
from farsearch.models.count import layer_parameters
from farsearch.models.source import known_models, resolve_model
from farsearch.study.groups import kind_of, layer_groups, name_of
from farsearch.study.kernel import Encoder
from farsearch.study.sizes import Size, read_sizes, shipped_sizes, size_of
from farsearch.study.space import Space, load_space
from tests.tiny import FAMILIES, make_model

LAYERS = st.integers(1, 48)
TINY = shipped_sizes()[0]


@given(layers=LAYERS, most=st.one_of(st.none(), st.integers(1, 50)))
def test_groups_cover_every_layer_once_and_evenly(layers: int, most: int | None) -> None:
    """Groups end to end are the layers from the bottom, no more than asked for, and differ by one layer at most."""
    groups = layer_groups(layers, most)
    assert [layer for group in groups for layer in group] == list(range(layers))
    assert len(groups) == (layers if most is None else min(layers, most))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    # spread: of neighbouring groups, as many as you like, no run has two layers more than another as long
    for run in range(1, len(sizes) + 1):
        lengths = [sum(sizes[i : i + run]) for i in range(len(sizes) - run + 1)]
        assert max(lengths) - min(lengths) <= 1


def test_groups_of_usual_models() -> None:
    """As the documentation has them: one a layer up to six, pairs of twelve, fours of twenty-four, eight spread."""
    assert [*map(len, layer_groups(6, 6))] == [1] * 6
    assert [*map(len, layer_groups(12, 6))] == [2] * 6
    assert [*map(len, layer_groups(24, 6))] == [4] * 6
    assert [*map(len, layer_groups(8, 6))] == [1, 1, 2, 1, 1, 2]


@given(layers=LAYERS, most=st.integers(1, 50))
def test_names_of_groups_are_unique_and_of_one_kind(layers: int, most: int) -> None:
    """Each group's parameter has a name of its own; all are the same parameter to the sampler."""
    names = [name_of("frozen_fraction", group) for group in layer_groups(layers, most)]
    assert len(set(names)) == len(names)
    assert {kind_of(name) for name in names} == {"frozen_fraction"}
    assert [kind_of(name) for name in ("frozen_attention_layers", "learning_rate")] == [
        "frozen_attention_layers", "learning_rate",
    ]  # fmt: skip


@given(layers=LAYERS, data=st.data())
def test_a_configuration_has_a_fraction_for_every_layer(layers: int, data: st.DataObject) -> None:
    """Whatever the groups: each layer has its group's fraction, and starts mean the same in all."""
    groups = data.draw(st.integers(1, 12))
    space = load_space("default")
    space = with_groups(space, groups).for_model(layers, TINY)
    drawn = {
        name: data.draw(st.sampled_from([0.0, 0.35, 1.0])) for name in space.distributions(layers) if "frozen" in name
    }
    config = space.config({**drawn, "priming_epochs": 0.0, "learning_rate": 1e-4}, layers)
    expected = [drawn[name_of("frozen_fraction", group)] for group in layer_groups(layers, groups) for _ in group]
    assert config.frozen_fractions == tuple(expected)
    assert len(drawn) == min(groups, layers)
    starts = {name: space.config(params, layers) for name, params in space.starts(layers).items()}
    assert {name: set(found.frozen_fractions) for name, found in starts.items()} == {
        "full fine-tuning": {0.0}, "FAR r=10 % as published": {0.9},
    }  # fmt: skip


def with_groups(space: Space, groups: int) -> Space:
    """The space with another number of groups."""
    data = yaml.safe_load(space.to_yaml())
    data["search"]["frozen_fraction"]["groups"] = groups
    return Space.from_dict("mine", data)


def test_groups_share_a_length_scale_and_a_frozen_bottom_may_end_within_one() -> None:
    """The sampler sees the fractions of groups as one kind of parameter; a frozen bottom overrules part of a group."""
    space = load_space("wide").for_model(12, TINY)
    encode = Encoder(space.distributions(12))
    assert sorted(encode.groups.tolist()).count(1) == 6
    params = dict.fromkeys((name_of("frozen_fraction", group) for group in space.groups(12)), 0.5)
    others = {"priming_epochs": 0.0, "learning_rate": 1e-4, "frozen_embeddings": True, "frozen_attention_layers": 0}
    config = space.config({**params, **others, "frozen_bottom_layers": 3}, 12)
    assert config.frozen_fractions == (1.0,) * 3 + (0.5,) * 9


def test_a_study_of_six_layers_is_the_same_as_before_groups() -> None:
    """Names of parameters and stored settings are unchanged, so that older studies of MiniLM can be resumed."""
    space = load_space("default").for_model(6, TINY)
    assert set(space.distributions(6)) - {"learning_rate", "priming_epochs"} == {
        f"frozen_fraction_layer_{i}" for i in range(6)
    }
    assert space.to_dict() == {
        "name": "default",
        "search": {
            "priming_epochs": {"choices": [0.0, 0.03, 0.1, 0.3]},
            "frozen_fraction": {"per_layer": True, "low": 0.0, "high": 1.0, "step": 0.05},
            "learning_rate": {"low": 3e-5, "high": 5e-4, "log": True},
        },
        "fixed": {
            "epochs": 1.0, "frozen_embeddings": False, "frozen_attention_layers": 0, "frozen_bottom_layers": 0,
        },
    }  # fmt: skip


@given(layers=LAYERS, size=st.sampled_from(shipped_sizes()), other=st.sampled_from(shipped_sizes()))
@pytest.mark.parametrize("name", ["default", "uniform", "wide"])
def test_a_study_stores_numbers(name: str, layers: int, size: Size, other: Size) -> None:
    """Stored settings have numbers only, so they do not change with the sizes of a worker's version."""
    space = load_space(name).for_model(layers, size)
    assert space == load_space(name).for_model(layers, size)
    stored = Space.from_settings(space.to_dict())
    assert stored.for_model(layers, other).to_dict() == space.to_dict()
    assert stored.distributions(layers) == space.distributions(layers)
    rate = space.to_dict()["search"]["learning_rate"]
    assert (rate["low"], rate["high"]) == (size.learning_rate.low, size.learning_rate.high)


@given(layers=LAYERS, size=st.sampled_from(shipped_sizes()))
def test_a_space_in_numbers_is_a_file_of_its_own(layers: int, size: Size) -> None:
    """What ``spaces show --model`` prints is the same space for that model, its starts too."""
    space = load_space("wide").for_model(layers, size)
    again = Space.from_dict("wide", yaml.safe_load(space.to_yaml()))
    assert again.distributions(layers) == space.distributions(layers)
    assert again.starts(layers) == space.starts(layers)


def test_numbers_in_a_file_are_no_size_s() -> None:
    """Explicit rates still work, in the range and in starts; one outside of the size's range is not tried."""
    data = yaml.safe_load(load_space("default").to_yaml())
    data["search"]["learning_rate"] = {"low": 1e-3, "high": 1e-2, "log": True}
    data["start"]["mine"] = {"frozen_fraction": 0.5, "priming_epochs": 0.0, "learning_rate": 2e-3}
    space = Space.from_dict("mine", data).for_model(6, TINY)
    assert space.search["learning_rate"] == {"low": 1e-3, "high": 1e-2, "log": True}
    assert list(space.starts(6)) == ["mine"]


def test_known_checkpoints_have_their_size() -> None:
    """MiniLM and the small BERTs are tiny, DistilBERT small, BERT-base base, BERT-large large, without any weights."""
    expected = {
        "minilm": "tiny",
        "google/bert": "tiny",
        "distilbert-": "small",
        "bert-base": "base",
        "bert-large": "large",
    }
    seen = set()
    for name in known_models():
        start = next((start for start in expected if name.startswith(start)), None)
        if start is not None:
            size = size_of(layer_parameters(load_config(resolve_model(name), with_known=True)))
            assert size.name == expected[start], name
            seen.add(start)
    assert seen == set(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_real_layers(family: str) -> None:
    """The count without weights is the count of a model that has them, and does not change the draw of its weights."""
    model: nn.Module
    layout: ModelLayout
    model, layout = make_model(family)
    prefixes = tuple(f"{layer.path}." for layer in layout.layers)
    counted = sum(value.numel() for name, value in model.state_dict().items() if name.startswith(prefixes))
    state = torch.get_rng_state()
    assert layer_parameters(model.config) == counted
    assert torch.equal(torch.get_rng_state(), state)


def test_a_vocabulary_makes_no_model_larger() -> None:
    """Embeddings are not counted: languages do not change how the layers learn."""
    counts = {layer_parameters(transformers.BertConfig(vocab_size=size)) for size in (100, 250_000)}
    assert len(counts) == 1


def test_every_count_has_one_size() -> None:
    """Sizes follow each other without a gap: the bound belongs to the smaller one, and the largest has none."""
    sizes = shipped_sizes()
    for size, larger in itertools.pairwise(sizes):
        assert size.most_parameters is not None
        assert size_of(size.most_parameters) == size
        assert size_of(size.most_parameters + 1) == larger
        assert larger.learning_rate.low < size.learning_rate.low
        assert larger.learning_rate.high < size.learning_rate.high
    assert size_of(10**12) == sizes[-1]
    assert [size.name for size in sizes] == ["tiny", "small", "base", "large"]


RATES = {"low": 1e-5, "high": 1e-3, "full": 1e-4, "frozen": 2e-4}
SIZES: dict[str, Any] = {
    "schema_version": 1,
    "sizes": {
        "little": {"most_parameters": 10, "batch_size": 8, "max_length": 128, "learning_rate": RATES},
        "much": {"batch_size": 16, "max_length": 128, "learning_rate": RATES},
    },
}


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("schema_version", 2, "has schema_version 2; it must be 1"),
        ("size", {}, "schema_version and sizes only"),
        ("sizes", {}, "schema_version and sizes only"),
        ("sizes.little.batch", 8, "little: Size has the unknown key 'batch'"),
        ("sizes.little.batch_size", 0, "little: batch_size 0 must be at least 1"),
        ("sizes.little.batch_size", "8", "must be of type int"),
        ("sizes.little.learning_rate.rate", 8, "little: Size.learning_rate has the unknown key 'rate'"),
        ("sizes.much.learning_rate.full", 1.0, "full and frozen between them"),
        ("sizes.much.learning_rate.low", 0.0, "must be above 0"),
        ("sizes.much.most_parameters", 100, "the last must have none"),
        ("sizes.little.most_parameters", None, "must grow from size to size"),
    ],
)
def test_a_malformed_file_of_sizes_is_refused_by_name(path: str, value: Any, rule: str) -> None:
    """Each error names file, size, key and rule."""
    data = copy.deepcopy(SIZES)
    assert [size.name for size in read_sizes("sizes.yaml", data)] == ["little", "much"]
    *parents, last = path.split(".")
    table = data
    for key in parents:
        table = table[key]
    table[last] = value
    with pytest.raises(SpaceError) as caught:
        read_sizes("sizes.yaml", data)
    assert str(caught.value).startswith("sizes.yaml")
    assert rule in str(caught.value)


def test_the_documentation_has_the_shipped_numbers() -> None:
    """The table of docs/spaces.md is that of sizes.yaml."""
    text = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    documented = {row[0]: row[1:2] + row[3:] for row in rows if len(row) == 7}
    for size in shipped_sizes():
        rate, bound = size.learning_rate, size.most_parameters
        shown = [f"{value:.0e}".replace("e-0", "e-") for value in (rate.low, rate.high, rate.full, rate.frozen)]
        assert documented[size.name] == [
            "more" if bound is None else f"up to {bound // 10**6} M",
            str(size.batch_size),
            str(size.max_length),
            f"{shown[0]} to {shown[1]}",
            f"{shown[2]}, {shown[3]}",
        ]
