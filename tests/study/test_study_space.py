"""Search spaces: the shipped ones, the rules for a user's, and their distributions and configurations."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from farsearch.errors import SpaceError
from farsearch.records import FarConfig
from farsearch.study.random_configs import draw_params
from farsearch.study.sizes import Size, shipped_sizes
from farsearch.study.space import Space, load_space, retired_space
from farsearch.study.space_files import list_spaces, space_text

TINY = shipped_sizes()[0]

GOOD: dict[str, Any] = {
    "schema_version": 1,
    "title": "a space of the user's",
    "search": {
        "frozen_fraction": {"low": 0.0, "high": 1.0, "step": 0.25},
        "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
    },
    "fixed": {
        "epochs": 1.0,
        "priming_epochs": 0.0,
        "frozen_embeddings": False,
        "frozen_attention_layers": 0,
        "frozen_bottom_layers": 0,
    },
    "start": {"full fine-tuning": {"frozen_fraction": 0.0, "learning_rate": 1e-4}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return ``GOOD`` with one value replaced at a dotted path; None removes the key."""
    data = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    table = data
    for key in parents:
        table = table.setdefault(key, {})
    if value is None:
        del table[last]
    else:
        table[last] = value
    return data


def test_shipped_spaces_are_the_documented_ones() -> None:
    """Both load, and have few parameters for models of 2 to 24 layers and every size."""
    assert list_spaces() == ["default", "paper"]
    for name in list_spaces():
        space = load_space(name)
        assert space.title
        for layers in (2, 6, 12, 24):
            for size in shipped_sizes():
                assert len(space.for_model(layers, size).distributions(layers)) <= 13


def test_default_space_has_the_documented_dimensions() -> None:
    """Priming epochs from a grid, one fraction per layer in steps of 0.05, the learning rate on a log scale, parts."""
    distributions = load_space("default").for_model(6, TINY).distributions(6)
    assert distributions.pop("priming_epochs") == CategoricalDistribution([0.0, 0.01, 0.03, 0.1, 0.3])
    assert distributions.pop("frozen_attention_layers") == IntDistribution(0, 6)
    assert distributions.pop("frozen_bottom_layers") == IntDistribution(0, 5)
    assert distributions.pop("frozen_embeddings") == CategoricalDistribution([False, True])
    for half in ("0_to_2", "3_to_5"):
        assert distributions.pop(f"frozen_heads_layers_{half}") == FloatDistribution(0.0, 1.0, step=0.25)
    rate = distributions.pop("learning_rate")
    assert isinstance(rate, FloatDistribution)
    assert rate.log
    assert rate.low < 1e-4 < rate.high
    steps = FloatDistribution(0.0, 1.0, step=0.05)
    assert distributions == {f"frozen_fraction_layer_{i}": steps for i in range(6)}


def test_uniform_space_has_one_fraction_for_all_layers() -> None:
    """It has three parameters at any depth."""
    space = load_space("uniform")
    assert set(space.for_model(12, TINY).distributions(12)) == {"priming_epochs", "frozen_fraction", "learning_rate"}
    params = {"priming_epochs": 0.1, "frozen_fraction": 0.15000000000000002, "learning_rate": 2e-4}
    config = space.config(params, 3)
    assert config.frozen_fractions == (0.15, 0.15, 0.15)
    assert (config.priming_epochs, config.learning_rate, config.epochs) == (0.1, 2e-4, 1.0)


@pytest.mark.parametrize("name", ["default", "wide", "uniform"])
def test_retired_spaces_are_read_for_old_studies(name: str) -> None:
    """What shipped spaces were before is known by its name, unchanged; the names of retired ones still work."""
    retired = retired_space(name)
    assert retired is not None
    assert retired.search["priming_epochs"] == {"choices": [0.0, 0.03, 0.1, 0.3]}
    assert ("frozen_bottom_layers" in retired.search) == (name == "wide")
    assert retired.name == name
    assert (load_space(name) == retired) == (name != "default")
    assert retired_space("paper") is None
    assert retired_space("../sizes") is None


