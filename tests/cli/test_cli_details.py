"""The details of a trial in ``show``, and of a profile in ``devices show``."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from farsearch.cli.details import profile_rows, trial_details
from farsearch.devices import list_profiles, load_profile
from farsearch.records import Failed, FarConfig, PrimingReport, StepPlan, UnpricedTrial, Verification
from tests.factories import changed, make_measurement, make_snapshot, make_trial


def details(**changes: Any) -> dict[str, str]:
    """Return the details of the factory's trial 2, changed, as a mapping of labels to values."""
    snapshot = make_snapshot()
    rows = trial_details(snapshot, changed(snapshot.trials[2], **changes))
    assert all(set(row) == {"what", "value"} for row in rows)
    return {row["what"].strip(): row["value"] for row in rows}


def test_figures_have_units_and_ranges() -> None:
    """The metric has its error and number of rows; breakdowns start with the largest part."""
    rows = details()
    assert rows["state"] == "complete, on the front"
    assert rows["accuracy"] == "84.0 ± 1.1 % on 1,024 validation rows (± their error alone)"
    assert rows["accuracy, development set"] == "83.7 % (not used for any choice)"
    assert rows["peak memory"] == "1,200 MiB (estimate, 1,080 MiB to 1,440 MiB)"
    assert rows["of it tensors"] == "saved activations 214 MiB, parameters 87 MiB"
    assert rows["device time"] == "4.2 min (estimate, 2.9 min to 6.7 min)"
    assert rows["of it"] == "gemm 100 s"
    assert rows["energy"] == "2,500 J (estimate)"
    assert rows["trained parameters"] == "14,000,002"
    assert rows["loss"] == "0.070 at step 8, 0.027 at step 24"


def test_the_frozen_share_of_each_layer_is_shown() -> None:
    """Layers start at the bottom; frozen bottom layers count as 100 %."""
    config = FarConfig((0.5, 0.25, 0.9, 1.0), 1e-4, 2.0, 0.1, frozen_attention_layers=1, frozen_bottom_layers=2)
    rows = details(config=config, plan=StepPlan(micro_batch_size=4))
    assert rows["by layer, from the bottom"] == "100%, 100%, 90%, 100%"
    assert rows["frozen neurons"] == "98% on average"
    assert rows["frozen embeddings"] == "yes"
    assert rows["wholly frozen"] == "the 2 lowest layers"
    assert rows["frozen attention"] == "the 1 lowest layer"
    assert rows["epochs"] == "2, after 0.1 of priming"
    assert rows["micro-batch"] == "4 rows"
    assert details()["frozen attention"] == "in no layer"
    assert not details().get("frozen heads")
    heads = dataclasses.replace(config, frozen_heads=(0.25, 0.25, 0.5, 0.0))
    assert details(config=heads, plan=StepPlan())["frozen heads"] == "100%, 100%, 50%, 0% by layer"


@pytest.mark.parametrize(
    ("report", "ran", "selection"),
    [
        (PrimingReport(0, 0.0, False, 0.0, None, 0.1), "none", "random: there was no priming"),
        (PrimingReport(0, 0.0, False, 0.0, None, None), "none", "none: every layer is trained or frozen as a whole"),
        (PrimingReport(1, 0.4, False, 0.2, None, 0.1), "1 step, 0.4 s here", "one step of priming is too few"),
        (
            PrimingReport(8, 3.1, True, 0.4, 0.31, 0.1),
            "8 steps, 3.1 s here, from the cache",
            "agree on 31% of the learners; by chance it would be 10%",
        ),
    ],
)
def test_priming_is_shown_with_steps_time_and_overlap(report: PrimingReport, ran: str, selection: str) -> None:
    """The overlap of the two halves of the priming is compared with chance."""
    rows = details(priming=report)
    assert rows["priming"] == ran
    assert selection in rows["selection"]
    assert "is no better than a random one" not in rows["selection"]
    assert ("spread of the scores" in rows) == (report.steps > 0)


@pytest.mark.parametrize(("overlap", "random"), [(0.5, True), (0.54, True), (0.56, False), (0.9, False), (0.3, True)])
def test_a_selection_no_better_than_random_is_reported(overlap: float, random: bool) -> None:
    """An overlap within 5 points of chance gives a sentence with a suggestion."""
    text = details(priming=PrimingReport(8, 3.1, False, 0.4, overlap, 0.5))["selection"]
    assert ("The selection is no better than a random one: prime longer, or not at all" in text) == random


def test_unknown_values_have_no_row() -> None:
    rows = trial_details(make_snapshot(), UnpricedTrial(number=1, outcome=Failed("its process was killed")))
    assert rows == [{"what": "state", "value": "fail"}, {"what": "reason", "value": "its process was killed"}]


def test_verification_and_measurements_are_shown() -> None:
    """Only those of this trial."""
    again = [
        make_trial(9, 0.8 + 0.01 * seed, 1200.0, 250.0, verifies=Verification(2, seed, 4096)) for seed in (1, 2, 3)
    ]
    snapshot = make_snapshot(verified=tuple(again), measurements=(make_measurement(2),))
    rows = {row["what"].strip(): row["value"] for row in trial_details(snapshot, snapshot.trials[2])}
    assert rows["verified, development set"] == "82.0 ± 1.0 % (mean ± deviation over 3 seeds, each on 4,096 rows)"
    assert rows["advantage over what costs less"] == "nothing costs less"
    assert rows["measured on a board"] == (
        "NVIDIA Jetson Nano Developer Kit: 1,030 MiB (predicted 1,000 MiB), 2.7 min (predicted 3.3 min), 83.0 % there"
    )
    other = {row["what"].strip() for row in trial_details(snapshot, snapshot.trials[1])}
    assert not {"verified, development set", "measured on a board"} & other


def test_a_verification_training_is_shown_with_trial_rows_and_seed() -> None:
    """It has no validation rows."""
    again = make_trial(2, 0.8, 1200.0, 250.0, verifies=Verification(1, 3, 4096))
    rows = {r["what"].strip(): r["value"] for r in trial_details(make_snapshot(again, verified=(again,)), again)}
    assert rows["trained again"] == "trial 1"
    assert rows["accuracy"] == "80.0 ± 1.1 % on the development set, trained on 4,096 rows with seed 3"
    assert not {"accuracy, development set", "verified, development set", "measured on a board"} & rows.keys()


@pytest.mark.parametrize("name", list_profiles())
def test_every_figure_of_a_profile_has_its_source(name: str) -> None:
    """One row per figure; the range is empty for exact values."""
    profile = load_profile(name)
    rows = profile_rows(profile)
    figures = {key.split(".")[1]: figure for key, figure in profile.figures().items()}
    if profile.onnx is not None:
        figures |= {f"onnx: {name}": figure for name, figure in profile.onnx.figures().items()}
    assert [row["figure"] for row in rows] == list(figures)
    for row, figure in zip(rows, figures.values(), strict=True):
        assert float(row["value"].replace(",", "")) == pytest.approx(figure.value, rel=1e-4)
        assert bool(row["range"]) == (figure.low != figure.high)
        assert row["source"] == figure.source
        assert row["basis"] in ("read", "derived", "measured", "assumed")
