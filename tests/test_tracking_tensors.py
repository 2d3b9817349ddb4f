"""Saved tensors on an MLflow server: upload from one host, checks, and export on another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from farsearch.api.mirror import LiveMirror, open_mirror
from farsearch.records import CompleteTrial, StudySnapshot, flat
from farsearch.study.retention import FILES, LEARNERS, LOGITS, TRAINED, near_front, trial_files
from farsearch.study.store import Store
from farsearch.tracking import open_tracking
from farsearch.tracking.content import TAG_TENSORS
from farsearch.tracking.runs import find_parents, find_trial
from tests.factories import changed, make_trial
from tests.journey import Done, call, chdir, prepare, read_study, run_arguments
from tests.services import MlflowServer, Postgres

STUDY = Path(".farsearch/studies/tiny")


@dataclass
class Team:
    """A host that trained the study ``tiny``, another one with only its journal, and the server of both."""

    server: MlflowServer
    trained: Path
    other: Path

    def __post_init__(self) -> None:
        self.snapshot = read_study(self.trained)
        near = near_front(self.snapshot.trials)
        self.kept = [trial for trial in self.snapshot.complete if near(trial)]
        self.primed = next(trial for trial in self.kept if trial.outcome.priming.steps)

    @property
    def tracking(self) -> tuple[str, str]:
        """The option with the server's address."""
        return "--tracking-uri", self.server.uri

    @property
    def client(self) -> MlflowClient:
        """A client of the server."""
        return MlflowClient(self.server.uri)

    def run(self, number: int) -> Run:
        """Return the run of a trial."""
        experiment = self.client.get_experiment_by_name("tiny")
        assert experiment is not None
        return find_trial(self.client, experiment.experiment_id, "tiny", number)[0]

    def parent(self) -> Run:
        """Return the study's own run."""
        experiment = self.client.get_experiment_by_name("tiny")
        assert experiment is not None
        return find_parents(self.client, experiment.experiment_id, "tiny")[0]

    def on_server(self, run: Run, folder: str) -> Path:
        """Return the path of an artifact folder of a run on the server."""
        place = str(run.info.artifact_uri).removeprefix("mlflow-artifacts:/")
        return self.server.folder / "mlartifacts" / place / folder

    def manifest(self, number: int) -> Any:
        """Return the manifest in the tag of a trial's run."""
        return json.loads(self.run(number).data.tags[TAG_TENSORS])

    def upload(self, snapshot: StudySnapshot | None = None) -> Any:
        """Mirror the study and its tensors from the host that trained it."""
        tracker, snapshot = open_tracking(self.server.uri), snapshot or self.snapshot
        tracker.sync(snapshot)
        return tracker.upload_tensors(snapshot, self.trained / STUDY)

    def export(self, number: int, out: str = "bundle") -> Done:
        """Export a trial on the other host."""
        return call(self.other, "export", "--trial", number, "--out", out, *self.tracking)

    def fetched(self) -> set[str]:
        """Return files of trials on the other host, including incomplete downloads."""
        folder = self.other / STUDY
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} - {"turn.lock"}


def _other_host(folder: Path, trained: Path) -> Path:
    """Return a working directory with access to the study, as from a shared database, and no other files of it."""
    (folder / ".farsearch").mkdir(parents=True)
    shutil.copy(trained / ".farsearch/studies.journal", folder / ".farsearch")
    return folder


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory, finished_study: Path) -> MlflowServer:
    """A stopped server after a sync of the finished study, which was trained without it."""
    server = MlflowServer(tmp_path_factory.mktemp("synced"))
    try:
        server.start()
        done = call(finished_study, "sync", "--tracking-uri", server.uri)
        assert done.code == 0, done.err
        assert "tensors of its trials: 0 uploaded" not in done.out
    finally:
        server.stop()
    return server


@pytest.fixture
def team(synced: MlflowServer, finished_study: Path, tmp_path: Path) -> Iterator[Team]:
    """Two hosts and a server with the tensors. A test may change all of them."""
    # the same port, because MLflow's client caches the addresses of artifacts
    server = MlflowServer(Path(shutil.copytree(synced.folder, tmp_path / "server")), synced.port)
    trained = Path(shutil.copytree(finished_study, tmp_path / "trained"))
    try:
        server.start()
        yield Team(server, trained, _other_host(tmp_path / "other", trained))
    finally:
        server.stop()


