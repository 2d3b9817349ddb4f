"""The sections of a report, on studies that are built for a known finding."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from farsearch.cli import cli
from farsearch.cli.task_options import task_options
from farsearch.records import (
    AnyTrial,
    Baseline,
    FarConfig,
    LossPoint,
    PrimingReport,
    StudySnapshot,
    Verification,
)
from farsearch.report import make_report
from farsearch.report.command import made_by, resume_command
from farsearch.report.figure import front_figure
from farsearch.report.history import course_section, curves_section, hypervolumes
from farsearch.report.importance import importance, importance_section
from farsearch.report.layers import frozen_section, memory_section, time_section
from farsearch.report.measured import measured_section, pairs_of
from farsearch.report.reliability import selection_section, verified_section
from farsearch.report.section import FEW, Section, spread_over
from farsearch.select import pareto_front
from farsearch.tasks.description import OwnData, own_data
from tests.factories import changed, make_baselines, make_measurement, make_settings, make_snapshot, make_trial
from tests.journey import chdir

OPTIONS = {
    "task": "sst2", "device": "jetson-nano", "model": "minilm", "space": "default", "data_dir": "/some where/SST-2",
    "train_samples": 512, "epochs": 1.0, "batch_size": 8, "max_length": None, "seed": 3,
    "fixed": {"learning_rate": 1e-4, "frozen_embeddings": True}, "max_memory_mib": 1200.5, "max_time_s": None,
    "device_samples": 4096, "prime_on": "device", "plan": "memory",
}  # fmt: skip
"""What a study keeps of what its user asked for."""


def _found(section: Section | None) -> Section:
    assert section is not None
    return section


def _with_config(number: int, *fractions: float, **changes: Any) -> Any:
    config = dataclasses.replace(FarConfig(fractions, 1e-4, 1.0), **changes)
    # each takes more memory and less time than the last, so that all are choices of a front
    return make_trial(number, 0.8, 1000.0 * 1.1**number, 200.0 * 0.97**number, config=config)


def test_heat_map_shows_the_frozen_share_of_every_layer() -> None:
    """A row per point, a column for the embeddings and each layer; frozen bottom layers count as 1."""
    trials = [_with_config(0, 0.0, 0.9, 1.0, frozen_bottom_layers=1), _with_config(1, 0.0, 0.5, 1.0)]
    section = _found(frozen_section(make_snapshot(*trials, front={0, 1})))
    assert section.figure is not None
    axes = section.figure.axes[0]
    shown = np.asarray(axes.images[0].get_array())
    assert shown.tolist() == [[100, 100, 90, 100], [0, 0, 50, 100]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["trial 0", "trial 1"]
    assert section.title == "The front freezes most in layer 2 (100 %), least in layer 0 (50 %)"
    assert "attention" in section.words


def test_a_long_front_is_sampled_evenly_with_both_ends() -> None:
    trials = [_with_config(i, 0.1, 0.9) for i in range(50)]
    chosen = spread_over(make_snapshot(*trials, front=set(range(50))))
    numbers = [trial.number for trial in chosen]
    assert len(numbers) == len(set(numbers)) == FEW
    assert (numbers[0], numbers[-1]) == (0, 49)
    assert numbers == sorted(numbers)


def test_the_parts_of_a_bar_add_up_to_the_peak() -> None:
    """The process is the remainder; the title names the part that differs most between points."""
    light, heavy = make_trial(0, 0.8, 1000.0, 100.0), make_trial(1, 0.9, 1300.0, 120.0)
    light = changed(light, memory={"parameters": 100.0, "saved": 200.0})
    heavy = changed(heavy, memory={"parameters": 100.0, "saved": 500.0})
    section = _found(memory_section(make_snapshot(light, heavy, front={0, 1}, baselines=make_baselines())))
    assert section.title == "The points differ most in: saved, 200 MiB to 500 MiB"
    assert section.figure is not None
    axes = section.figure.axes[0]
    ends = {round(bar.get_x() + bar.get_width(), 6) for bar in axes.patches if isinstance(bar, Rectangle)}
    assert {700.0, 1000.0, 1300.0, 1700.0, 950.0} <= ends
    assert [label.get_text() for label in axes.get_yticklabels()][2:] == ["full fine-tuning", "LoRA r=8"]


def test_time_has_a_suitable_unit_and_readable_operations() -> None:
    trial = changed(make_trial(0, 0.8, 1000.0, 600.0), time={"gemm": 480.0, "bmm": 120.0})
    section = _found(time_section(make_snapshot(trial, front={0})))
    assert section.title == "Most of the time goes into matrix products (80 %)"
    assert section.figure is not None
    assert "(min, predicted)" in section.figure.axes[0].get_xlabel()
    widths = [bar.get_width() for bar in section.figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert widths == [8.0, 2.0]


def test_hypervolume_rises_to_its_final_value() -> None:
    """Dominated, stopped and infeasible trials add nothing."""
    trials = [
        make_trial(0, 0.80, 1000.0, 200.0),
        make_trial(1, 0.79, 1100.0, 210.0),
        make_trial(2, 0.95, 900.0, 100.0, feasible=False),
        make_trial(3, 0.85, 1000.0, 190.0),
        make_trial(4, None, 800.0, 100.0, state="pruned"),
    ]
    shares = hypervolumes(trials)
    assert shares[0] == shares[1] == shares[2] < shares[3] == shares[4] == 1.0
    section = _found(course_section(make_snapshot(*trials, front={3})))
    assert section.title == "90 % of the hypervolume was reached after 4 of 5 trials"
    assert "Trial 3 was the last to add to it" in section.words
    assert "1 trial was stopped early" in section.words
    assert "peak memory 41" in section.words


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1, 1e4), st.floats(1, 1e5)), min_size=1, max_size=25))
def test_hypervolume_never_falls(values: list[tuple[float, float, float]]) -> None:
    shares = hypervolumes([make_trial(i, *value) for i, value in enumerate(values)])
    assert shares == [] or shares[-1] == 1.0
    assert all(a <= b * (1 + 1e-9) for a, b in itertools.pairwise(shares))


def _study_of(count: int, noise: float = 0.0) -> StudySnapshot:
    """Return a study in which the metric depends only on the learning rate, and memory only on layer 1."""
    draw, trials = random.Random(0), []
    for i in range(count):
        rate, fractions = 10 ** draw.uniform(-5, -3), (draw.random(), draw.random())
        metric = draw.random() if noise else 0.9 - 0.1 * (math.log10(rate) + 4) ** 2
        config = FarConfig(fractions, rate, 1.0)
        trials.append(make_trial(i, metric, 2000 - 1000 * fractions[1], 100 + 100 * fractions[0], config=config))
    return make_snapshot(*trials, front=pareto_front(trials))


def test_importance_finds_the_hyperparameter_of_each_objective() -> None:
    """Constant hyperparameters are left out."""
    section = _found(importance_section(_study_of(60)))
    assert section.title.startswith("Accuracy depends most on learning rate (")
    assert "memory depends most on layer 1 (" in section.title
    assert "time depends most on layer 0 (" in section.title
    assert section.figure is not None
    names = [label.get_text() for label in section.figure.axes[0].get_yticklabels()]
    assert names[0] == "learning rate"
    assert set(names) == {"learning rate", "layer 0", "layer 1"}


def test_layers_that_share_a_fraction_are_one_hyperparameter() -> None:
    """Groups are found by their values, also if a frozen bottom ends within one."""
    draw = np.random.default_rng(0)
    trials = []
    for number in range(40):
        low, high = draw.choice([0.0, 0.25, 0.5, 0.75, 1.0], size=2)
        bottom = int(draw.integers(3))
        config = FarConfig((low, low, low, high, high), 1e-4, 1.0, frozen_bottom_layers=bottom).canonical()
        trials.append(make_trial(number, 0.9 - 0.3 * high + 0.01 * low, 1000.0 + number, 200.0 - number, config=config))
    section = _found(importance_section(make_snapshot(*trials, front={0})))
    assert section.figure is not None
    names = {label.get_text() for label in section.figure.axes[0].get_yticklabels()}
    assert {name for name in names if name.startswith("layer")} == {"layers 0 to 2", "layers 3 to 4"}
    assert section.title.startswith("Accuracy depends most on layers 3 to 4 (")
    pairs = [_with_config(0, 0.0, 0.0, 0.9, 0.9), _with_config(1, 0.5, 0.5, 0.9, 0.9)]
    title = _found(frozen_section(make_snapshot(*pairs, front={0, 1}))).title
    assert title == "The front freezes most in layers 2 to 3 (90 %), least in layers 0 to 1 (25 %)"


def test_importance_reports_when_it_is_not_meaningful() -> None:
    """For a random metric, and for few trials."""
    assert "It is not clear yet what accuracy depends on" in _found(importance_section(_study_of(60, noise=1.0))).title
    few = _found(importance_section(_study_of(11)))
    assert (few.title, few.figure) == ("11 trials are too few to rank the hyperparameters", None)


def test_importances_add_up_and_a_constant_explains_nothing() -> None:
    features = {"a": [float(i) for i in range(40)], "b": [float(i % 3) for i in range(40)]}
    found = importance(features, [2.0 * i for i in range(40)])
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert found.explained > 0.8
    nothing = importance(features, [1.0] * 40)
    assert (nothing.explained, set(nothing.shares.values())) == (0.0, {0.0})


def test_curves_drop_points_that_are_not_finite() -> None:
    """A training without a finite point is not drawn."""
    bad = (LossPoint(1, 0.7), LossPoint(2, math.nan), LossPoint(3, 0.5))
    trials = [make_trial(0, 0.8, 1.0, 1.0, curve=bad), make_trial(1, 0.8, 2.0, 2.0, curve=())]
    section = _found(curves_section(make_snapshot(*trials, front={0})))
    assert section.title == "The median loss on the front goes from 0.70 to 0.50"
    assert section.figure is not None
    assert len(section.figure.axes[0].lines) == 1


def test_selection_names_trials_no_better_than_random() -> None:
    """As in ``show``: an overlap within 5 points of chance. Unprimed trials do not count."""
    overlaps = [(8, 0.31, 0.1), (8, 0.14, 0.1), (0, None, 0.1), (1, None, 0.1), (16, 0.16, 0.1)]
    trials = [
        make_trial(i, 0.8, 1000.0, 100.0, priming=PrimingReport(steps, 1.0, False, 0.4, half, chance))
        for i, (steps, half, chance) in enumerate(overlaps)
    ]
    section = _found(selection_section(make_snapshot(*trials)))
    assert section.title == "Selection is no better than random in 1 of 3 primed trials"
    assert section.words.endswith("Red, no better than random: trial 1.")
    good = _found(selection_section(make_snapshot(trials[0], trials[4])))
    assert good.title == "Selection beats chance in all 2 primed trials"
    assert selection_section(make_snapshot(trials[2], trials[3])) is None


def test_only_measurements_of_a_board_are_compared_with_its_predictions() -> None:
    """The host's own figures count only for the device ``local``."""
    study = make_snapshot()
    assert pairs_of(study) == ([], [])
    assert _found(measured_section(study)).title.startswith("Nothing was measured on jetson-nano yet")
    measured = dataclasses.replace(study, measurements=(make_measurement(0), make_measurement(4, 1060.0)))
    section = _found(measured_section(measured))
    assert section.title == "Measured memory is 4 % above the prediction and time is 20 % below the prediction"
    assert [row["trial"] for row in section.rows] == ["0", "4"]
    assert (section.rows[0]["memory"], section.rows[0]["predicted"]) == ("1,030 MiB", "1,000 MiB")
    assert "torch 1.10.0" in section.rows[0]["software"]


