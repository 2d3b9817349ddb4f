"""``farsearch run --baselines``: what it trains and says, and where it is found again."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from farsearch.api.progress import SiblingProgress
from tests.factories import make_baselines, make_snapshot
from tests.journey import Done, call, prepare, run_arguments

OPTIONS = {"train_samples": 48, "epochs": 1}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_distilbert: Path) -> tuple[Path, Done, Done]:
    """A study of two trials, first without baselines and then with those of the paper: folder and both runs."""
    folder = prepare(tmp_path_factory.mktemp("compared"))
    first = call(folder, *run_arguments(tiny_distilbert, 2, **OPTIONS))
    second = call(folder, *run_arguments(tiny_distilbert, 2, **OPTIONS, baselines="paper"))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    return folder, first, second


def test_a_run_without_baselines_says_how_to_get_them(compared: tuple[Path, Done, Done]) -> None:
    """One line before the next commands names the option; a run that has some does not."""
    _, first, second = compared
    lines = first.err.splitlines()
    assert "--baselines all" in lines[lines.index("next:") - 1]
    assert "--baselines all" not in second.err


def test_each_training_has_a_line_and_each_method_a_row(compared: tuple[Path, Done, Done]) -> None:
    """Nine trainings, numbered, and more where none learned; the table has the front and below it three names."""
    _, _, second = compared
    lines = [line for line in second.err.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in lines] == [f"[{i}/{max(i, 9)}" for i in range(1, len(lines) + 1)]
    assert "BitFit, rate 4.0e-04" in lines[6]
    assert "MiB" in lines[6]
    for title in ("full fine-tuning", "FAR r=10 %", "BitFit"):
        assert any(line.strip().startswith(title) for line in second.out.splitlines()), title


def test_the_same_again_trains_nothing(compared: tuple[Path, Done, Done], tiny_distilbert: Path) -> None:
    """Neither a trial nor a baseline, and the same table."""
    folder, _, second = compared
    again = call(folder, *run_arguments(tiny_distilbert, 2, **OPTIONS, baselines="paper"))
    assert again.code == 0
    assert not [line for line in again.err.splitlines() if line.startswith("[")]
    assert again.out == second.out


def test_reading_shows_them_beside_the_front(compared: tuple[Path, Done, Done]) -> None:
    """``pareto`` and ``show`` have them in words and JSON; the study itself keeps its two trials."""
    folder, _, _ = compared
    data = call(folder, "pareto", "--json").json
    assert [row["baseline"]["method"] for row in data["baselines"]] == ["full", "far10", "bitfit"]
    assert all(set(row) > {"metric", "dev_metric", "peak_memory_mib", "wall_time_s"} for row in data["baselines"])
    assert call(folder, "show", "--json").json["baselines"] == data["baselines"]
    assert "BitFit" in call(folder, "pareto").out
    assert len(call(folder, "trials", "--json").json["trials"]) == 2
    assert call(folder, "status", "--json").json["complete"] == 2


def test_the_sibling_is_found_by_its_name_alone(compared: tuple[Path, Done, Done]) -> None:
    """It is in no list; asked for by name it shows every training, and gives no bundle."""
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


def test_a_wrong_choice_is_refused(tmp_path: Path, tiny_distilbert: Path) -> None:
    """By name, with those that there are."""
    done = call(prepare(tmp_path), *run_arguments(tiny_distilbert, 2, baselines="some"))
    assert done.code == 2
    assert "'some'" in done.err
    assert "'all', 'paper', 'none'" in done.err


def test_progress_tells_what_was_stopped_and_what_does_not_fit() -> None:
    """A line says why a training has no result, or that the device has no room for it; a warning comes once."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    progress = SiblingProgress(console, "baselines", "accuracy", lambda _snapshot: "MLflow is away")
    snapshot, (full, lora) = make_snapshot(), make_baselines()
    progress.note("from the cache")
    progress.training_ended(dataclasses.replace(full, feasible=False), snapshot)
    progress.training_ended(dataclasses.replace(lora, state="pruned", reason="the loss is nan"), snapshot)
    text = out.getvalue()
    assert "from the cache" in text
    assert "(does not fit)" in text
    assert "stopped: the loss is nan" in text
    assert text.count("MLflow is away") == 1
