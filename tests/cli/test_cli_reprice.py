"""``farsearch reprice``: a study copied to another device, without training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from optuna.study import Study

from tests.journey import call, run_arguments

OTHER = "raspberry-pi-4"


@pytest.fixture(scope="module")
def repriced(tmp_path_factory: pytest.TempPathFactory, finished_study: Path) -> Path:
    """A folder with the study ``tiny`` for a Jetson Nano, and its copy ``other`` for a Raspberry Pi 4."""
    folder = Path(shutil.copytree(finished_study, tmp_path_factory.mktemp("repriced") / "work"))
    done = call(folder, "reprice", "tiny", "--device", OTHER, "--name", "other")
    assert done.code == 0, done.err
    assert f"9 trained trials of tiny, priced for {OTHER}" in done.out
    return folder


def _trials(folder: Path, study: str) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = call(folder, "trials", study, "--json").json["trials"]
    return trials


def test_results_stay_and_costs_are_those_of_the_device(repriced: Path) -> None:
    """A Raspberry Pi's process is smaller than a Jetson's with CUDA."""
    for before, after in zip(_trials(repriced, "tiny"), _trials(repriced, "other"), strict=True):
        same = ("number", "state", "metric", "dev_metric", "config")
        assert {name: before[name] for name in same} == {name: after[name] for name in same}
        if before["state"] == "complete":
            assert after["peak_memory_mib"] < before["peak_memory_mib"]
            assert after["wall_time_s"] != before["wall_time_s"]


def test_a_copy_of_the_copy_has_the_first_costs(repriced: Path) -> None:
    """But for the rounding of sums."""
    assert call(repriced, "reprice", "other", "--device", "jetson-nano", "--name", "back").code == 0
    costs = ("peak_memory_mib", "wall_time_s", "energy_j")
    for back, first in zip(_trials(repriced, "back"), _trials(repriced, "tiny"), strict=True):
        assert [back.pop(name) for name in costs] == pytest.approx([first.pop(name) for name in costs], rel=1e-12)
        assert back == first


def test_a_trial_of_the_copy_is_exported_for_its_device(repriced: Path, tmp_path: Path) -> None:
    number = next(trial["number"] for trial in _trials(repriced, "tiny") if trial["on_front"])
    done = call(repriced, "export", "other", "--trial", number, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "b" / "far.json").read_text())["settings"]["device"] == OTHER


def test_an_interrupted_copy_is_continued(
    finished_study: Path, repriced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(finished_study, tmp_path / "work"))
    words = ("reprice", "tiny", "--device", OTHER, "--name", "other")
    add = Study.add_trial
    added: list[None] = []

    def interrupted(study: Study, trial: Any) -> None:
        if len(added) == 4:
            raise KeyboardInterrupt
        add(study, trial)
        added.append(None)

    with monkeypatch.context() as patch:
        patch.setattr(Study, "add_trial", interrupted)
        assert call(folder, *words).code == 130
    assert len(_trials(folder, "other")) == 4
    assert call(folder, *words).code == 0
    assert _trials(folder, "other") == _trials(repriced, "other")


def test_new_trials_are_added_to_the_copy(repriced: Path, tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(repriced, tmp_path / "work"))
    before = _trials(folder, "other")
    assert call(folder, *run_arguments(tiny_bert, 10)).code == 0
    assert call(folder, "reprice", "tiny", "--device", OTHER, "--name", "other").code == 0
    after = _trials(folder, "other")
    assert [trial["config"] for trial in after] == [trial["config"] for trial in _trials(folder, "tiny")]
    marked = {"on_front": None}
    assert [trial | marked for trial in after[:-1]] == [trial | marked for trial in before]


def test_no_other_study_is_overwritten(repriced: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """Neither a study that is no copy, nor a copy whose search was continued."""
    folder = Path(shutil.copytree(repriced, tmp_path / "work"))
    done = call(folder, *run_arguments(tiny_bert, 10, device=OTHER, study="other"))
    assert done.code == 0, done.err
    assert len(_trials(folder, "tiny")) == 9
    for name, rule in (("tiny", "the study 'tiny' exists"), ("other", "the copy 'other' has been searched further")):
        done = call(folder, "reprice", "tiny", "--device", OTHER, "--name", name)
        assert (done.code, done.out) == (2, "")
        assert rule in done.err
    assert len(_trials(folder, "other")) == 10


def test_a_run_for_two_devices_trains_once(
    finished_study: Path, repriced: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """The study is finished, so nothing is trained; the second device has a study of its own."""
    folder = Path(shutil.copytree(finished_study, tmp_path / "work"))
    words = [*run_arguments(tiny_bert, 9), "--device", OTHER]
    for _ in range(2):
        done = call(folder, *words)
        assert done.code == 0, done.err
    assert _trials(folder, f"tiny-{OTHER}") == _trials(repriced, "other")
    assert _trials(folder, "tiny") == _trials(repriced, "tiny")
    twice = call(folder, *words, "--device", OTHER)
    assert (twice.code, twice.out) == (2, "")
    assert f"--device '{OTHER}' is given twice" in twice.err


@pytest.mark.slow
def test_a_board_that_torch_does_not_fit_gets_plans_without_torch(repriced: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(repriced, tmp_path / "work"))
    done = call(folder, "reprice", "tiny", "--device", "raspberry-pi-zero-2-w", "--name", "zero")
    assert done.code == 0, done.err
    trials = [trial for trial in _trials(folder, "zero") if trial["state"] == "complete"]
    assert {trial["plan"]["engine"] for trial in trials} == {"onnx"}
    assert all(trial["feasible"] for trial in trials)


@pytest.mark.slow
def test_baselines_are_priced_without_training(tmp_path: Path, finished_study: Path, tiny_bert: Path) -> None:
    folder = Path(shutil.copytree(finished_study, tmp_path / "work"))
    assert call(folder, *run_arguments(tiny_bert, 9, baselines="paper")).code == 0
    done = call(folder, "reprice", "tiny", "--device", OTHER, "--name", "other", "--json")
    before, after = call(folder, "pareto", "tiny", "--json").json["baselines"], done.json["baselines"]
    assert [row["metric"] for row in after] == [row["metric"] for row in before]
    assert all(row["peak_memory_mib"] != other["peak_memory_mib"] for row, other in zip(after, before, strict=True))
    assert len(_trials(folder, "other/baselines")) == len(_trials(folder, "tiny/baselines"))
