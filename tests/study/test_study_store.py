"""The store of studies: names, fixed settings, and a journal that survives kills."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from farsearch.errors import BadInput, MissingResource, StudyMismatch
from farsearch.records import StudySettings
from farsearch.study.journal import open_journal
from farsearch.study.read_only import ReadingStore
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import StorageAway, Store, storage_errors
from tests.factories import make_settings

META = {"metric": "accuracy", "budget_mib": 2000.0}
SPACE: dict[str, BaseDistribution] = {"rate": FloatDistribution(0.0, 1.0)}


def open_study(home: Path, name: str = "s", **changes: Any) -> optuna.Study:
    """Open a study with the factory's settings in a new store, as a new process does."""
    return Store(home).open(name, make_settings(**changes), META)


def test_studies_are_loaded_by_name_and_the_latest_by_default(tmp_path: Path) -> None:
    """Names are in order of use, and resuming a study makes it the latest."""
    for name in ("first", "second", "first"):
        open_study(tmp_path, name)
    store = Store(tmp_path)
    assert store.names() == ["second", "first"]
    assert store.load().study_name == "first"
    assert store.load("second").study_name == "second"


def test_a_reader_gets_the_latest_study_that_has_trials(tmp_path: Path) -> None:
    """Not one whose search was refused, which has a failed trial, or has not begun."""
    open_study(tmp_path, "first").tell(open_study(tmp_path, "first").ask(SPACE), state=TrialState.PRUNED)
    open_study(tmp_path, "new")
    refused = open_study(tmp_path, "refused")
    refused.tell(refused.ask(SPACE), state=TrialState.FAIL)
    assert Store(tmp_path).load().study_name == "refused"
    assert ReadingStore(tmp_path).load().study_name == "first"
    assert ReadingStore(tmp_path).load("new").study_name == "new"


def test_a_reader_gets_the_latest_study_where_none_has_trials(tmp_path: Path) -> None:
    for name in ("first", "second"):
        open_study(tmp_path, name)
    assert ReadingStore(tmp_path).load().study_name == "second"


def test_listing_studies_creates_nothing(tmp_path: Path) -> None:
    """A read-only command does not change a folder without studies, and explains how to create one."""
    store = Store(tmp_path / ".farsearch")
    assert store.names() == []
    with pytest.raises(BadInput, match=r"no study in .*studies\.journal; make one with: farsearch run"):
        store.load()
    assert not list(tmp_path.iterdir())


def test_unknown_study_is_reported_with_the_closest_name(tmp_path: Path) -> None:
    open_study(tmp_path, "sst2-minilm")
    with pytest.raises(BadInput, match=r"'sst2-minlm' is not in .*; did you mean 'sst2-minilm'\?"):
        Store(tmp_path).load("sst2-minlm")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "ü"])
def test_name_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    """A study has a folder of its name, so the name can't lead elsewhere."""
    with pytest.raises(BadInput, match="is not usable"):
        open_study(tmp_path, name)


def test_too_long_name_is_refused(tmp_path: Path) -> None:
    """The error has the limit, and no study is created."""
    with pytest.raises(BadInput, match="has 300 characters; use at most 200"):
        open_study(tmp_path, "x" * 300)
    assert not list(tmp_path.iterdir())


def test_names_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    """Some file systems have one folder for both."""
    open_study(tmp_path, "demo")
    with pytest.raises(BadInput, match="differs from the study 'demo' only in case"):
        open_study(tmp_path, "Demo")
    assert Store(tmp_path).names() == ["demo"]


