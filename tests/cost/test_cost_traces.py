"""Traced layers on disk: other processes and studies read them, and prices stay exact."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from farsearch.cost.plans import compiled_plans
from farsearch.cost.pricer import Pricer, Prices
from farsearch.devices import Profile, load_profile
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.records import Engine, FarConfig, StepPlan
from farsearch.study.random_configs import draw_configs
from farsearch.study.sizes import shipped_sizes
from farsearch.study.space import load_space
from tests.tiny import make_config

PLANS = [StepPlan(), StepPlan(feed_forward="recompute", attention="recompute", checkpointing=True)]


def configs(seed: int) -> list[FarConfig]:
    """Return random configurations of the default space of a model of two layers."""
    space = load_space("default").for_model(2, shipped_sizes()[0])
    return draw_configs(space, 2, 8, seed, priming=False)


def priced(folder: Path | None, seed: int = 0, rows: int = 4, plans: Sequence[StepPlan] = PLANS) -> list[Prices]:
    """Return prices by a new process's pricer, which shares its traces in a folder."""
    profile = load_profile("raspberry-pi-4")
    engines: dict[Engine, Profile] = {engine: profile.for_engine(engine) for engine in profile.engines}
    pricer = Pricer(make_config("bert"), Head(), rows, 16, profile, engines=engines, traces=folder)
    return pricer.price_plans(configs(seed), plans)


def assert_equal(one: Sequence[Prices], other: Sequence[Prices]) -> None:
    """Check that prices are exactly equal."""
    for a, b in zip(one, other, strict=True):
        for name in ("peak_memory_mib", "wall_time_s", "step_time_s", "trainable"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


def files(folder: Path) -> list[Path]:
    """Return the files of the traces."""
    return sorted(folder.glob("*/*.npz"))


def test_prices_from_the_file_are_exact(tmp_path: Path) -> None:
    """A second process has the same prices, of the first one's configurations and of new ones, which it adds."""
    alone = [priced(None, seed) for seed in (0, 1)]
    assert_equal(priced(tmp_path, 0), alone[0])
    before = [path.read_bytes() for path in files(tmp_path)]
    assert len(before) == len(PLANS)
    assert_equal(priced(tmp_path, 0), alone[0])
    assert [path.read_bytes() for path in files(tmp_path)] == before
    assert_equal(priced(tmp_path, 1), alone[1])


def test_compiled_steps_are_shared_too(tmp_path: Path) -> None:
    """Their memory is read without compiling again."""
    plans = compiled_plans(layout_of(make_config("bert")))[:1]
    first, again = (priced(tmp_path, plans=plans) for _ in range(2))
    assert_equal(first, again)
    assert_equal(first, priced(None, plans=plans))


def test_traces_are_read_instead_of_traced(tmp_path: Path) -> None:
    """With the file of a larger batch in its place, a step costs what that batch does."""
    small, large = tmp_path / "small", tmp_path / "large"
    priced(small, rows=4, plans=PLANS[:1])
    expected = priced(large, rows=8, plans=PLANS[:1])
    shutil.copy(files(large)[0], files(small)[0])
    assert priced(small, rows=4, plans=PLANS[:1])[0].peak_memory_mib == pytest.approx(expected[0].peak_memory_mib)


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_damaged_file_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    """It is empty, of another kind, or cut off."""
    expected = priced(tmp_path, plans=PLANS[:1])
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert_equal(priced(tmp_path, plans=PLANS[:1]), expected)
    assert path.read_bytes() == whole
