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
from farsearch.study.encoding import Encoder
from farsearch.study.groups import kind_of, layer_groups, name_of
from farsearch.study.sizes import Size, read_sizes, shipped_sizes, size_of
from farsearch.study.space import Space, load_space, retired_space
from tests.tiny import FAMILIES, make_model

LAYERS = st.integers(1, 48)
TINY = shipped_sizes()[0]


@given(layers=LAYERS, most=st.one_of(st.none(), st.integers(1, 50)))
def test_groups_partition_the_layers_evenly(layers: int, most: int | None) -> None:
    """Groups follow each other from the bottom, are at most as many as requested, and differ by at most one layer."""
    groups = layer_groups(layers, most)
    assert [layer for group in groups for layer in group] == list(range(layers))
    assert len(groups) == (layers if most is None else min(layers, most))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    # evenly spread: of all runs of neighbouring groups with equal length, none has two layers more than another
    for run in range(1, len(sizes) + 1):
        lengths = [sum(sizes[i : i + run]) for i in range(len(sizes) - run + 1)]
        assert max(lengths) - min(lengths) <= 1


def test_groups_of_common_models_are_the_documented_ones() -> None:
    """Groups have one layer for 6 layers, two for 12, four for 24; 8 layers are spread evenly over six groups."""
    assert [*map(len, layer_groups(6, 6))] == [1] * 6
    assert [*map(len, layer_groups(12, 6))] == [2] * 6
    assert [*map(len, layer_groups(24, 6))] == [4] * 6
    assert [*map(len, layer_groups(8, 6))] == [1, 1, 2, 1, 1, 2]


@given(layers=LAYERS, most=st.integers(1, 50))
def test_group_parameters_have_unique_names_of_one_kind(layers: int, most: int) -> None:
    """The sampler treats all of them as the same kind of parameter."""
    names = [name_of("frozen_fraction", group) for group in layer_groups(layers, most)]
    assert len(set(names)) == len(names)
    assert {kind_of(name) for name in names} == {"frozen_fraction"}
    assert [kind_of(name) for name in ("frozen_attention_layers", "learning_rate")] == [
        "frozen_attention_layers", "learning_rate",
    ]  # fmt: skip


@given(layers=LAYERS, data=st.data())
def test_configuration_has_a_fraction_for_every_layer(layers: int, data: st.DataObject) -> None:
    """Each layer has the fraction of its group, and starts mean the same for any groups."""
    groups = data.draw(st.integers(1, 12))
    retired = retired_space("default")
    assert retired is not None
    space = with_groups(retired, groups).for_model(layers, TINY)
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
    """Return the space with another number of groups."""
    data = yaml.safe_load(space.to_yaml())
    data["search"]["frozen_fraction"]["groups"] = groups
    return Space.from_dict("mine", data)


def test_groups_share_a_length_scale_and_a_frozen_bottom_may_end_within_one() -> None:
    """The sampler treats the groups' fractions as one kind of parameter; a frozen bottom overrides part of a group."""
    space = load_space("wide").for_model(12, TINY)
    encode = Encoder(space.distributions(12))
    assert sorted(encode.groups.tolist()).count(1) == 6
    params = dict.fromkeys((name_of("frozen_fraction", group) for group in space.groups(12)), 0.5)
    others = {"priming_epochs": 0.0, "learning_rate": 1e-4, "frozen_embeddings": True, "frozen_attention_layers": 0}
    config = space.config({**params, **others, "frozen_bottom_layers": 3}, 12)
    assert config.frozen_fractions == (1.0,) * 3 + (0.5,) * 9


def test_six_layer_study_has_the_names_of_older_versions() -> None:
    """Parameter names and stored settings are unchanged, so that older studies of MiniLM can be resumed."""
    retired = retired_space("default")
    assert retired is not None
    space = retired.for_model(6, TINY)
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
@pytest.mark.parametrize("name", ["default", "paper", "uniform", "wide"])
def test_study_stores_resolved_numbers(name: str, layers: int, size: Size, other: Size) -> None:
    """Stored settings do not change with the sizes of another version."""
    space = load_space(name).for_model(layers, size)
    assert space == load_space(name).for_model(layers, size)
    stored = Space.from_settings(space.to_dict())
    assert stored.for_model(layers, other).to_dict() == space.to_dict()
    assert stored.distributions(layers) == space.distributions(layers)
    rate = space.to_dict()["search"]["learning_rate"]
    assert (rate["low"], rate["high"]) == (size.learning_rate.low, size.learning_rate.high)


@given(layers=LAYERS, size=st.sampled_from(shipped_sizes()))
def test_resolved_space_is_a_valid_space_file(layers: int, size: Size) -> None:
    """The output of ``spaces show --model`` is the same space for that model, including its starts."""
    space = load_space("wide").for_model(layers, size)
    again = Space.from_dict("wide", yaml.safe_load(space.to_yaml()))
    assert again.distributions(layers) == space.distributions(layers)
    assert again.starts(layers) == space.starts(layers)


def test_explicit_numbers_override_the_size() -> None:
    """Explicit rates work in ranges and starts; a start outside the size's range is not tried."""
    data = yaml.safe_load(load_space("default").to_yaml())
    data["search"]["learning_rate"] = {"low": 1e-3, "high": 1e-2, "log": True}
    data["start"]["mine"] = {**data["start"]["full fine-tuning"], "frozen_fraction": 0.5, "learning_rate": 2e-3}
    space = Space.from_dict("mine", data).for_model(6, TINY)
    assert space.search["learning_rate"] == {"low": 1e-3, "high": 1e-2, "log": True}
    assert list(space.starts(6)) == ["mine"]


def test_size_of_known_checkpoints() -> None:
    """MiniLM and small BERTs are tiny, DistilBERT small, BERT-base base, BERT-large large, all without weights."""
    expected = {
        "minilm": "tiny",
        "google/bert": "tiny",
        "distilbert-": "small",
        "bert-base": "base",
        "bert-large": "large",
        "xlm-roberta-large": "large",
        "microsoft/deberta-v3-large": "large",
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
def test_parameter_count_equals_that_of_the_real_layers(family: str) -> None:
    """The count needs no weights, and does not change the draw of a model's weights."""
    model: nn.Module
    layout: ModelLayout
    model, layout = make_model(family)
    prefixes = tuple(f"{layer.path}." for layer in layout.layers)
    counted = sum(value.numel() for name, value in model.state_dict().items() if name.startswith(prefixes))
    state = torch.get_rng_state()
    assert layer_parameters(model.config) == counted
    assert torch.equal(torch.get_rng_state(), state)


def test_vocabulary_does_not_change_the_size() -> None:
    """Embeddings are not counted, because the number of languages does not change how the layers learn."""
    counts = {layer_parameters(transformers.BertConfig(vocab_size=size)) for size in (100, 250_000)}
    assert len(counts) == 1


def test_every_count_has_one_size() -> None:
    """Sizes have no gaps: a bound belongs to the smaller size, and the largest has none."""
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
def test_malformed_sizes_file_is_reported_with_size_key_and_rule(path: str, value: Any, rule: str) -> None:
    """Each error also names the file."""
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


def test_documented_numbers_equal_the_shipped_ones() -> None:
    """Compare the table of docs/spaces.md with sizes.yaml."""
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