def test_a_measurement_of_another_machine_is_not_compared() -> None:
    """It remains in the table."""
    elsewhere = dataclasses.replace(make_measurement(0, 1600.0), machine="Intel(R) Xeon(R) Platinum 8259CL")
    study = dataclasses.replace(make_snapshot(), measurements=(elsewhere,))
    assert pairs_of(study) == ([], [])
    section = _found(measured_section(study))
    assert section.title.startswith("Nothing was measured on jetson-nano yet")
    assert "Xeon" in section.words
    assert [row["board"] for row in section.rows] == [elsewhere.machine]
    both = _found(measured_section(dataclasses.replace(study, measurements=(elsewhere, make_measurement(0)))))
    assert both.title == "Measured memory is 3 % above the prediction and time is 20 % below the prediction"
    assert "Xeon" in both.words


def test_figures_of_the_host_are_compared_for_the_local_device() -> None:
    """Memory of every complete trial; time only if the host did exactly the priced work."""
    trials = [make_trial(i, 0.8, 1000.0, 100.0, host_peak_mib=1100.0, host_seconds=90.0) for i in range(3)]
    study = make_snapshot(*trials, settings=make_settings(device="local"))
    memory, time = pairs_of(study)
    assert {(pair.predicted, pair.measured) for pair in memory} == {(1000.0, 1100.0)}
    assert {(pair.predicted, pair.measured) for pair in time} == {(100.0, 90.0)}
    for changes in ({"device_samples": 9}, {"prime_on": "device"}):
        other = dataclasses.replace(study, settings=make_settings(device="local", **changes))
        assert [len(pairs) for pairs in pairs_of(other)] == [3, 0]


