"""Configurations drawn from a space."""

from __future__ import annotations

import pytest

from farsearch.errors import SpaceError
from farsearch.records import FarConfig
from farsearch.study.random_configs import draw_configs
from farsearch.study.space import Space, load_space
from farsearch.study.space_files import list_spaces

LAYERS = 4


@pytest.mark.parametrize("name", list_spaces())
def test_draws_are_unique_and_on_the_grid(name: str) -> None:
    """The corners come first, and the same seed draws the same configurations."""
    drawn = draw_configs(load_space(name), LAYERS, 400, 3, priming=False)
    assert drawn == draw_configs(load_space(name), LAYERS, 400, 3, priming=False)
    assert len(set(drawn)) == len(drawn)
    assert drawn[0].frozen_fractions == (0.0,) * LAYERS
    assert drawn[1].frozen_fractions == (1.0,) * LAYERS
    assert (drawn[1].frozen_embeddings, drawn[1].frozen_bottom_layers) == (
        (True, LAYERS - 1) if name == "default" else (False, 0)
    )
    for config in drawn:
        assert config == config.canonical()
        assert all(round(fraction / 0.05, 6).is_integer() for fraction in config.frozen_fractions)
        assert (config.priming_epochs, config.epochs) == (0.0, 1.0)
    if name == "paper":
        assert len(drawn) == 21


def test_every_kind_of_parameter_is_drawn_in_its_range() -> None:
    """Choices, whole numbers, steps, continuous ranges on a linear and a logarithmic scale; priming on request."""
    space = Space.from_dict(
        "all",
        {
            "schema_version": 1,
            "search": {
                "priming_epochs": {"choices": [0.1, 0.3]},
                "frozen_fraction": {"per_layer": True, "low": 0.01, "high": 0.5, "log": True},
                "frozen_attention_layers": {"low": 1, "high": "layers", "step": 1},
                "frozen_embeddings": {"choices": [True, False]},
                "epochs": {"low": 1.0, "high": 4.0},
            },
            "fixed": {"learning_rate": 1e-4, "frozen_bottom_layers": 0},
        },
    )
    drawn = draw_configs(space, LAYERS, 2000, 0, priming=True)
    fractions = sorted(fraction for config in drawn for fraction in config.frozen_fractions)
    assert (fractions[0], fractions[-1]) == (0.01, 0.5)
    # the middle of a logarithmic scale is the geometric mean of its ends
    assert fractions[len(fractions) // 2] == pytest.approx((0.01 * 0.5) ** 0.5, rel=0.1)
    assert {config.priming_epochs for config in drawn} == {0.1, 0.3}
    assert {config.frozen_attention_layers for config in drawn} == {1, 2, 3, 4}
    assert {config.frozen_embeddings for config in drawn} == {True, False}
    assert drawn[:2] == [
        FarConfig((0.01,) * LAYERS, 1e-4, 1.0, 0.1, False, 1),
        FarConfig((0.5,) * LAYERS, 1e-4, 1.0, 0.1, True, 4),
    ]


def test_fixed_space_has_one_configuration() -> None:
    """A space for more layers than the model has is refused."""
    fixed = {
        "priming_epochs": 0.1, "frozen_fraction": 0.5, "learning_rate": 1e-3, "epochs": 3.0, "frozen_embeddings": True,
        "frozen_attention_layers": 0, "frozen_bottom_layers": 1,
    }  # fmt: skip
    space = Space.from_dict("one", {"schema_version": 1, "fixed": fixed})
    assert draw_configs(space, 2, 100, 0, priming=True) == [FarConfig((1.0, 0.5), 1e-4, 1.0, 0.1, True, 1, 1)]
    with pytest.raises(SpaceError, match="the model has 1 layers"):
        draw_configs(space.with_fixed({"frozen_bottom_layers": 2}), 1, 100, 0, priming=False)