def _weights(bundle: Path) -> dict[str, str]:
    """Return digests of a bundle's weights."""
    files = [*bundle.rglob("*.safetensors")]
    assert files
    return {str(file.relative_to(bundle)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.service
def test_another_host_exports_the_same_bundle(team: Team) -> None:
    """Weights are equal bit by bit, with and without priming; a second export downloads nothing."""
    plain = next(trial for trial in team.kept if not trial.outcome.priming.steps)
    for trial in (plain, team.primed):
        number = trial.number
        here = call(team.trained, "export", "--trial", number, "--out", f"bundle-{number}")
        assert here.code == 0, here.err
        there = team.export(number, f"bundle-{number}")
        assert there.code == 0, there.err
        told = [line for line in there.err.splitlines() if f"fetching the tensors of trial {number} from http" in line]
        assert len(told) == 1
        assert _weights(team.other / f"bundle-{number}") == _weights(team.trained / f"bundle-{number}")
        assert "fetching" not in team.export(number, f"again-{number}").err
    team.server.stop()
    assert team.export(plain.number, "without-a-server").code == 0
    assert not [name for name in team.fetched() if ".fetching" in name]


@pytest.mark.service
def test_the_server_has_only_trials_near_the_front(team: Team) -> None:
    """Three files of each, and each priming once, as in the manifest."""
    assert {trial.number for trial in team.snapshot.complete} > {trial.number for trial in team.kept}
    primings = set()
    for trial in team.snapshot.trials:
        folder = team.on_server(team.run(trial.number), "tensors")
        if trial not in team.kept:
            assert not folder.exists()
            assert TAG_TENSORS not in team.run(trial.number).data.tags
            continue
        manifest = team.manifest(trial.number)
        assert {path.name for path in folder.iterdir()} == set(FILES)
        for name, file in manifest["files"].items():
            data = (folder / name).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["size"])
        assert json.loads((folder / LEARNERS).read_text())["metric"] == manifest["metric"] == flat(trial).metric
        primings |= {manifest["priming"]["sha256"]} if manifest["priming"] else set()
    assert primings
    held = team.on_server(team.parent(), "primings")
    assert {path.name for path in held.iterdir()} == {f"{sha256}.safetensors" for sha256 in primings}
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in held.iterdir()} == primings
    result = team.upload()
    assert (result.uploaded, result.held, result.removed) == (0, len(team.kept), 0)


@pytest.mark.service
def test_tensors_of_trials_that_leave_the_front_are_deleted(team: Team) -> None:
    """Their runs remain."""
    best = max(team.snapshot.complete, key=lambda trial: trial.outcome.metric)
    winner = changed(best, number=99, metric=1.0, metric_error=0.0, peak_memory_mib=1.0, wall_time_s=1.0)
    trials = [changed(trial, on_front=False) for trial in team.snapshot.trials]
    result = team.upload(dataclasses.replace(team.snapshot, trials=(*trials, winner)))
    assert (result.uploaded, result.removed) == (0, len(team.kept))
    for trial in team.kept:
        run = team.run(trial.number)
        assert TAG_TENSORS not in run.data.tags
        assert not team.on_server(run, "tensors").exists()
    primings = team.on_server(team.parent(), "primings")
    assert not primings.exists() or not list(primings.iterdir())


