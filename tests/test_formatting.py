"""Figures and tables as people read them, and the JSON for scripts."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from farsearch.cli.table import print_table
from farsearch.formatting import (
    baseline_rows,
    constant_text,
    front_markdown,
    front_rows,
    human_difference,
    human_memory,
    human_metric,
    human_time,
    mean_frozen,
    metric_title,
    metric_words,
    trial_rows,
)
from farsearch.records import FarConfig
from farsearch.runtime.scores import METRICS
from farsearch.trials_json import trials_json, trials_text
from tests.factories import make_baselines, make_snapshot, make_trial


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (0, "0.0 s"),
        (4e-5, "0.04 ms"),
        (0.004, "4.0 ms"),
        (0.041, "41 ms"),
        (0.1, "0.1 s"),
        (9.94, "9.9 s"),
        (48, "48 s"),
        (150, "2.5 min"),
        (12_240, "3.4 h"),
    ],
)
def test_time_has_a_suitable_unit(seconds: float | None, shown: str) -> None:
    """Positive times are never shown as 0."""
    assert human_time(seconds) == shown


def test_shares_are_shown_in_per_cent() -> None:
    """Correlations are not; a difference has a sign, and zero has ±."""
    assert human_metric("accuracy", 0.8912, 0.0094) == "89.1 ± 0.9 %"
    assert human_metric("matthews_correlation", 0.5123) == "0.512"
    assert human_metric("accuracy", None) == ""
    assert human_difference("accuracy", -0.021) == "−2.1 points"
    assert human_difference("accuracy", 0.0001) == "±0.0 points"
    assert human_difference("matthews_correlation", 0.02) == "+0.020"
    assert human_memory(1204.4) == "1,204 MiB"
    assert human_memory(-1204.4, signed=True) == "−1,204 MiB"


def test_mean_frozen_counts_a_frozen_bottom_as_1() -> None:
    assert mean_frozen(FarConfig((0.0, 0.5, 1.0, 0.5), 1e-4, 1.0, frozen_bottom_layers=2)) == pytest.approx(0.875)


def test_rows_of_the_front_are_sorted_by_memory() -> None:
    """A trial within noise of a cheaper one is in that one's note."""
    rows = front_rows(make_snapshot())
    assert [(row["trial"], row["note"]) for row in rows] == [("0", ""), ("2", "no better for more: 4")]
    assert rows[0]["accuracy"] == "80.0 ± 1.1 %"
    assert rows[1]["time"] == "4.2 min"


def test_rows_of_all_trials_have_their_state() -> None:
    rows = trial_rows(make_snapshot())
    assert [row["state"] for row in rows] == ["front", "complete", "front", "pruned", "front", "infeasible"]
    assert rows[3]["accuracy"] == ""


def test_a_table_fits_a_terminal_of_100_columns() -> None:
    """Without cut cells, even for large values and a long metric name."""
    trial = make_trial(1234, 0.512, 15_700.0, 123_456.0, trainable=109_483_778)
    snapshot = make_snapshot(trial, front={1234}, metric_name="matthews_correlation")
    out = io.StringIO()
    print_table(trial_rows(snapshot), Console(file=out, width=100), title="trials")
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in out.getvalue()
    assert "Matthews correlation" in out.getvalue()


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_a_readable_name(metric: str) -> None:
    correlation = metric.startswith(("matthews", "pearson", "spearman"))
    assert human_metric(metric, 0.5) == ("0.500" if correlation else "50.0 %")
    assert "_" not in metric_words(metric)
    assert metric_title(metric)[0].isupper()
    assert metric_title(metric)[1:] == metric_words(metric)[1:]


def test_composite_metrics_are_named_by_their_parts() -> None:
    assert metric_title("accuracy_f1") == "Accuracy and F1"
    assert metric_words("accuracy_f1") == "accuracy and F1"
    assert metric_words("pearson_spearman") == "Pearson and Spearman"


def test_markdown_has_a_line_per_choice_of_the_front() -> None:
    """Trial 4 is no better than trial 2 by more than noise, and stands behind it."""
    text = front_markdown(make_snapshot())
    name = "sst2-minilm-jetson-nano-default"
    assert text.startswith(f"Pareto front of {name}: 2 of 5 complete trials; ± is the error of the rows alone, not")
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4
    assert "on the front yet" in front_markdown(make_snapshot(make_trial(0, 0.8, 1.0, 1.0)))