def _verified(trial: AnyTrial, number: int | None, metrics: dict[int, float]) -> list[AnyTrial]:
    return [
        changed(trial, number=100 + seed, metric=metric, verifies=Verification(number, seed, 67_349))
        for seed, metric in metrics.items()
    ]


def test_verified_points_within_noise_are_marked() -> None:
    """A row per point, sorted by memory, baselines last."""
    lora = make_baselines()[1]
    records = [
        *_verified(lora, None, {1: 0.80, 2: 0.82, 3: 0.81}),
        *_verified(make_trial(5, 0.9, 3.0, 3.0), 5, {1: 0.70, 2: 0.71}),
        *_verified(make_trial(4, 0.9, 2.0, 2.0), 4, {2: 0.86, 1: 0.84, 3: 0.85}),
        *_verified(make_trial(0, 0.9, 1.0, 1.0), 0, {1: 0.83, 2: 0.87, 3: 0.84}),
    ]
    study = make_snapshot(verified=tuple(records))
    section = _found(verified_section(study))
    assert section.title == (
        "Trained again, trial 4 reaches 85.0 ± 1.0 % on the development set; "
        "no advantage is shown for trial 4 and LoRA r=8; too few seeds for a verdict on trial 5"
    )
    assert [row["point"] for row in section.rows] == ["trial 0", "trial 4", "trial 5", "LoRA r=8"]
    assert section.rows[1]["development set"] == "85.0 ± 1.0 %"
    assert section.rows[1]["advantage"].startswith("within noise of trial 0, which costs less: −")
    assert section.figure is not None
    axes = section.figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["trial 0", "trial 4", "trial 5", "LoRA r=8"]
    assert [line.get_markerfacecolor() == "white" for line in axes.lines] == [False, True, False, True]
    assert verified_section(make_snapshot()) is None