def test_same_settings_open_the_same_study(tmp_path: Path) -> None:
    """Opening a study again changes neither its trials nor its settings."""
    study = open_study(tmp_path)
    study.tell(study.ask(SPACE), [0.9, 100.0, 10.0])
    again = open_study(tmp_path)
    assert [trial.values for trial in again.trials] == [[0.9, 100.0, 10.0]]
    assert StudySettings.from_dict(again.user_attrs["settings"]) == make_settings()


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"device": "jetson-tx2"}, ("device: ", "jetson-tx2", "jetson-nano")),
        ({"max_memory_mib": 900.0}, ("max_memory_mib: 900",)),
        ({"job": dataclasses.replace(make_settings().job, seed=2)}, ("job.seed: 2, 1",)),
        ({"space": {"epochs": 2}}, ("space.epochs: 2, 1",)),
        ({"pricing": 2}, ("step plans",)),
    ],
)
def test_different_settings_are_refused_with_their_names(
    tmp_path: Path, changes: dict[str, Any], shown: tuple[str, ...]
) -> None:
    """Opening the study and ``check`` report the differences."""
    open_study(tmp_path)
    for attempt in (
        lambda: open_study(tmp_path, **changes),
        lambda: Store(tmp_path).check("s", make_settings(**changes)),
    ):
        with pytest.raises(StudyMismatch) as caught:
            attempt()
        assert all(word in str(caught.value) for word in shown)
        assert "another name: `study` s-2" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_many_differences_are_abbreviated(tmp_path: Path) -> None:
    """Three are named and the rest counted, so that the line stays readable."""
    open_study(tmp_path)
    job = dataclasses.replace(make_settings().job, seed=2, batch_size=8, max_length=32, model="other")
    with pytest.raises(StudyMismatch, match=r"job\.batch_size.*job\.max_length.*job\.model.*and 1 more"):
        open_study(tmp_path, job=job)


def test_study_without_settings_is_completed(tmp_path: Path) -> None:
    """A kill between creating a study and storing its settings leaves one that the next run completes."""
    optuna.create_study(
        study_name="s", storage=Store(tmp_path).storage, directions=["maximize", "minimize", "minimize"]
    )
    assert Store(tmp_path).names() == []
    assert snapshot_of(open_study(tmp_path)).settings == make_settings()


def test_study_of_another_program_is_ignored(tmp_path: Path) -> None:
    """In a shared storage it is neither listed nor changed."""
    optuna.create_study(study_name="s", storage=Store(tmp_path).storage)
    with pytest.raises(BadInput, match="is no farsearch study; give another `study`"):
        open_study(tmp_path)


def test_deleting_a_study_removes_its_folder(tmp_path: Path) -> None:
    """Trials and tensors are removed, other studies stay."""
    open_study(tmp_path, "a"), open_study(tmp_path, "b")
    store = Store(tmp_path)
    with store.lock("a"):
        pass
    store.delete("a")
    assert Store(tmp_path).names() == ["b"]
    assert not store.folder("a").exists()


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.set_user_attr("schema_version", 99)
    with pytest.raises(BadInput, match=r"schema version 99, this farsearch reads 1"):
        snapshot_of(study)


@pytest.mark.parametrize("cut", [1, 20])
def test_incomplete_last_line_is_repaired(tmp_path: Path, cut: int) -> None:
    """An incomplete entry, after a kill or with a full disk, is removed by the next one; earlier ones stay."""
    study = open_study(tmp_path)
    study.tell(study.ask(SPACE), [0.9, 100.0, 10.0])
    journal = tmp_path / "studies.journal"
    complete = journal.read_bytes()
    half = complete + complete.splitlines(keepends=True)[-1][:-cut]
    journal.write_bytes(half)
    assert len(Store(tmp_path).load("s").trials) == 1
    assert journal.read_bytes() == half, "reading does not repair"
    again = open_study(tmp_path)
    again.tell(again.ask(SPACE), [0.8, 90.0, 9.0])
    assert journal.read_bytes().startswith(complete)
    assert [trial.values for trial in Store(tmp_path).load("s").trials] == [[0.9, 100.0, 10.0], [0.8, 90.0, 9.0]]