@pytest.mark.parametrize("name", ["default", "paper", "uniform", "wide"])
@pytest.mark.parametrize(("size", "layers"), [*zip(shipped_sizes(), (6, 6, 12, 24), strict=True)])
def test_published_configurations_are_tried_first(name: str, size: Size, layers: int) -> None:
    """Full fine-tuning and the paper's configuration are starts of every shipped space, and lie in it."""
    space = load_space(name).for_model(layers, size)
    starts = space.starts(layers)
    full = space.config(starts["full fine-tuning"], layers)
    paper = space.config(starts["FAR r=10 % as published"], layers)
    assert len(starts) == len(space.start)
    assert set(full.frozen_fractions) == {0.0}
    assert full.priming_epochs == 0
    assert set(paper.frozen_fractions) == {0.9}
    assert paper.priming_epochs > 0
    assert paper.learning_rate > full.learning_rate
    for params in starts.values():
        for key, distribution in space.distributions(layers).items():
            assert distribution._contains(distribution.to_internal_repr(params[key]))


def test_frozen_heads_may_be_left_out() -> None:
    """A space from before heads were searched freezes none by itself, and has the same stored form as then."""
    space = load_space("uniform")
    params = {"priming_epochs": 0.0, "frozen_fraction": 0.5, "learning_rate": 1e-4}
    assert space.config(params, 3).frozen_heads == ()
    assert "frozen_heads" not in str(space.to_dict())
    fixed = space.with_fixed({"frozen_heads": 0.75})
    assert fixed.config(params, 3).frozen_heads == (0.75,) * 3
    assert list(fixed.start) == [], "each start has all heads trained"
    assert list(space.with_fixed({"frozen_heads": 0}).start) == list(space.start)


def test_groups_of_heads_are_their_own() -> None:
    """Heads and neurons may have groups of other layers; heads alone one value for all."""
    fixed = {"learning_rate": 1e-4, "priming_epochs": 0.0, "frozen_embeddings": False}
    space = load_space("default").with_fixed(fixed)
    space = space.with_fixed({"frozen_attention_layers": 0, "frozen_bottom_layers": 0, "frozen_fraction": 0.5})
    assert set(space.distributions(6)) == {"frozen_heads_layers_0_to_2", "frozen_heads_layers_3_to_5"}
    params = {"frozen_heads_layers_0_to_2": 0.5, "frozen_heads_layers_3_to_5": 0.0}
    assert space.config(params, 6).frozen_heads == (0.5,) * 3 + (0.0,) * 3
    assert space.config(params, 6).frozen_fractions == (0.5,) * 6


def test_start_off_the_grid_is_not_tried() -> None:
    """A start that the space can't express for this model is left out, not changed."""
    space = Space.from_dict("mine", changed("start.odd", {"frozen_fraction": 0.3, "learning_rate": 1e-4}))
    assert list(space.starts(2)) == ["full fine-tuning"]


@given(
    bottom=st.integers(0, 3), attention=st.integers(0, 4), fractions=st.lists(st.sampled_from([0.0, 0.5]), min_size=4)
)
def test_configurations_that_train_alike_are_equal(bottom: int, attention: int, fractions: list[float]) -> None:
    """Differences only within a frozen bottom are ignored, so that no training is repeated."""
    space = load_space("default").with_fixed({"learning_rate": 1e-4, "priming_epochs": 0.0})
    params: dict[str, Any] = {f"frozen_fraction_layer_{i}": fractions[i] for i in range(4)}
    params |= {"frozen_bottom_layers": bottom, "frozen_attention_layers": attention, "frozen_embeddings": False}
    params |= {"frozen_heads_layers_0_to_1": 0.5, "frozen_heads_layers_2_to_3": 0.0}
    implied = dict(params)
    for i in range(bottom):
        implied[f"frozen_fraction_layer_{i}"] = 1.0
    implied["frozen_attention_layers"] = max(attention, bottom)
    implied["frozen_embeddings"] = bottom > 0
    implied["frozen_heads_layers_0_to_1"] = 0.75 if implied["frozen_attention_layers"] > 1 else 0.5
    config = space.config(params, 4)
    assert config == space.config(implied, 4)
    assert config == config.canonical()


def test_set_fixes_a_searched_parameter() -> None:
    """A fixed parameter is no longer proposed, and each configuration has its value."""
    space = load_space("paper").with_fixed({"frozen_fraction": 0.5, "epochs": 2}).for_model(3, TINY)
    assert set(space.distributions(3)) == {"priming_epochs", "learning_rate"}
    config = space.config({"priming_epochs": 0.0, "learning_rate": 1e-4}, 3)
    assert config.frozen_fractions == (0.5, 0.5, 0.5)
    assert config.epochs == 2.0


