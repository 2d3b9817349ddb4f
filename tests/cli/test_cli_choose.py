"""Choosing a trial: ``show`` and ``export`` accept the same options and choose the same trial."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from farsearch.records import StepPlan
from tests.journey import call


def test_select_names_the_trial_that_export_writes(finished_study: Path, tmp_path: Path) -> None:
    wanted = ("--within", "3", "--prefer", "memory")
    shown = call(finished_study, "show", "--select", *wanted)
    assert (shown.code, shown.err) == (0, "")
    assert len(shown.out.splitlines()) == 3
    data = call(finished_study, "show", *wanted, "--json").json
    assert data["reason"] == shown.out.splitlines()[1:]
    assert not data["derived"]
    done = call(finished_study, "export", *wanted, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "b" / "far.json").read_text())["trial"] == data["trial"]
    assert done.out.splitlines()[:2] == data["reason"]


def test_differences_are_paired_if_predictions_are_stored(finished_study: Path, tmp_path: Path) -> None:
    """Without predictions trials count as independent, and the output states it."""
    folder = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    paired = call(folder, "show", "--select", "--trial", 0).out
    assert "noise, paired)" in paired
    assert "independent" not in paired
    for logits in folder.glob(".farsearch/studies/tiny/trials/*/logits.safetensors"):
        logits.unlink()
    alone = call(folder, "show", "--select", "--trial", 0).out
    assert "noise, taken as independent)" in alone
    assert "paired" not in alone


def test_a_bundle_has_the_requested_plan(finished_study: Path, tmp_path: Path) -> None:
    """Each plan in ``show --json`` can be requested by its name."""
    record = call(finished_study, "show", "--trial", 0, "--json").json["trial"]
    for price in record["plans"]:
        plan = StepPlan.from_dict(price["plan"]).summary.replace(" + ", "+").replace(" ", "-")
        data = call(finished_study, "show", "--trial", 0, "--plan", plan, "--json").json
        trial = data["trial"]
        assert {key: trial[key] for key in price} == price
        assert data["derived"] == (price["plan"] != record["plan"])
        assert data["derived"] == ("(derived)" in data["reason"][0])
    least = min(record["plans"], key=lambda price: price["peak_memory_mib"])
    done = call(finished_study, "export", "--trial", 0, "--plan", "memory", "--out", tmp_path / "b")
    if done.code == 0:  # its tensors are stored only if it is on the front
        trial = json.loads((tmp_path / "b" / "far.json").read_text())["trial"]
        assert (trial["plan"], trial["peak_memory_mib"]) == (least["plan"], least["peak_memory_mib"])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--max-memory", 1), 3, "the nearest is trial "),
        (("--min-metric", "99.99"), 3, "has at least 100.0 %; the nearest is trial "),
        (("--min-metric", 101), 2, "--min-metric 101 is above 100 points"),
        (("--within", 0), 2, "'0' is not a number above 0"),
        (("--within", 1, "--prefer", "accuracy"), 2, "--within 1 gives accuracy away"),
        (("--trial", 0, "--max-time", 5), 2, "--trial 0 and --max-time 5 ask for different things"),
        (("--plan", "speed"), 2, "under the plan 'speed'; give memory, time, balanced, modules"),
    ],
)
@pytest.mark.parametrize("command", ["show", "export"])
def test_an_impossible_choice_is_reported_in_one_line(
    finished_study: Path, tmp_path: Path, command: str, options: tuple[object, ...], code: int, message: str
) -> None:
    """Exit code 3 for bounds that no trial meets, 2 for invalid options; nothing is written."""
    out = ("--out", tmp_path / "b") if command == "export" else ()
    done = call(finished_study, command, *options, *out)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1)
    assert message in done.err
    assert not list(tmp_path.iterdir())