def test_baselines_are_rows_below_the_front() -> None:
    snapshot = make_snapshot(baselines=make_baselines())
    full, lora = baseline_rows(snapshot)
    assert (full["trial"], full["rate"], full["frozen"]) == ("full fine-tuning", "5.0e-05", "0 %")
    assert (lora["trial"], lora["rate"], lora["frozen"], lora["trained"]) == ("LoRA r=8", "5.0e-04", "", "0.74 M")
    assert full.keys() == lora.keys() == front_rows(snapshot)[0].keys()
    lines = [line for line in front_markdown(snapshot).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2 + 2
    assert lines[-1].startswith("| LoRA r=8 |")
    data = json.loads(json.dumps(trials_json(snapshot, snapshot.front)))
    assert data["trials"] == json.loads(json.dumps(trials_json(make_snapshot(), snapshot.front)))["trials"]
    assert [row["baseline"]["method"] for row in data["baselines"]] == ["full", "lora8"]
    assert [row["metric"] for row in data["baselines"]] == [0.853, 0.8123]
    assert data["baselines"][1]["config"] is None


def test_json_has_the_documented_shape() -> None:
    """Values are unrounded."""
    snapshot = make_snapshot()
    data = json.loads(json.dumps(trials_json(snapshot, snapshot.front)))
    assert list(data) == ["schema_version", "study", "constant_answer", "choices", "trials", "baselines"]
    assert list(data["trials"][0]) == [
        "number", "state", "metric", "learned", "dev_metric", "peak_memory_mib", "wall_time_s", "energy_j", "feasible",
        "on_front", "config", "plan",
    ]  # fmt: skip
    assert data["choices"] == [{"trial": 0, "behind": []}, {"trial": 2, "behind": [4]}]
    assert [row["metric"] for row in data["trials"]] == [0.80, 0.84, 0.855]
    assert FarConfig.from_dict(data["trials"][0]["config"]) == snapshot.front[0].config


def test_json_as_text_has_a_line_per_trial() -> None:
    for snapshot in (make_snapshot(baselines=make_baselines()), make_snapshot(make_trial(0, 0.8, 1.0, 1.0))):
        text = trials_text(snapshot, snapshot.front)
        assert json.loads(text) == json.loads(json.dumps(trials_json(snapshot, snapshot.front)))
        assert sum('"number"' in line for line in text.splitlines()) == len(snapshot.front) + len(snapshot.baselines)


@pytest.mark.parametrize(("width", "most"), [(60, 60), (10_000, 120)])
def test_long_cells_are_wrapped(width: int, most: int) -> None:
    """To a narrow terminal; in a wide one, and in a pipe, to 120 columns."""
    value = " ".join(f"word{i}" for i in range(40))
    out = io.StringIO()
    print_table([{"what": "a", "value": value}, {"what": "b", "value": "short"}], Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= most
    assert [word for line in lines[2:] for word in line.split()] == ["a", *value.split(), "b", "short"]


def test_a_search_no_better_than_a_constant_answer_is_reported() -> None:
    """Older studies do not record the constant answer."""

    def text(value: float) -> str:
        scored = {"answer": "positive", "value": value}
        return constant_text(make_snapshot(meta={"constant_answer": {"validation": scored, "dev": scored}}))

    assert text(0.5) == (
        "a constant answer (positive) scores 50.0 % on the validation rows, 50.0 % on the development rows"
    )
    assert text(0.86).endswith(": no trial is better")
    assert constant_text(make_snapshot()) == ""


def test_the_note_column_exists_only_if_a_trial_did_not_learn() -> None:
    assert "note" not in front_markdown(make_snapshot(make_trial(0, 0.8, 1.0, 1.0), front={0}))
    idle = make_trial(0, 0.52, 1000.0, 100.0, learned=False)
    snapshot = make_snapshot(idle, make_trial(1, 0.8, 1100.0, 110.0), front={0, 1})
    assert [row["note"] for row in front_rows(snapshot)] == ["did not learn", ""]
    head = next(line for line in front_markdown(snapshot).splitlines() if line.startswith("|"))
    assert head.endswith("| note |")
    assert "no better than a constant answer" in front_markdown(snapshot)


def test_choices_are_compared_with_full_fine_tuning() -> None:
    """By ratios and a difference; parts that are frozen beside neurons are named. Without a reference there is none."""
    parts = FarConfig((1.0, 0.5, 0.5, 0.5), 1e-4, 1.0, frozen_embeddings=True, frozen_attention_layers=3)
    trials = [make_trial(0, 0.85, 850.0, 160.0, config=parts), make_trial(1, 0.8, 800.0, 200.0)]
    bottom = make_trial(2, 0.5, 400.0, 80.0, config=FarConfig((0.5,) * 4, 1e-4, 1.0, frozen_bottom_layers=2))
    snapshot = make_snapshot(*trials, bottom, front={0, 1, 2}, baselines=make_baselines())
    rows = {row["trial"]: row for row in front_rows(snapshot)}
    assert (rows["0"]["vs full"], rows["0"]["× memory"], rows["0"]["× time"]) == ("−0.3 ± 1.6", "0.50", "0.50")
    assert [rows[number]["also frozen"] for number in "012"] == ["emb, attention 0-2", "", "emb, layers 0-1"]
    assert baseline_rows(snapshot)[0]["vs full"] == ""
    assert "vs full" not in front_markdown(make_snapshot())