def test_incomplete_line_longer_than_a_block_is_repaired(tmp_path: Path) -> None:
    """The repair searches back as far as needed."""
    study = open_study(tmp_path)
    journal = tmp_path / "studies.journal"
    complete = journal.read_bytes()
    journal.write_bytes(complete + b'{"op_code": "' + b"x" * 200_000)
    open_study(tmp_path).set_user_attr("note", "kept")
    assert journal.read_bytes().startswith(complete)
    assert Store(tmp_path).load("s").user_attrs["note"] == "kept"
    assert "note" in study.user_attrs, "a process that had the journal open can still read it"


def test_failed_append_leaves_the_journal_unchanged(tmp_path: Path) -> None:
    """In a process that may write only a few bytes more, an append fails completely, with an error of one line.

    The journal stays readable for others, and writable for the same process.
    """
    open_study(tmp_path)
    journal = tmp_path / "studies.journal"
    size = journal.stat().st_size
    code = f"""
        import resource
        from pathlib import Path
        from farsearch.errors import MissingResource
        from farsearch.study.store import Store, storage_errors
        store = Store(Path({str(tmp_path)!r}))
        study = store.load("s")
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 300}, resource.RLIM_INFINITY))
        try:
            with storage_errors(store.where):
                study.set_user_attr("long", "x" * 1000)
        except MissingResource as error:
            print(error)
        study.set_user_attr("short", 1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=Path.cwd(), capture_output=True, text=True, check=True
    )
    assert "studies.journal can't be written" in done.stdout
    assert set(Store(tmp_path).load("s").user_attrs) >= {"short", "settings"}
    assert "long" not in Store(tmp_path).load("s").user_attrs


@pytest.mark.parametrize("line", [b"not json\n", b"123\n", b"{}\n", b"\xff\xfe\n", b'{"op_code": 99}\n'])
def test_damaged_journal_is_reported_and_not_changed(tmp_path: Path, line: bytes) -> None:
    """A damaged line in the middle is reported with the file and a suggestion."""
    open_study(tmp_path)
    journal = tmp_path / "studies.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    before = journal.read_bytes()
    with pytest.raises(MissingResource, match=r"studies\.journal is damaged .*restore it from a copy") as caught:
        Store(tmp_path).names()
    assert "\n" not in str(caught.value)
    assert journal.read_bytes() == before


def test_folder_at_the_journals_path_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingResource, match="can't be written: Not a directory"):
        open_study(tmp_path / "file" / "below")


def test_unusable_database_is_reported(tmp_path: Path) -> None:
    """A URL of no known kind is invalid input; a database that does not answer is a missing resource."""
    with pytest.raises(BadInput, match=r"--storage nonsense can't be used"):
        Store(tmp_path, "nonsense").names()
    missing = f"sqlite:///{tmp_path}/no/such/folder/x.db"
    with pytest.raises(MissingResource, match="can't be used: unable to open database file"):
        Store(tmp_path, missing).names()


def test_broken_pipe_is_not_reported_as_a_full_disk() -> None:
    with pytest.raises(BrokenPipeError), storage_errors("journal"):
        raise BrokenPipeError


CREATE = """
    import sys
    from pathlib import Path
    from farsearch.study.store import Store
    from tests.factories import make_settings
    sys.stdin.readline()
    study = Store(Path(sys.argv[1])).open("s", make_settings(), {"metric": "accuracy", "budget_mib": 1.0})
    print(study._study_id)