@pytest.mark.service
def test_damaged_artifacts_are_refused(team: Team) -> None:
    """The line names the file, and nothing is copied into the study's folder."""
    number = team.primed.number
    tensors, primings = (team.on_server(team.run(number), "tensors"), team.on_server(team.parent(), "primings"))
    sha256 = team.manifest(number)["priming"]["sha256"]
    for path in (*(tensors / name for name in FILES), primings / f"{sha256}.safetensors"):
        whole = path.read_bytes()
        flipped = bytes([*whole[:-1], whole[-1] ^ 1])
        for damage in (flipped, whole[: len(whole) // 2], None):
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            done = team.export(number)
            assert done.code == 5, (path.name, done)
            line = done.err.splitlines()[-1]
            assert path.name in line
            assert ("is missing" if damage is None else "is damaged") in line
            assert not (team.other / "bundle").exists()
            # only predictions may have been copied, if they were intact
            assert not [name for name in team.fetched() if TRAINED in name or "primings" in name or ".fetching" in name]
        path.write_bytes(whole)
    assert team.export(number).code == 0


@pytest.mark.service
def test_invalid_manifests_are_ignored(team: Team) -> None:
    """With other names, addresses or versions; the learners can't refer to another file either."""
    number = team.primed.number
    run, manifest = team.run(number), team.manifest(number)
    files = manifest["files"]
    wrong = [
        "uploading",
        "[]",
        json.dumps({**manifest, "schema_version": 2}),
        json.dumps({**manifest, "metric": 0.125}),
        json.dumps({**manifest, "files": {**files, "../../../escaped": files[TRAINED]}}),
        json.dumps({**manifest, "files": {name: files[name] for name in (TRAINED, LOGITS)}}),
        json.dumps({**manifest, "priming_run": "../../x"}),
        json.dumps({**manifest, "priming": {**manifest["priming"], "sha256": "../" * 21 + "x"}}),
    ]
    for text in wrong:
        team.client.set_tag(run.info.run_id, TAG_TENSORS, text)
        done = team.export(number)
        assert done.code == 5, text
        assert done.err.count("farsearch: ") == 1
        assert f"trial {number} are neither on this host nor at {team.server.uri}" in done.err
        assert f"farsearch sync tiny --tracking-uri {team.server.uri}" in done.err
    learners = team.on_server(run, "tensors") / LEARNERS
    notes = {**json.loads(learners.read_text()), "primed": "../../../../secret.safetensors"}
    for text in (json.dumps(notes), "[]", "no JSON"):
        learners.write_text(text)
        said = {"sha256": hashlib.sha256(learners.read_bytes()).hexdigest(), "size": learners.stat().st_size}
        team.client.set_tag(run.info.run_id, TAG_TENSORS, json.dumps({**manifest, "files": {**files, LEARNERS: said}}))
        done = team.export(number)
        assert (done.code, "names another priming" in done.err) == (5, True), done.err
        assert not [name for name in team.fetched() if TRAINED in name]


@pytest.mark.service
def test_the_next_upload_repairs_incomplete_and_deleted_runs(team: Team) -> None:
    """A deleted run is still used until a new one has its tensors."""
    number = team.primed.number
    run = team.run(number)
    team.client.set_tag(run.info.run_id, TAG_TENSORS, "uploading")
    (team.on_server(run, "tensors") / TRAINED).unlink()
    assert team.upload().uploaded == 1
    assert team.export(number, "mended").code == 0
    shutil.rmtree(team.other / STUDY)
    team.client.delete_run(run.info.run_id)
    assert team.export(number, "deleted").code == 0
    assert team.upload().uploaded == 1
    assert team.run(number).info.run_id != run.info.run_id
    assert team.manifest(number)["metric"] == team.primed.outcome.metric


@pytest.mark.service
def test_choices_are_paired_on_another_host(team: Team) -> None:
    """``show --select`` prints the same there; without the server it reports the reason and continues."""
    words = ("show", "--select", "--trial", 3)
    here = call(team.trained, *words)
    assert "paired" in here.out
    away = call(team.other, *words)
    assert (away.code, away.err) == (0, "")
    assert "paired" not in away.out
    team.server.stop()
    gone = call(team.other, *words, *team.tracking)
    assert (gone.code, gone.out) == (0, away.out)
    assert len(gone.err.splitlines()) == 1
    assert "does not answer" in gone.err
    assert team.export(team.primed.number).code == 5
    team.server.start()
    there = call(team.other, *words, *team.tracking)
    assert (there.code, there.out) == (0, here.out)
    assert len(there.err.splitlines()) == 1
    assert {Path(name).name for name in team.fetched() if Path(name).suffix == ".safetensors"} == {LOGITS}


@pytest.mark.service
def test_an_unreachable_server_only_delays_uploads(team: Team) -> None:
    """The mirror reports it, and its next call uploads the missing files."""
    number = team.primed.number
    store = Store(team.trained / ".farsearch")
    mirror: LiveMirror = open_mirror(Console(quiet=True), store, team.server.uri)
    run = team.run(number)
    shutil.rmtree(team.on_server(run, "tensors"))
    team.client.delete_tag(run.info.run_id, TAG_TENSORS)
    team.server.stop()
    warning = mirror(team.snapshot)
    assert warning is not None
    assert "farsearch sync catches up" in warning
    team.server.start()
    assert mirror(team.snapshot) is None
    assert team.manifest(number)["metric"] == team.primed.outcome.metric


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_team_trains_on_one_host_and_exports_on_another(
    tmp_path: Path, tiny_bert: Path, postgres: Postgres, mlflow_server: MlflowServer
) -> None:
    """A search starts on one host, with PostgreSQL and a server, and a worker on another host completes it.

    Every host can export every trial of the front, even a third one that has only the two addresses.
    """
    hosts = [prepare(tmp_path / name) for name in ("first", "second")]
    where = ("--storage", postgres.url, "--tracking-uri", mlflow_server.uri)
    done = call(hosts[0], *run_arguments(tiny_bert, 4), *where, "--timeout", "1")
    assert done.code == 0, done.err
    done = call(hosts[1], "worker", "tiny", *where)
    assert done.code == 0, done.err
    third = tmp_path / "third"
    third.mkdir()
    front = read_study(third, postgres.url).front
    mine = {int(path.parent.name) for path in (hosts[0] / STUDY).glob(f"trials/*/{TRAINED}")}
    assert mine
    assert {trial.number for trial in front} - mine
    for folder in (*hosts, third):
        for trial in front:
            done = call(folder, "export", "--trial", trial.number, "--out", f"b{trial.number}", *where)
            assert done.code == 0, done.err
    for trial in front:
        made = [_weights(folder / f"b{trial.number}") for folder in (*hosts, third)]
        assert made[0] == made[1] == made[2]


def test_a_local_database_has_no_tensors(finished_study: Path, tmp_path: Path) -> None:
    """Nothing is uploaded; a host without the tensors reports that they are missing."""
    snapshot = read_study(finished_study)
    with chdir(finished_study):
        tracker = open_tracking("sqlite:///mlflow.db")
        assert tracker.upload_tensors(snapshot, STUDY) is None
        assert not any(TAG_TENSORS in held["tags"] for held in tracker.trials("tiny").values())
    assert not list(finished_study.glob("mlartifacts/**/tensors"))
    other = _other_host(tmp_path / "other", finished_study)
    done = call(other, "export", "--out", "bundle")
    assert done.code == 5
    assert "are gone" in done.err
    assert not (other / "mlflow.db").exists()


def test_only_complete_files_of_the_trial_are_uploaded(finished_study: Path, tmp_path: Path) -> None:
    """Not truncated ones, nor those of another study of that name."""
    snapshot = read_study(finished_study)
    near = near_front(snapshot.trials)
    trial = next(t for t in snapshot.complete if near(t) and t.outcome.priming.steps)
    found = trial_files(finished_study / STUDY, trial)
    assert found is not None
    assert found.priming is not None
    assert trial_files(finished_study / STUDY, changed(trial, metric=0.125)) is None
    for i, name in enumerate([*(found.folder / file for file in FILES), found.priming]):
        for half in (True, False):
            copy = Path(shutil.copytree(finished_study / STUDY, tmp_path / f"{i}-{half}"))
            path = copy / name.relative_to(finished_study / STUDY)
            data = path.read_bytes()
            path.unlink()
            if half:
                path.write_bytes(data[: len(data) // 2])
            assert trial_files(copy, trial) is None, (name, half)
    for primed in ("../0001.safetensors", "/etc/x.safetensors", ".hidden.safetensors", "x.pt", 3):
        copy = Path(shutil.copytree(finished_study / STUDY, tmp_path / f"primed-{hash(primed)}"))
        learners = copy / found.folder.relative_to(finished_study / STUDY) / LEARNERS
        learners.write_text(json.dumps({**found.notes, "primed": primed}))
        assert trial_files(copy, trial) is None


def _trials(draw: st.DataObject, count: int) -> list[CompleteTrial]:
    """Draw complete trials with frequently equal objectives."""
    value = st.integers(1, 6)
    made = [
        make_trial(i, draw.draw(value) / 10, float(draw.draw(value)), float(draw.draw(value))) for i in range(count)
    ]
    return [changed(trial, metric_error=draw.draw(value) / 50) for trial in made]


@given(st.data())
def test_a_trial_that_left_the_front_never_returns(data: st.DataObject) -> None:
    """Whatever trials follow, so its tensors can be deleted."""
    trials = _trials(data, data.draw(st.integers(1, 12)))
    left: set[int] = set()
    for count in range(1, len(trials) + 1):
        near = near_front(trials[:count])
        far = {trial.number for trial in trials[:count] if not near(trial)}
        assert left <= far
        left = far
