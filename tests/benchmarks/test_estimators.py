"""The benchmark of memory estimators: its figures as JSON, and its tables."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks import estimators

pytestmark = pytest.mark.slow

SMALL = "google/bert_uncased_L-2_H-128_A-2"
WEIGHTS_MIB = 4_386_178 * 4 / 2**20
"""Of the small model with two classes."""


def test_every_estimator_is_compared_with_the_measured_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    small = tuple(estimators.Setting(SMALL, 4, 32, method) for method in ("full", "far10"))
    monkeypatch.setattr(estimators, "SETTINGS", small)
    done = CliRunner().invoke(estimators.main, ["--settings", "2", "--json"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert (data["schema_version"], len(data["published"])) == (1, len(estimators.PUBLISHED))
    for case in data["cases"]:
        predicted, measured = case["predicted_mib"], case["measured_mib"]
        assert predicted["farsearch"] == pytest.approx(measured, rel=0.005)
        if case["setting"]["method"] == "full":
            assert predicted["torch's tracker"] == pytest.approx(measured, rel=0.02)
        else:
            assert predicted["torch's tracker"] is None
        assert predicted["accelerate"] == pytest.approx(4 * WEIGHTS_MIB, rel=0.01)


def test_the_tables_have_the_mean_and_the_worst_error() -> None:
    setting = estimators.Setting(SMALL, 4, 32, "full")
    seconds = dict.fromkeys(estimators.ESTIMATORS, 1.0)
    cases = [
        estimators.Case(setting, 100.0, dict.fromkeys(estimators.ESTIMATORS, predicted), seconds)
        for predicted in (90.0, 100.0)
    ]
    text = estimators.report(cases)
    assert all(f"| {name} | 2 | 5.00% | 10.00% | 1.0 |" in text for name in estimators.ESTIMATORS)
    assert "| 4 × 32 | full fine-tuning | 100.0 | -10.00% |" in text
