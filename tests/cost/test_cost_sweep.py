"""Costs of a space under every plan: counts and fronts equal those computed one by one."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np
import pytest

from farsearch.cost.breakdown import device_plans
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.sweep import Sweep, price_space, thin
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan
from tests.cost.reference import figure, make_profile
from tests.tiny import make_config

CONFIGS = [
    FarConfig(fractions, 1e-4, 1.0, 0.0, embeddings, attention)
    for fractions in product((0.0, 0.5, 1.0), repeat=2)
    for embeddings, attention in ((False, 0), (True, 1))
]


@pytest.fixture(scope="module")
def pricer() -> Pricer:
    """Return a pricer of a model of two layers on a device in which some configurations fit."""
    model, profile = make_config("bert", neurons=128, vocabulary=400), make_profile()
    free = Pricer(model, Head(), 8, 32, profile)
    high = [prices.peak_memory_range_mib[1] for prices in free.price_plans(CONFIGS, plans_of(free))]
    smaller = dataclasses.replace(profile, visible_mib=figure(float(np.median(np.stack(high)))), os_mib=figure(0))
    return Pricer(model, Head(), 8, 32, smaller, tables={})


def plans_of(pricer: Pricer) -> list[StepPlan]:
    """Return ordinary modules and all plans."""
    return [*device_plans(pricer, None), *device_plans(pricer, "time")]


@pytest.fixture(scope="module")
def swept(pricer: Pricer) -> Sweep:
    """Price all configurations under all plans."""
    heard: list[str] = []
    found = price_space(pricer, CONFIGS, plans_of(pricer), heard.append)
    assert len(heard) == 1
    return found


def test_count_of_fitting_configurations_equals_single_prices(pricer: Pricer, swept: Sweep) -> None:
    """A configuration fits if it fits under any plan; full fine-tuning is priced separately."""
    fits = [[pricer.price(config, plan).fits for config in CONFIGS] for plan in swept.plans]
    assert swept.fits.tolist() == fits
    assert swept.fitting == sum(any(column) for column in zip(*fits, strict=True))
    assert 0 < swept.fits.mean() < 1
    assert list(swept.full) == [pricer.price(full_fine_tuning(2), plan) for plan in swept.plans]


def test_configuration_fits_up_to_the_budget(swept: Sweep) -> None:
    """The budget is compared with the central peak."""
    assert (swept.fits == (swept.peak_memory_mib <= swept.budget_mib)).all()


def test_fronts_equal_brute_force(pricer: Pricer, swept: Sweep) -> None:
    """They have the non-dominated pairs of plan and configuration, each cost once."""
    costs = {
        (i, j): pricer.price(config, plan) for i, plan in enumerate(swept.plans) for j, config in enumerate(CONFIGS)
    }
    both = {at: (cost.peak_memory_mib, cost.wall_time_s) for at, cost in costs.items()}
    learning = {at: (cost.peak_memory_mib, -cost.trainable) for at, cost in costs.items() if cost.fits}
    for values, front in ((both, swept.front()), (learning, swept.most_trained())):
        expected = {
            a for a in values.values() if not any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in values.values())
        }
        found = [values[at] for at in front]
        assert set(found) == expected
        assert len(found) == len(expected)
        assert found == sorted(found)


def test_thinning_retains_the_ends() -> None:
    """Few points are unchanged; of many the first, the last and some between are left, in order."""
    points = [(0, i) for i in range(100)]
    assert thin(points[:15], 15) == points[:15]
    thinned = thin(points, 15)
    assert (len(set(thinned)), thinned[0], thinned[-1]) == (15, points[0], points[-1])
    assert thinned == sorted(thinned)
