"""Snapshots of a study as plain records, read once or repeatedly, from a journal or a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from farsearch.errors import MissingResource
from farsearch.records import AnyTrial, flat, read_trial, trial_to_dict
from farsearch.study.read_only import ReadingStore
from farsearch.study.snapshot import SnapshotReader, snapshot_of
from farsearch.study.store import Store
from tests.factories import make_settings, make_trial

META = {"metric": "accuracy", "budget_mib": 2200.0}


def _study(folder: Path, url: str | None = None) -> Study:
    return Store(folder, url).open("shown", make_settings(), META)


def _add(study: Study, record: AnyTrial, state: TrialState = TrialState.COMPLETE, **attrs: Any) -> None:
    values = [flat(record).metric, flat(record).peak_memory_mib, flat(record).wall_time_s]
    study.add_trial(
        create_trial(
            state=state,
            values=[float(value or 0.0) for value in values] if state == TrialState.COMPLETE else None,
            user_attrs={"record": trial_to_dict(record), **attrs},
        )
    )


def _fill(study: Study) -> None:
    """Add two complete trials, one of them on the front, and a stopped, a failed and a running one."""
    _add(study, make_trial(0, 0.80, 1000.0, 200.0), rejected={"memory": 3})
    _add(study, make_trial(1, 0.79, 1300.0, 260.0), rejected={"memory": 1, "duplicate": 2})
    _add(study, make_trial(2, None, 900.0, 190.0, state="pruned"), TrialState.PRUNED)
    _add(study, make_trial(3, 0.9, 900.0, 190.0), TrialState.FAIL, reason="its process was killed")
    running = make_trial(4, None, 900.0, 190.0, state="running")
    _add(study, running, TrialState.RUNNING, rejected={"memory": 5})


def test_reader_gets_the_same_snapshot(tmp_path: Path, storage: str | None) -> None:
    """The read-only snapshot equals the one made of everything that Optuna holds."""
    study = _study(tmp_path, storage)
    _fill(study)
    complete = SnapshotReader(study).read()
    assert snapshot_of(ReadingStore(tmp_path, storage).load("shown")) == complete
    assert [flat(trial).state for trial in complete.trials] == ["complete", "complete", "pruned", "fail", "running"]
    assert [trial.number for trial in complete.front] == [0]
    assert complete.rejected == {"memory": 9, "duplicate": 2}
    assert flat(complete.trials[3]).reason == "its process was killed"


def test_reader_gets_later_entries(tmp_path: Path) -> None:
    """A journal opened for reading continues at its last position, and skips an incomplete line."""
    study = _study(tmp_path)
    store = ReadingStore(tmp_path)
    loaded = store.load("shown")
    assert snapshot_of(loaded).trials == ()
    _fill(study)
    assert snapshot_of(loaded) == snapshot_of(study)
    with (tmp_path / "studies.journal").open("a") as file:
        file.write('{"op_code":4,')
    assert len(snapshot_of(loaded).trials) == 5


def test_damaged_journal_is_reported_in_one_line(tmp_path: Path) -> None:
    """A reader rejects a damaged entry as a search does."""
    (tmp_path / "studies.journal").write_text("this is no journal\n")
    with pytest.raises(MissingResource, match="is damaged"):
        ReadingStore(tmp_path).load()


def test_repeated_reads_parse_only_new_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished trials are the same objects the next time, except those that entered or left the front."""
    study = _study(tmp_path)
    _fill(study)
    reader = SnapshotReader(study)
    first = reader.read()
    _add(study, make_trial(5, 0.85, 900.0, 190.0), rejected={"duplicate": 1})
    parsed: list[int] = []

    def counted(data: dict[str, Any]) -> AnyTrial:
        parsed.append(data["number"])
        return read_trial(data)

    monkeypatch.setattr("farsearch.study.snapshot.read_trial", counted)
    second = reader.read()
    monkeypatch.undo()
    assert parsed == [4, 5]
    assert second == snapshot_of(study)
    assert [trial.number for trial in second.front] == [5]
    assert all(second.trials[number] is first.trials[number] for number in (1, 2, 3))
    assert not flat(second.trials[0]).on_front
    assert reader.read().trials[0] is second.trials[0]
    assert second.rejected == {"memory": 9, "duplicate": 3}
