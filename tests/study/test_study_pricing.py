"""Vectorised prices of proposals equal the price of each trial."""

from __future__ import annotations

import numpy as np
import pytest

from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.traced_model import shared_tables
from farsearch.devices import load_profile
from farsearch.goals import GOALS, Goal
from farsearch.models.heads import Head
from farsearch.study.pricing import price_params
from farsearch.study.random_configs import draw_params
from farsearch.study.sizes import shipped_sizes
from farsearch.study.space import load_space
from tests.tiny import make_config


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("name", ["default", pytest.param("wide", marks=pytest.mark.slow)])
def test_proposals_are_priced_as_trials(name: str, goal: Goal) -> None:
    """Memory, time and feasibility are those of the plan that each trial would get, also if few fit."""
    space, profile = load_space(name).for_model(2, shipped_sizes()[0]), load_profile("jetson-nano")
    params = draw_params(space.distributions(2), 24, np.random.default_rng(0))
    config = make_config("distilbert")
    tables = shared_tables(config, Head())
    plain = Pricer(config, Head(), 8, 16, profile, tables=tables)
    times = [plain.best(space.config(each, 2), "time")[1].wall_time_s for each in params]
    # half of them are too slow in every plan, many others in some
    pricer = Pricer(config, Head(), 8, 16, profile, max_time_s=float(np.median(times)), tables=tables)
    found = price_params(pricer, space, 2, goal)(params)
    costs = [pricer.best(space.config(each, 2), goal)[1] for each in params]
    assert found.memory_mib == pytest.approx([cost.peak_memory_mib for cost in costs])
    assert found.time_s == pytest.approx([cost.wall_time_s for cost in costs])
    assert found.fits.tolist() == [cost.fits for cost in costs]
    assert 0 < sum(found.fits) < len(params)
    assert found.both.shape == (24, 2)
    full = {epochs: pricer.price(full_fine_tuning(2, epochs=epochs)).wall_time_s for epochs in (0.01, 0.03, 0.1, 0.3)}
    assert found.priming_s.tolist() == [full.get(each["priming_epochs"], 0.0) for each in params]
