"""Project folders of earlier versions: studies, saved tensors, caches, MLflow's database and a calibrated profile.

``0.1.0`` was made by the release of that name, ``0.1.0-later`` by a later commit, whose prices have
today's version.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import farsearch
from farsearch.bundle.read import read_bundle
from farsearch.devices.profile import read_profile
from farsearch.records import Completed
from farsearch.tracking import open_tracking
from tests.journey import call, chdir, read_study, run_arguments

PROJECTS = Path(__file__).parent / "assets" / "projects-0.1.tar.xz"
VERSIONS = ("0.1.0", "0.1.0-later")


@pytest.fixture
def projects(tmp_path: Path) -> Path:
    """The unpacked folders. Their studies name this place as that of the model, as if they had been made here."""
    with tarfile.open(PROJECTS) as file:
        file.extractall(tmp_path, filter="data")
    for version in VERSIONS:
        journal = tmp_path / version / ".farsearch" / "studies.journal"
        journal.write_text(journal.read_text().replace(f"/tmp/farsearch-{version}/", f"{tmp_path / version}/"))
    return tmp_path


@pytest.mark.parametrize("version", VERSIONS)
def test_a_study_is_opened_and_exported(projects: Path, version: str) -> None:
    folder = projects / version
    snapshot = read_study(folder)
    assert [type(trial.outcome) for trial in snapshot.trials] == [Completed] * 4
    with chdir(folder):
        study = farsearch.open_study("tiny")
        assert len(study.trials_dataframe()) == 4
    done = call(folder, "export", "tiny", "--prefer", "knee", "--out", "again")
    assert done.code == 0, done.err
    assert read_bundle(folder / "again").trial.config in {trial.config for trial in study.front}


def test_a_study_with_todays_prices_is_continued(projects: Path) -> None:
    folder = projects / "0.1.0-later"
    before = read_study(folder)
    done = call(folder, *run_arguments(Path("model"), 5, train_samples=128))
    assert done.code == 0, done.err
    after = read_study(folder)
    assert len(after.complete) == 5
    assert [t.outcome for t in after.trials[:4]] == [t.outcome for t in before.trials]


def test_a_study_with_other_prices_is_not_continued(projects: Path) -> None:
    folder = projects / "0.1.0"
    before = read_study(folder)
    assert call(folder, *run_arguments(Path("model"), 5, train_samples=128)).code == 4
    assert read_study(folder).trials == before.trials


def test_a_new_study_uses_the_old_caches(projects: Path) -> None:
    """Entries of another version are computed again, without an error."""
    done = call(
        projects / "0.1.0", *run_arguments(Path("model"), 1, train_samples=128, study="new", baselines="paper"),
        "--set", "priming_epochs=0.5",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(read_study(projects / "0.1.0", name="new").complete) == 1


def test_a_measurement_is_imported(projects: Path) -> None:
    folder = projects / "0.1.0"
    done = call(folder, "sync", "tiny", "--measurement", "measurement.json")
    assert done.code == 0, done.err
    snapshot = read_study(folder)
    assert len(snapshot.measurements) == 1
    with chdir(folder):
        assert open_tracking("sqlite:///mlflow.db").differences(snapshot) == []


def test_a_calibrated_profile_prices_a_model(projects: Path) -> None:
    folder = projects / "0.1.0"
    assert read_profile(folder / "my-board.toml").basis == "calibrated"
    done = call(folder, "estimate", "--model", "model", "--device", "my-board.toml", "--json")
    assert done.code == 0, done.err
    assert done.json["fits"]
