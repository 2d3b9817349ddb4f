"""Suggestions for a configuration that does not fit: the least change of each kind."""

from __future__ import annotations

from typing import Any

from farsearch.cost.breakdown import cost_breakdown, device_plans
from farsearch.cost.fixes import freeze_more, suggest_fixes
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.cost.traced_model import shared_tables
from farsearch.models.heads import Head
from tests.cost.reference import figure, make_profile
from tests.tiny import make_config

MODEL = make_config("bert", layers=4, hidden=64, neurons=256, vocabulary=1000)
FULL = full_fine_tuning(4)


def pricer_of(**changes: Any) -> Pricer:
    """Return the costs of batches of eight on a device with these figures."""
    return Pricer(MODEL, Head(), 8, 64, make_profile(**changes), tables=shared_tables(MODEL, Head()))


def test_less_is_frozen_under_another_plan() -> None:
    """Where no execution of full fine-tuning fits, half of the neurons frozen do, under another plan than ordinary."""
    roomy = pricer_of()
    half = freeze_more(FULL)[1]
    assert (half.frozen_fractions, half.frozen_embeddings) == ((0.5,) * 4, True)
    needs = min(cost.peak_memory_range_mib[1] for _, cost in roomy.all_plans(half))
    small = pricer_of(visible_mib=figure(needs + 0.02), os_mib=figure(0))
    priced = cost_breakdown(small, FULL, device_plans(small, None), None, None)
    (fix,) = suggest_fixes(small, FULL, priced)
    assert fix.options == "--frozen-fraction 0.5 --frozen-embeddings --plan time"
    assert fix.cost.fits
    frozen = [less for less in freeze_more(FULL) if small.price(less).fits]
    assert len(frozen) == 1, "under ordinary modules only the least training fits"


def test_the_ladder_freezes_more_at_each_step() -> None:
    """In trained parameters, from the embeddings to all but the top layer."""
    trained = pricer_of().price_many([FULL, *freeze_more(FULL)]).trainable.tolist()
    assert trained == sorted(trained, reverse=True)
    assert len(set(trained)) == len(trained)