def test_a_verification_without_a_completed_training_has_a_table_only() -> None:
    failed = [changed(r, metric=None, state="pruned") for r in _verified(make_trial(0, 0.9, 1, 1), 0, {1: 0})]
    section = _found(verified_section(make_snapshot(verified=tuple(failed))))
    assert (section.title, section.figure) == ("Trained again, no training was completed", None)
    assert section.rows[0]["advantage"] == "no training came to its end"
    assert "no training was completed" in make_report(make_snapshot(verified=tuple(failed))).html


def test_the_rank_agreement_is_shown_beside_the_front() -> None:
    """Three verified trials are the minimum."""
    orders = {0: 0.7, 2: 0.8, 4: 0.9}
    records = [r for n, metric in orders.items() for r in _verified(make_trial(n, 0.9, 1.0, 1.0), n, {1: metric})]
    page = make_report(make_snapshot(verified=tuple(records))).html
    front = page.split('<section id="pareto">')[1].split("</p>")[0]
    assert "tau of search (2,048 rows, one seed) and verification (67,349 rows) over 3 trials: +1.00" in front
    assert "Kendall" not in make_report(make_snapshot()).html.split('<section id="pareto">')[1].split("</p>")[0]


def _parsed(command: str) -> dict[str, Any]:
    """Return the options that ``run`` would receive."""
    program, *words = shlex.split(command)
    assert program == "farsearch"
    with cli.make_context("farsearch", words) as parent:
        context = cli.commands[words[0]].make_context(words[0], words[1:], parent=parent)
        return context.params


def test_the_resume_command_has_the_options_of_the_study() -> None:
    study = make_snapshot(meta={"options": OPTIONS}, name="a study", n_trials=30)
    command = resume_command(study)
    assert command is not None
    given = _parsed(command)
    assert (given["study"], given["n_trials"]) == ("a study", 30)
    assert dict(given["fixed"]) == OPTIONS["fixed"]
    assert (given["max_memory_mib"], given["max_time_s"], str(given["data_dir"])) == (1200.5, None, "/some where/SST-2")
    assert given["device"] == (OPTIONS["device"],)
    for key in OPTIONS.keys() - {"device", "fixed", "max_memory_mib", "max_time_s", "data_dir"}:
        assert given[key] == OPTIONS[key], key