def test_set_drops_contradicting_starts() -> None:
    """A fixed fraction excludes full fine-tuning; another learning rate or length does not."""
    space = load_space("default")
    assert list(space.with_fixed({"frozen_fraction": 0.9}).start) == ["FAR r=10 % as published"]
    frozen = space.with_fixed({"frozen_embeddings": True})
    assert list(frozen.start) == ["all feed-forward blocks and embeddings frozen"]
    changed_space = space.with_fixed({"learning_rate": 5e-5, "epochs": 3})
    assert list(changed_space.start) == list(space.start)
    assert changed_space.config(changed_space.starts(2)["full fine-tuning"], 2).learning_rate == 5e-5


def test_integers_and_equal_decimals_are_one_setting(tmp_path: Path) -> None:
    """In YAML and ``--set``, 1 and 1.0 give the same record and fingerprint."""
    integer, decimal = copy.deepcopy(GOOD), copy.deepcopy(GOOD)
    integer["fixed"]["epochs"], integer["search"]["frozen_fraction"]["high"] = 1, 1
    texts = []
    for data in (integer, decimal):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(data))
        space = load_space(str(path))
        texts += [repr(space.to_dict()), repr(space.with_fixed({"epochs": 1}).to_dict())]
    assert len(set(texts)) == 1


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"learning_rat": 1e-4}, "did you mean 'learning_rate'?"),
        ({"colour": 1}, "known are priming_epochs"),
        ({"learning_rate": 0}, "above 0"),
        ({"learning_rate": True}, "must be a finite number"),
        ({"epochs": float("inf")}, "must be a finite number"),
        ({"frozen_fraction": 1.5}, "outside 0 to 1"),
        ({"frozen_embeddings": 1}, "must be true or false"),
        ({"frozen_bottom_layers": 1.5}, "must be a number of layers"),
        ({"frozen_bottom_layers": -1}, "must be a number of layers"),
    ],
)
def test_set_rejects_invalid_values(settings: dict[str, Any], rule: str) -> None:
    """An unknown parameter or a value that breaks a rule is an error with --set, the parameter and the rule."""
    with pytest.raises(SpaceError) as caught:
        load_space("default").with_fixed(settings)
    message = str(caught.value)
    assert message.startswith("--set")
    assert next(iter(settings)) in message
    assert rule in message


