"""``farsearch run --baselines``: its trainings, its output, and the commands that show the results."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

from farsearch.api.progress import SiblingProgress
from tests.factories import changed, make_baselines, make_snapshot
from tests.journey import Done, call, prepare, run_arguments

OPTIONS = {"train_samples": 48, "epochs": 1}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_distilbert: Path) -> tuple[Path, Done, Done]:
    """A study of two trials, run without baselines and then with those of the paper: its folder and both runs."""
    folder = prepare(tmp_path_factory.mktemp("compared"))
    first = call(folder, *run_arguments(tiny_distilbert, 2, **OPTIONS))
    second = call(folder, *run_arguments(tiny_distilbert, 2, **OPTIONS, baselines="paper"))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    return folder, first, second


def test_a_run_without_baselines_names_the_option(compared: tuple[Path, Done, Done]) -> None:
    _, first, second = compared
    lines = first.err.splitlines()
    assert "--baselines rivals" in lines[lines.index("next:") - 1]
    assert "--baselines rivals" not in second.err


def test_each_training_has_a_line_and_each_method_a_row(compared: tuple[Path, Done, Done]) -> None:
    """Nine numbered trainings, more if one did not learn; the table lists the methods below the front."""
    _, _, second = compared
    lines = [line for line in second.err.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in lines] == [f"[{i}/{max(i, 9)}" for i in range(1, len(lines) + 1)]
    assert "BitFit, rate 4.0e-04" in lines[6]
    assert "MiB" in lines[6]
    for title in ("full fine-tuning", "FAR r=10 %", "BitFit"):
        assert any(line.strip().startswith(title) for line in second.out.splitlines()), title


def test_repeating_the_command_trains_nothing(compared: tuple[Path, Done, Done], tiny_distilbert: Path) -> None:
    folder, _, second = compared
    again = call(folder, *run_arguments(tiny_distilbert, 2, **OPTIONS, baselines="paper"))
    assert again.code == 0
    assert not [line for line in again.err.splitlines() if line.startswith("[")]
    assert again.out == second.out


def test_pareto_and_show_list_the_baselines(compared: tuple[Path, Done, Done]) -> None:
    """Baselines do not count as trials of the study."""
    folder, _, _ = compared
    data = call(folder, "pareto", "--json").json
    assert [row["baseline"]["method"] for row in data["baselines"]] == ["full", "far10", "bitfit"]
    assert all(set(row) > {"metric", "dev_metric", "peak_memory_mib", "wall_time_s"} for row in data["baselines"])
    assert call(folder, "show", "--json").json["baselines"] == data["baselines"]
    assert "BitFit" in call(folder, "pareto").out
    assert len(call(folder, "trials", "--json").json["trials"]) == 2
    assert call(folder, "status", "--json").json["complete"] == 2


def test_every_command_says_what_was_won(compared: tuple[Path, Done, Done]) -> None:
    """``run`` with its last words, ``pareto`` and ``status`` likewise, and MLflow in the description of the study."""
    folder, _, second = compared
    sentences = call(folder, "status", "--json").json["won"]
    assert any("full fine-tuning" in sentence for sentence in sentences)
    assert second.err.splitlines()[-len(sentences) :] == sentences
    assert call(folder, "pareto").out.splitlines()[-len(sentences) :] == sentences
    assert set(sentences) <= {line.strip() for line in call(folder, "status").out.splitlines()}
    database = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=database)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`farsearch.role` = 'study' AND run_name = 'tiny'")
    assert all(sentence in parent.data.tags["mlflow.note.content"] for sentence in sentences)
    assert "accuracy_percent" in parent.data.metrics


def test_baselines_are_an_auxiliary_study_that_is_not_listed(compared: tuple[Path, Done, Done]) -> None:
    """Its name gives access to each training, but not to a bundle."""
    folder, _, _ = compared
    assert [study["name"] for study in call(folder, "studies", "list", "--json").json["studies"]] == ["tiny"]
    assert len(call(folder, "trials", "tiny/baselines", "--json").json["trials"]) >= 9
    shown = call(folder, "show", "tiny/baselines", "--trial", 8).out
    assert "BitFit" in shown
    assert "1.00e-03" in shown
    refused = call(folder, "export", "tiny/baselines", "--trial", 8, "--out", "bundle")
    assert refused.code == 2
    assert "is a baseline, whose weights are not stored" in refused.err
    assert call(folder, "sync").out.count("runs made") == 2


def test_an_unknown_choice_of_baselines_is_refused(tmp_path: Path, tiny_distilbert: Path) -> None:
    done = call(prepare(tmp_path), *run_arguments(tiny_distilbert, 2, baselines="some"))
    assert done.code == 2
    assert "'some'" in done.err
    assert "rivals, all, paper, none, or some of full, far10" in done.err


def test_progress_reports_stopped_and_infeasible_trainings() -> None:
    """A repeated warning of the mirror is printed once."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    progress = SiblingProgress(console, "baselines", "accuracy", lambda _snapshot: "MLflow is away")
    snapshot, (full, lora) = make_snapshot(), make_baselines()
    progress.note("from the cache")
    progress.training_ended(changed(full, feasible=False), snapshot)
    progress.training_ended(changed(lora, state="pruned", reason="the loss is nan"), snapshot)
    text = out.getvalue()
    assert "from the cache" in text
    assert "(does not fit)" in text
    assert "stopped: the loss is nan" in text
    assert text.count("MLflow is away") == 1


def test_no_baseline_is_trained_where_nothing_fits(tmp_path: Path, tiny_distilbert: Path) -> None:
    """The search would end without a trial."""
    done = call(prepare(tmp_path), *run_arguments(tiny_distilbert, 2, baselines="paper", max_memory=1))
    assert done.code == 3
    assert not [line for line in done.err.splitlines() if line.startswith("[")]