def test_the_resume_command_describes_a_user_s_data() -> None:
    """A study whose task is not named after the file has no command, because no option sets the name."""
    own = OwnData(
        "mails", "/data/mails.csv", text_columns=("subject", "body"), label_column="folder", labels=("ham", "spam"),
        metric="f1", positive="spam", skip_bad_rows=True, kind="classification",
    )  # fmt: skip
    command = resume_command(make_snapshot(meta={"options": {**OPTIONS, "own": own.to_dict()}}))
    assert command is not None
    given = _parsed(command)
    said = {name: given[field] for name, field in (("text_columns", "text_column"), ("labels", "label"))}
    said["label_column"] = given["label_column"][0]
    same = ("train", "metric", "positive", "skip_bad_rows", "kind")
    assert own_data(None, {**said, **{name: given[name] for name in same}}) == own
    other = {**OPTIONS, "own": {**own.to_dict(), "name": "other"}}
    assert resume_command(make_snapshot(meta={"options": other})) is None


def test_a_study_without_recorded_options_has_no_resume_command() -> None:
    assert resume_command(make_snapshot()) is None
    assert made_by(make_snapshot()) == "farsearch run --device jetson-nano --task sst2"
    assert made_by(make_snapshot(meta={})) is None
    page = make_report(make_snapshot(make_trial(0, None, None, None, state="fail"))).html
    assert "Made by" in page
    assert "To go on" not in page
    assert "torch" in page


def test_incomplete_records_are_drawn() -> None:
    """Without cost breakdown, curve, the config of a baseline or different objectives, sections are left out."""
    bare = changed(make_trial(0, 0.8, 1000.0, 100.0, curve=()), memory={}, time={})
    zero = dataclasses.replace(make_measurement(0), predicted_memory_mib=0.0, predicted_time_s=0.0)
    named = changed(bare, baseline=Baseline("x", "x", 1e-4, 1.0), config=None)
    for study in (
        make_snapshot(bare, front={0}, baselines=(named,), measurements=(zero,)),
        make_snapshot(bare, changed(bare, number=1), front={0, 1}, meta={}),
        dataclasses.replace(make_snapshot(), trials=(), n_trials=0),
    ):
        assert "</html>" in make_report(study).html


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@task_options
def _own(task: str, own: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the task description that ``run`` would receive."""
    return own


TASK_FILE = """
name = "mails"
train = "rows.csv"
labels = ["bills", "friends"]
text_columns = ["body"]
label_column = "folder"
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--train", "rows.csv"],
        ["--train", "a b.csv", "--dev", "c.csv", "--text-column", "x", "--text-column", "y", "--label-column", "z"],
        ["--train", "rows.csv", "--columns", "text,label", "--separator", "semicolon", "--skip-bad-rows"],
        ["--train", "rows.csv", "--label-column", "toxic", "--label-column", "insult", "--metric", "micro_f1"],
        ["--train", "texts.txt", "--train-labels", "labels.txt", "--kind", "classification"],
        ["--task", "mails.toml", "--metric", "macro_f1"],
    ],
)
def test_the_resume_command_reproduces_a_user_s_task(tmp_path: Path, words: list[str]) -> None:
    """Also a task that a file describes."""
    with chdir(tmp_path):
        (tmp_path / "mails.toml").write_text(TASK_FILE, encoding="utf-8")
        own = _own.main(words, standalone_mode=False)
    command = resume_command(make_snapshot(meta={"options": {**OPTIONS, "task": own["name"], "own": own}}))
    assert command is not None
    assert _own.main(shlex.split(command)[2:], standalone_mode=False) == own
    assert _parsed(command)["seed"] == OPTIONS["seed"]


def test_a_baseline_that_did_not_learn_is_marked_in_every_legend() -> None:
    full, lora = make_baselines()
    study = make_snapshot(baselines=(full, changed(lora, learned=False)))
    legend = front_figure(study).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["full fine-tuning", "LoRA r=8 (did not learn)"]
    assert "LoRA r=8 (did not learn)" in make_report(study).html
