"""The comparison with FAR's paper: trained and recorded cells, output, and intervals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, matthews_corrcoef

from benchmarks.paper import main
from benchmarks.paper_cells import TABLES, Table, columns, evidence_of, read_table
from benchmarks.paper_methods import CONTENDERS
from benchmarks.paper_report import Report, make_report
from benchmarks.paper_statistics import DRAWS, difference, difference_draws, interval
from benchmarks.paper_steps import StepTimes
from tests.journey import write_task

NAMES = ["full", "far10", "random10", "far40", "ffn-frozen", "bitfit"]
SEEDS, ROWS, DEV_ROWS = 3, 24, 20
LAYERS, HIDDEN, NEURONS = 2, 32, 64
"""Of ``tiny_distilbert``."""

Evidence = NDArray[np.float64]


def run(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# --- the command, on a tiny model -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with SST-2's files as in the GLUE download."""
    folder = tmp_path_factory.mktemp("glue")
    write_task(folder / "SST-2", rows=DEV_ROWS * 4)
    return folder


@pytest.fixture(scope="module")
def asked(glue: Path, tiny_distilbert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Return the arguments of the run of ``printed``."""
    return [
        "--data-dir", glue, "--task", "sst2", "--model", tiny_distilbert, "--train-samples", ROWS, "--epochs", 1,
        "--tables", tmp_path_factory.mktemp("tables"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def printed(asked: list[object]) -> Result:
    """Return the JSON of a whole run with three seeds."""
    done = run(*asked, "--json")
    assert done.exit_code == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def table_path(asked: list[object], printed: Result) -> Path:
    """Return the path of the table that the run wrote."""
    (path,) = Path(str(asked[-1])).glob("sst2-*.jsonl")
    return path


def test_methods_are_trained_with_every_seed_full_and_far_first(table_path: Path) -> None:
    """An interrupted run has the main comparison with all seeds first, then the rest seed by seed."""
    waves = (NAMES[:2], NAMES[2:])
    assert list(read_table(table_path).cells) == [(seed, name) for wave in waves for seed in (1, 2, 3) for name in wave]


def test_cell_has_consistent_score_rows_time_and_memory(table_path: Path) -> None:
    table = read_table(table_path)
    for cell in table.cells.values():
        predicted, true = evidence_of(cell).T
        assert len(predicted) == DEV_ROWS
        assert cell["metric"] == pytest.approx(accuracy_score(true, predicted))
        assert cell["training"]["processor_s"] > 0
        primed = cell["method"] in ("far10", "random10", "far40")
        assert (cell["priming"]["steps"] > 0) == (cell["priming"]["processor_s"] > 0) == primed
        assert cell["priced"]["device"] == "jetson-nano"
        assert cell["priced"]["peak_memory_mib"] > cell["priced"]["tensor_peak_mib"]
    peaks = {name: table.cells[1, name]["peak_mib"] for name in NAMES}
    assert peaks["bitfit"] < peaks["ffn-frozen"] < peaks["far10"] == peaks["random10"] < peaks["far40"] < peaks["full"]


def test_methods_train_the_stated_number_of_neurons(table_path: Path) -> None:
    """A neuron has its row, bias and column; FAR freezes b2, and its random control has the same size."""
    cells = read_table(table_path).cells
    trained = {name: cells[1, name]["trainable"] for name in NAMES}
    neuron, blocks = 2 * HIDDEN + 1, LAYERS * (2 * HIDDEN * NEURONS + NEURONS + HIDDEN)
    assert trained["ffn-frozen"] == trained["full"] - blocks
    for name, learners in (("far10", 6), ("random10", 6), ("far40", 26)):
        assert trained[name] == trained["ffn-frozen"] + LAYERS * learners * neuron


def test_random_neurons_differ_from_those_of_far(table_path: Path) -> None:
    """Only the selection differs, so the two losses must differ after the first step."""
    cells = read_table(table_path).cells
    for seed in (1, 2, 3):
        one, other = cells[seed, "far10"], cells[seed, "random10"]
        assert one["learning_rate"] == other["learning_rate"]
        assert one["curve"] != other["curve"]


def test_steps_are_timed_in_alternation_on_real_batches(table_path: Path) -> None:
    """All methods use the same batches of the phase, and full fine-tuning is compared with itself too."""
    table = read_table(table_path)
    times = table.times
    assert times is not None
    assert list(times.ratios) == NAMES
    assert times.steps == ROWS // 8
    assert times.lengths == tuple(sorted(times.lengths))
    assert times.ratios["full"] == (1.0,) * len(times.lengths)
    assert all(ratio > 0 for values in times.ratios.values() for ratio in values)
    assert StepTimes.from_dict(times.to_dict()) == times


def test_stdout_contains_only_json(printed: Result) -> None:
    """The output is a versioned document; messages go to stderr."""
    report = json.loads(printed.stdout)
    assert report["schema_version"] == 1
    (task,) = report["tasks"]
    assert (task["task"], task["metric"], task["train_samples"], task["dev_rows"]) == ("sst2", "accuracy", 24, 20)
    assert [row["method"] for row in task["rows"]] == NAMES
    assert [one["method"] for one in report["averages"]] == NAMES[1:]
    assert "18/18 sst2, seed 3, BitFit" in printed.stderr


def test_same_command_resumes_an_interrupted_run(
    table_path: Path, asked: list[object], printed: Result, tmp_path: Path
) -> None:
    """Only the training of the truncated line is repeated, with the same result."""
    *lines, last, _times = table_path.read_text().splitlines(keepends=True)
    copy = tmp_path / table_path.name
    copy.write_text("".join(lines) + last[:100])
    done = run(*asked[:-1], tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines() if "/18" in line] == ["18/18 sst2, seed 3, BitFit"]
    assert copy.read_text().splitlines(keepends=True)[:-2] == lines
    again, before = (read_table(path).cells[3, "bitfit"] for path in (copy, table_path))
    assert (again["evidence"], again["curve"]) == (before["evidence"], before["curve"])


def test_table_of_other_settings_is_refused_with_the_difference(asked: list[object], printed: Result) -> None:
    """Cells of different settings are never mixed; the error has a suggestion."""
    done = run(*asked, "--epochs", 2)
    assert done.exit_code == 2
    assert "was recorded with another epochs: 1.0, not 2.0; move it away" in done.stderr


def test_cell_of_another_learning_rate_is_refused(
    table_path: Path, asked: list[object], printed: Result, tmp_path: Path
) -> None:
    """A method has one rate per table: after a change of paper_methods.py the error names the old cells."""
    text = table_path.read_text()
    (tmp_path / table_path.name).write_text(
        text.replace('"far40","learning_rate":5e-05', '"far40","learning_rate":0.0002')
    )
    done = run(*asked[:-1], tmp_path)
    assert done.exit_code == 2
    assert "another learning rate of far40: 0.0002, not 5e-05; move it away" in done.stderr


def test_recorded_cells_are_shown_without_training(asked: list[object], printed: Result) -> None:
    """``--recorded`` reads the tables alone, without data, and prints the same report as the run."""
    arguments = asked[asked.index("--task") :]
    assert json.loads(run(*arguments, "--recorded", "--json").stdout) == json.loads(printed.stdout)
    text = run(*arguments, "--recorded", "--markdown").stdout
    assert "### sst2: Accuracy in points, tiny-distilbert, 24 training rows, epochs: 1, batch 8, 20 development" in text
    assert "| FAR r=10 % | 91.1 |" in text
    done = run("--recorded", "--task", "cola", "--tables", asked[-1])
    assert done.exit_code == 2
    assert "leave --recorded out to train cola" in done.stderr


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        (("--task", "sst3"), 2, "did you mean 'sst2'?"),
        (("--train-samples", "some"), 2, "neither a number of at least 1 nor 'all'"),
        (("--train-samples", 10_000), 2, "10000 training samples are more than the 80 rows"),
        (("--seeds", 2), 2, "x>=3"),
    ],
)
def test_invalid_input_ends_in_one_line(
    asked: list[object], tmp_path: Path, wrong: Sequence[object], code: int, message: str
) -> None:
    """The command ends before any training, with farsearch's messages and exit codes."""
    arguments = [*asked[:2], "--model", asked[5], *(() if "--task" in wrong else ("--task", "sst2"))]
    done = run(*arguments, *wrong, "--tables", tmp_path)
    assert done.exit_code == code
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


# --- the recorded tables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_recorded_score_follows_from_recorded_rows(path: Path) -> None:
    """Each score in the shipped tables is that of its predictions by scikit-learn."""
    measured = {"accuracy": accuracy_score, "matthews_correlation": matthews_corrcoef}
    table = read_table(path)
    truths = set()
    for cell in table.cells.values():
        predicted, true = evidence_of(cell).T
        assert cell["metric"] == pytest.approx(measured[table.header["metric"]](true, predicted))
        truths.add(tuple(true))
    assert len(truths) <= 1  # none while a task has no recorded cells


def test_recorded_comparison_is_printed() -> None:
    """docs/benchmarks.md is made from the recorded tables, which include full fine-tuning."""
    done = run("--recorded", "--json")
    assert done.exit_code == 0, done.stderr
    for task in json.loads(done.stdout)["tasks"]:
        assert "full" in {row["method"] for row in task["rows"]}


# --- cells and report -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(-5, 5, width=16)), min_size=1, max_size=20))
def test_evidence_round_trips_through_json(rows: list[tuple[int, float]]) -> None:
    """Digits are written as text, other numbers as they are."""
    cell = json.loads(json.dumps({"evidence": columns(rows)}))
    assert isinstance(cell["evidence"][0], str)
    np.testing.assert_allclose(evidence_of(cell), np.array(rows, dtype=float), rtol=1e-5)


def make_cell(seed: int, method: str, predicted: Sequence[int], true: Sequence[int], **changes: Any) -> dict[str, Any]:
    """Return a cell of classes with round figures."""
    return {
        "seed": seed,
        "method": method,
        "learning_rate": 1e-4,
        "device": "cpu",
        "metric": float(np.mean(np.array(predicted) == np.array(true))),
        "training": {"processor_s": 100.0, "wall_s": 400.0},
        "priming": {"steps": 0, "processor_s": 0.0, "wall_s": 0.0},
        "trainable": 1000,
        "evidence": columns(list(zip(predicted, true, strict=True))),
        "peak_mib": 400.0,
        "priced": {"device": "jetson-nano", "tensor_peak_mib": 410.0, "peak_memory_mib": 1280.0, "wall_time_s": 70.0},
        **changes,
    }


def make_times(far: tuple[float, ...], seconds: tuple[float, ...]) -> StepTimes:
    """Return the times of 100 steps, with FAR's ratio at each batch."""
    return StepTimes("cpu", 100, tuple(range(len(far))), seconds, {"full": (1.0,) * len(far), "far10": far})


def make_table(cells: Sequence[dict[str, Any]], task: str = "sst2") -> Table:
    """Return a table of such cells."""
    header = {
        "task": task, "metric": "accuracy", "model": "minilm", "train_samples": 4096, "epochs": 2.0, "batch_size": 8,
    }  # fmt: skip
    times = make_times((0.5, 0.7), (1.0, 3.0))
    return Table(Path("unused"), header, {(cell["seed"], cell["method"]): cell for cell in cells}, times)


TRUE = [0, 1] * 20
"""Of 40 rows."""


def wrong_at(*rows: int) -> list[int]:
    """Return predictions that are wrong at these rows only."""
    return [1 - label if row in rows else label for row, label in enumerate(TRUE)]


def make_cells() -> list[dict[str, Any]]:
    """Return cells in which full fine-tuning is wrong in 4 rows of 40, FAR in 6; FAR's third seed failed."""
    primed = {"priming": {"steps": 5, "processor_s": 20.0, "wall_s": 30.0}}
    return [
        *(make_cell(seed, "full", wrong_at(0, 1, 2, 3), TRUE) for seed in (1, 2, 3)),
        *(make_cell(seed, "far10", wrong_at(0, 1, 2, 3, 4, 5), TRUE, peak_mib=300.0, **primed) for seed in (1, 2)),
        {"seed": 3, "method": "far10", "metric": None, "reason": "the loss of step 3 is nan"},
    ]


def test_row_agrees_with_its_cells() -> None:
    """Scores are in points, and ratios relative to full fine-tuning.

    Batches are weighted by time, (0.5 · 1 s + 0.7 · 3 s) / 4 s = 0.65, and 5 steps of priming beside 100 of the
    phase add 0.05.
    """
    full, far = make_report([make_table(make_cells())]).tasks[0].rows
    assert [full.score, full.deviation, full.difference] == [pytest.approx(90.0), pytest.approx(0.0), None]
    assert (far.seeds, far.failed, far.published) == ((1, 2), (3,), 91.1)
    assert [far.score, far.difference] == pytest.approx([85.0, -5.0])
    assert [full.time_ratio, full.priming_share] == [pytest.approx(1.0), None]
    assert [far.time_ratio, far.priming_share, far.peak_ratio] == pytest.approx([0.7, 0.05 / 0.7, 0.75])
    assert far.low is not None
    assert far.high is not None
    assert far.low < -5.0 < far.high <= 0.0


def test_table_without_timed_steps_has_no_ratio() -> None:
    """The duration of single trainings is no substitute in the table of an interrupted run."""
    table = make_table(make_cells())
    table.times = None
    report = make_report([table])
    assert [row.time_ratio for row in report.tasks[0].rows] == [None, None]
    assert [row["time"] for row in report.tasks[0].table()] == ["", ""]


def test_mean_over_tasks_is_the_mean_of_differences() -> None:
    """It is in points and, as in the paper, in percent of full fine-tuning; its interval is narrower than a task's."""
    one = make_report([make_table(make_cells())])
    both = make_report([make_table(make_cells()), make_table(make_cells(), "qqp")])
    (alone,), (mean,) = one.averages, both.averages
    assert (mean.tasks, mean.published) == (("sst2", "qqp"), -1.13)
    assert [mean.difference, mean.change] == pytest.approx([-5.0, -100 * 5 / 90])
    assert mean.high - mean.low < alone.high - alone.low


def test_missing_cells_are_left_out() -> None:
    """A run interrupted after full fine-tuning has a table with one row and no mean."""
    report = make_report([make_table([make_cell(1, "full", TRUE, TRUE)]), make_table([], "qqp")])
    assert [len(task.rows) for task in report.tasks] == [1]
    assert report.averages == ()
    assert make_report([]) == Report((), ())


# --- the crossed bootstrap --------------------------------------------------------------------------------------------


def test_averages_of_the_paper_follow_from_its_table() -> None:
    """The published scores give the published changes up to rounding; SQuAD's exact match is not included."""
    full = CONTENDERS["full"].published
    for name, published in (("far10", -1.13), ("far40", -0.74)):
        ours = CONTENDERS[name].published
        assert statistics.fmean(100 * (ours[task] / full[task] - 1) for task in full) == pytest.approx(
            published, abs=0.3
        )


def drawn(generator: np.random.Generator, seeds: int, rows: int, gap: float) -> tuple[list[Evidence], list[Evidence]]:
    """Draw predictions of two methods whose accuracies differ by ``gap`` on average over all seeds and rows.

    The probability of a right prediction varies with the seed and with the row.
    """
    of_row = generator.normal(0.0, 0.15, rows)
    found: tuple[list[Evidence], list[Evidence]] = ([], [])
    for _ in range(seeds):
        for models, mean in zip(found, (0.7 + gap, 0.7), strict=True):
            chance = mean + of_row * generator.normal(1.0, 0.3) + generator.normal(0.0, 0.02)
            right = generator.random(rows) < chance
            models.append(np.stack([right, np.ones(rows)], axis=1).astype(float))
    return found


def test_variance_equals_the_closed_form() -> None:
    """For a mean of cells the moments of the counts give the variance of the draws without drawing."""
    seeds, rows = 5, 60
    ours, others = drawn(np.random.default_rng(1), seeds, rows, 0.05)
    cells = np.stack([one[:, 0] - other[:, 0] for one, other in zip(ours, others, strict=True)])
    # a multinomial draw of n counts has E[w wᵀ] = I + (1 - 1/n) 11ᵀ
    of_seeds, of_rows = (np.eye(n) + (1 - 1 / n) for n in (seeds, rows))
    square = np.einsum("ij,kl,ik,jl->", cells, cells, of_seeds, of_rows) / (seeds * rows) ** 2
    expected = square - cells.mean() ** 2
    draws = difference_draws("accuracy", ours, others, draws=20_000)
    assert difference("accuracy", ours, others) == pytest.approx(cells.mean())
    assert draws.mean() == pytest.approx(cells.mean(), abs=4 * np.sqrt(expected / 20_000))
    assert draws.var() == pytest.approx(expected, rel=0.05)


def experiment(
    generator: np.random.Generator, seeds: int, gap: float, spread: float, own: float, rows: int = 100
) -> tuple[list[Evidence], list[Evidence]]:
    """Return F1 of two methods on questions: the sum of ``gap``, an effect of the seed, one of the row, and noise.

    Args:
        spread: standard deviation of the seed effect.
        own: standard deviation of the interaction of seed and row.
    """
    of_seeds, of_rows = generator.normal(0.0, spread, (seeds, 1)), generator.normal(0.0, 0.15, rows)
    differences = gap + of_seeds + of_rows + generator.normal(0.0, own, (seeds, rows))
    return [np.stack([np.zeros(rows), each], axis=1) for each in differences], [np.zeros((rows, 2))] * seeds


@pytest.mark.parametrize(
    ("seeds", "spread", "own", "least", "most"),
    [(10, 0.02, 0.1, 0.91, 0.98), (3, 0.02, 0.1, 0.91, 0.98), (10, 0.02, 1.0, 0.98, 1.0), (3, 0.2, 0.1, 0.67, 0.83)],
)
def test_interval_covers_the_true_difference(seeds: int, spread: float, own: float, least: float, most: float) -> None:
    """About 95 % of 300 experiments have the true difference in their interval, with three seeds and with ten.

    The share is larger if the interaction of seed and row dominates, and three in four if nearly all variance comes
    from three seeds, as the module documents. The bounds are about three standard errors of a share of 300 wide.
    """
    generator, gap, inside = np.random.default_rng(3), 0.03, 0
    for _ in range(300):
        ours, others = experiment(generator, seeds, gap, spread, own)
        low, high = interval(difference_draws("squad", ours, others, draws=400))
        inside += low <= gap <= high
    assert least <= inside / 300 <= most


def test_both_methods_share_the_draws() -> None:
    """A method's difference from itself is 0 in every draw, and differences are additive over three methods."""
    generator = np.random.default_rng(4)
    first, second = drawn(generator, 3, 50, 0.1)
    third, _ = drawn(generator, 3, 50, 0.0)
    assert not difference_draws("accuracy", first, first).any()
    draws = [difference_draws("accuracy", a, b) for a, b in ((first, second), (second, third), (first, third))]
    np.testing.assert_allclose(draws[0] + draws[1], draws[2], atol=1e-12)
    assert draws[0].shape == (DRAWS,)


def test_any_metric_can_be_bootstrapped() -> None:
    """Matthews correlation is computed per seed, by scikit-learn, before the mean over seeds."""
    generator = np.random.default_rng(5)
    ours, others = ([generator.integers(0, 2, (80, 2)).astype(float) for _ in range(3)] for _ in range(2))
    for one, other in zip(ours, others, strict=True):
        other[:, 1] = one[:, 1]
    expected = statistics.fmean(
        float(matthews_corrcoef(one[:, 1], one[:, 0]) - matthews_corrcoef(other[:, 1], other[:, 0]))
        for one, other in zip(ours, others, strict=True)
    )
    assert difference("matthews_correlation", ours, others) == pytest.approx(expected)
    low, high = interval(difference_draws("matthews_correlation", ours, others))
    assert low < expected < high