"""


@pytest.mark.parametrize("name", ["what? now", "a%20b", "50 % #1"])
def test_database_file_lies_at_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Relative paths, and absolute ones as SQLAlchemy writes them, are in the folder."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    for address in (
        "sqlite:///relative.db",
        str(sqlalchemy.URL.create("sqlite", database=str(folder / "absolute.db"))),
    ):
        store = Store(tmp_path / "home", address)
        store.open("s", make_settings(), META)
        assert Store(tmp_path / "home", address).names() == ["s"]
    files = [path for path in tmp_path.rglob("*") if path.suffix != ".lock" and path.is_file()]
    assert sorted(files) == [folder / "absolute.db", folder / "relative.db"]


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:"])
def test_database_in_memory_is_refused(tmp_path: Path, address: str) -> None:
    """No other process could read the study, and it would end with this one."""
    with pytest.raises(BadInput, match="keeps the studies in memory"):
        Store(tmp_path, address).names()


@pytest.mark.parametrize(
    ("address", "kind", "reason"),
    [
        ("postgrex://me@host/db", BadInput, "postgrex"),
        ("http://host/db", BadInput, "http"),
        ("mysql://me@host/db", MissingResource, "install its driver"),
    ],
)
def test_database_of_another_kind_is_refused(tmp_path: Path, address: str, kind: type[Exception], reason: str) -> None:
    """A kind unknown to SQLAlchemy is invalid input; a missing driver is a missing resource."""
    with pytest.raises(kind, match=f"--storage {address} can't be used: .*{reason}"):
        Store(tmp_path, address).names()


def test_order_of_studies_does_not_depend_on_clocks(tmp_path: Path) -> None:
    """The latest is the one used last, also after one that an older version marked with a time of day."""
    for name in ("old", "new", "other"):
        open_study(tmp_path, name)
    store = Store(tmp_path)
    assert [store.load(name).user_attrs["touched"] for name in ("old", "new", "other")] == [1, 2, 3]
    store.load("old").set_user_attr("touched", 1.7e9)
    assert store.load().study_name == "old"
    open_study(tmp_path, "new")
    assert Store(tmp_path).names() == ["other", "old", "new"]


def test_metadata_missing_in_an_older_version_is_added(tmp_path: Path) -> None:
    """Opening a study again adds missing entries, and does not change existing ones."""
    open_study(tmp_path)
    study = Store(tmp_path).open("s", make_settings(), {"metric": "other", "options": {"task": "sst2"}})
    assert study.user_attrs["meta"] == {**META, "options": {"task": "sst2"}}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed")), StorageAway),
        (sqlalchemy.exc.DisconnectionError("gone"), StorageAway),
        (sqlalchemy.exc.ProgrammingError("SELECT 1", {}, Exception("permission denied")), MissingResource),
    ],
)
def test_only_transient_errors_are_retried(error: Exception, kind: type[MissingResource]) -> None:
    """A server that does not answer may do so later; one that rejects a request will reject it again.

    The classification is the same for errors wrapped by Optuna.
    """
    text = "does not answer" if kind is StorageAway else "can't be used"

    def refuse(packed: bool) -> None:
        with storage_errors("db"):
            if packed:
                raise optuna.exceptions.StorageInternalError("packed") from error
            raise error

    for packed in (False, True):
        with pytest.raises(MissingResource, match=f"the storage db {text}: ") as caught:
            refuse(packed)
        assert type(caught.value) is kind


def test_two_processes_create_one_study(tmp_path: Path) -> None:
    """Started at the same moment, both get the same complete study."""
    command = [sys.executable, "-c", textwrap.dedent(CREATE), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    printed = [child.communicate(timeout=60)[0].strip() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert printed == ["0", "0"]
    assert Store(tmp_path).names() == ["s"]
    assert len(open_journal(tmp_path / "studies.journal").get_all_studies()) == 1


@pytest.mark.parametrize("database", [False, True], ids=["journal", "database"])
def test_progress_and_last_use_of_a_study(tmp_path: Path, database: bool) -> None:
    """Trials by state and the time of the latest are the same from a journal and from a database's tables."""
    url = f"sqlite:///{tmp_path}/studies.db" if database else None
    study = Store(tmp_path, url).open("s", make_settings(), META)
    study.set_user_attr("n_trials", 9)
    study.add_trial(create_trial(values=[0.5, 900.0, 10.0]))
    study.add_trial(create_trial(state=TrialState.RUNNING))
    (use,) = ReadingStore(tmp_path, url).uses()
    assert (use.name, use.n_trials, use.trained, use.running) == ("s", 9, 1, 1)
    assert use.last_used is not None
    assert abs((use.last_used - datetime.now()).total_seconds()) < 600