MALFORMED: list[tuple[str, Any, str, str]] = [
    ("serach", {}, "serach", "unknown key"),
    ("schema_version", 2, "schema_version", "must be 1"),
    ("schema_version", None, "schema_version", "must be 1"),
    ("search", ["learning_rate"], "search", "must be a table"),
    ("fixed", "epochs", "fixed", "must be a table"),
    ("start", False, "start", "must be a table"),
    ("search.learning_rat", {"low": 1.0, "high": 2.0}, "learning_rat", "did you mean 'learning_rate'?"),
    ("fixed.learning_rate", 1e-4, "learning_rate", "in both of search and fixed"),
    ("fixed.epochs", None, "epochs", "in neither of search and fixed"),
    ("fixed.epochs", "one", "epochs", "must be a finite number"),
    ("fixed.epochs", 0, "epochs", "above 0"),
    ("fixed.frozen_embeddings", 0, "frozen_embeddings", "must be true or false"),
    ("fixed.frozen_bottom_layers", 2.0, "frozen_bottom_layers", "must be a number of layers"),
    ("search.learning_rate", 1e-4, "learning_rate", "must be a table of choices"),
    ("search.learning_rate.lwo", 1e-4, "learning_rate", "'lwo'"),
    ("search.learning_rate.low", None, "learning_rate", "needs low and high"),
    ("search.learning_rate.low", "small", "learning_rate", "must be a finite number"),
    ("search.learning_rate.high", [1], "learning_rate", "must be a finite number"),
    ("search.learning_rate.high", float("nan"), "learning_rate", "must be a finite number"),
    ("search.learning_rate.low", 0.1, "learning_rate", "above high"),
    ("search.learning_rate.low", 0.0, "learning_rate", "above 0"),
    ("search.learning_rate.log", "yes", "learning_rate", "must be true or false"),
    ("search.learning_rate.step", 1e-4, "learning_rate", "log and step"),
    ("search.learning_rate.per_layer", True, "learning_rate", "only frozen_fraction and frozen_heads can"),
    ("search.learning_rate.by_size", True, "learning_rate", "with by_size it can have by_size, log"),
    ("search.learning_rate", {"by_size": False}, "learning_rate", "by_size false; leave it out"),
    ("search.learning_rate", {"by_size": "tiny"}, "learning_rate", "must be true or false"),
    ("search.learning_rate", {"by_siez": True}, "by_siez", "with low it can have low, high"),
    ("search.frozen_fraction", {"by_size": True}, "frozen_fraction", "only learning_rate can"),
    ("search.frozen_fraction.groups", 2, "frozen_fraction", "give per_layer: true too"),
    ("search.frozen_fraction", {"per_layer": True, "groups": 0, "choices": [0.5]}, "groups 0", "1 or more"),
    ("search.frozen_fraction", {"per_layer": True, "groups": 2.5, "choices": [0.5]}, "groups 2.5", "1 or more"),
    (
        "search.frozen_fraction",
        {"per_layer": True, "group": 2, "choices": [0.5]},
        "'group'",
        "choices, per_layer, groups",
    ),
    ("search.frozen_fraction.high", 1.2, "frozen_fraction", "outside 0 to 1"),
    ("search.frozen_fraction.high", "layers", "frozen_fraction", "must be a finite number"),
    ("search.frozen_fraction.step", 0, "frozen_fraction", "above 0"),
    ("search.frozen_fraction.step", "small", "frozen_fraction", "above 0"),
    ("search.frozen_fraction.step", 0.3, "frozen_fraction", "lead to high 1.0 exactly"),
    ("search.frozen_fraction.choices", [0.5], "frozen_fraction", "with choices it can have"),
    ("search.frozen_fraction", {"low": 0.0, "high": 1.0, "log": True}, "frozen_fraction", "starts above 0"),
    ("search.frozen_fraction", {"choices": []}, "frozen_fraction", "list of at least one"),
    ("search.frozen_fraction", {"choices": 0.5}, "frozen_fraction", "list of at least one"),
    ("search.frozen_fraction", {"choices": [0.5, "half"]}, "frozen_fraction", "must be a finite number"),
    ("search.frozen_fraction", {"choices": [0.5, 0.5]}, "frozen_fraction", "twice"),
    ("start.two", [1], "two", "must be a table"),
    ("start.two", {"frozen_fraction": 0.5}, "learning_rate", "every searched parameter"),
    ("start.full fine-tuning.epochs", 1.0, "epochs", "every searched parameter"),
    ("start.full fine-tuning.learning_rate", "fast", "learning_rate", "must be a finite number"),
    (
        "start.full fine-tuning.learning_rate",
        {"by_size": "most"},
        "learning_rate",
        "{by_size: full} or {by_size: frozen}",
    ),
    ("start.full fine-tuning.learning_rate", {"size": "full"}, "learning_rate", "{by_size: full} or {by_size: frozen}"),
    ("start.full fine-tuning.frozen_fraction", {"by_size": "full"}, "frozen_fraction", "must be a finite number"),
]


@pytest.mark.parametrize(("path", "value", "key", "rule"), MALFORMED, ids=[f"{m[0]}={m[1]!r}"[:60] for m in MALFORMED])
def test_malformed_space_is_refused_in_one_line(tmp_path: Path, path: str, value: Any, key: str, rule: str) -> None:
    """Each error names file, key and rule."""
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(changed(path, value)))
    with pytest.raises(SpaceError) as caught:
        load_space(str(file))
    message = str(caught.value)
    assert "\n" not in message
    assert "mine.yaml" in message
    assert key in message
    assert rule in message


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({"low": 0, "high": "layer"}, "must be a number of layers"),
        ({"low": 0, "high": 2, "log": True}, "leave it out"),
        ({"low": 0, "high": 4, "step": 0.5}, "whole number"),
        ({"low": "layers", "high": "layers"}, "must be a number of layers"),
    ],
)
def test_layer_numbers_are_bounded_integers(entry: dict[str, Any], rule: str) -> None:
    """The bound is a number or the model's depth."""
    data = changed("search.frozen_bottom_layers", entry)
    del data["fixed"]["frozen_bottom_layers"]
    with pytest.raises(SpaceError, match=rule):
        Space.from_dict("mine", data)


def test_flags_have_choices() -> None:
    """A flag has no range."""
    data = changed("search.frozen_embeddings", {"low": 0, "high": 1})
    del data["fixed"]["frozen_embeddings"]
    with pytest.raises(SpaceError, match=r"frozen_embeddings has no choices; it is true or false"):
        Space.from_dict("mine", data)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("search: {learning_rate: [", "line 1: no valid YAML"),
        (
            "schema_version: 1\nfixed: {epochs: 1}\nfixed: {epochs: 2}\n",
            "line 3: no valid YAML: the key 'fixed' is given twice",
        ),
        ("- a\n- b\n", "is no table"),
        ("", "is no table"),
        ("!!python/object/apply:os.getcwd []", "no valid YAML"),
    ],
)
def test_invalid_file_is_rejected(tmp_path: Path, text: str, rule: str) -> None:
    """Invalid YAML names its line; duplicate keys are rejected; no code is executed."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SpaceError) as caught:
        load_space(str(file))
    assert "mine.yaml" in str(caught.value)
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


def test_short_exponents_are_numbers(tmp_path: Path) -> None:
    """1e-5 is a number, though text in YAML 1.1."""
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(GOOD).replace("1.0e-05", "1e-5").replace("0.001", "1E-3"))
    assert "1e-5" in file.read_text()
    assert load_space(str(file)).distributions(2)["learning_rate"] == FloatDistribution(1e-5, 1e-3, log=True)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("defualt", "did you mean 'default'?"), ("nosuch.yaml", "can't be read: No such file"), ("x", "known are")],
)
def test_unknown_space_is_reported_with_a_suggestion(name: str, rule: str) -> None:
    """The error has the nearest name, or the reason for a missing file."""
    with pytest.raises(SpaceError) as caught:
        space_text(name)
    assert repr(name) in str(caught.value)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"fixed.frozen_bottom_layers": 5}, "the model has 3 layers"),
        ({"search.frozen_attention_layers": {"low": 4, "high": "layers"}}, "allows 3 at most"),
        ({"search.frozen_attention_layers": {"choices": [0, 9]}}, "the model has 3 layers"),
    ],
)
def test_more_layers_than_the_model_has_are_refused(changes: dict[str, Any], rule: str) -> None:
    """A number of layers is checked when the model is known."""
    data = copy.deepcopy(GOOD)
    for path, value in changes.items():
        data = changed(path, value)
        if path.startswith("search."):
            del data["fixed"][path.removeprefix("search.")], data["start"]
    with pytest.raises(SpaceError, match=rule):
        Space.from_dict("mine", data).distributions(3)


def test_size_counts_discrete_parameters() -> None:
    """It is the product of the discrete parameters' values, with the names of the continuous ones."""
    assert load_space("uniform").for_model(6, TINY).size(6) == (4 * 21, ["learning_rate"])
    assert load_space("default").for_model(2, TINY).size(2) == (5 * 2 * 3 * 2 * 21**2 * 5**2, ["learning_rate"])
    assert load_space("default").for_model(24, TINY).size(24) == (5 * 2 * 25 * 24 * 21**6 * 5**2, ["learning_rate"])
    assert load_space("wide").for_model(2, TINY).size(2) == (4 * 21**2 * 2 * 3 * 2, ["learning_rate"])
    assert load_space("uniform").with_fixed({"learning_rate": 1e-4, "priming_epochs": 0.1}).size(6) == (21, [])


# Configurations as parameters.


@given(st.data())
def test_params_are_the_inverse_of_config(data: st.DataObject) -> None:
    """Every configuration of a space has its own parameters, up to what a frozen bottom implies."""
    space = load_space("wide").for_model(4, TINY)
    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    (params,) = draw_params(space.distributions(4), 1, draw)
    config = space.config(params, 4)
    found = space.params(config, 4)
    if found is not None:  # a frozen bottom that ends within a group of layers has no other form
        assert space.config(found, 4) == config
    else:
        assert config.frozen_bottom_layers


def test_params_of_another_method_are_none() -> None:
    """A rate outside of the range, or a priming between two lengths, becomes the nearest; another method has none."""
    space = load_space("uniform").for_model(4, TINY)
    far = FarConfig((0.9,) * 4, 1.0, 1.0, priming_epochs=0.05)
    params = space.params(far, 4)
    assert params == {"priming_epochs": 0.03, "frozen_fraction": 0.9, "learning_rate": 5e-4}
    for other in (
        dataclasses.replace(far, frozen_embeddings=True),
        dataclasses.replace(far, frozen_fractions=(0.9, 0.9, 0.9, 0.8)),
        dataclasses.replace(far, frozen_fractions=(0.93,) * 4),
        dataclasses.replace(far, epochs=2.0),
    ):
        assert space.params(other, 4) is None
    unprimed = dataclasses.replace(far, frozen_fractions=(1.0,) * 4, priming_epochs=0.0)
    assert space.params(unprimed, 4) == {"priming_epochs": 0.0, "frozen_fraction": 1.0, "learning_rate": 5e-4}
    assert space.with_fixed({"priming_epochs": 0.1}).params(unprimed, 4) is None
