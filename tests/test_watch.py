"""The page that follows a search: its answers, and studies that change, end or vanish meanwhile."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from farsearch.api.watch import WatchServer
from farsearch.api.workspace import Workspace
from farsearch.errors import BadInput, MissingResource
from farsearch.records import AnyTrial, flat, trial_to_dict
from farsearch.report.watch import Progress, progress_html
from farsearch.study.activity import recorded
from farsearch.study.store import Store
from tests.factories import make_settings, make_trial

META = {"metric": "accuracy", "budget_mib": 2200.0, "command": "farsearch run --study seen"}


def _study(folder: Path, url: str | None = None) -> Study:
    """Return a new study of three trials, of which none has begun."""
    study = Store(folder, url).open("seen", make_settings(), META)
    study.set_user_attr("n_trials", 3)
    return study


def _add(study: Study, record: AnyTrial) -> None:
    trial = flat(record)
    complete = trial.state == "complete"
    values = [float(value or 0.0) for value in (trial.metric, trial.peak_memory_mib, trial.wall_time_s)]
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE if complete else TrialState.RUNNING,
            values=values if complete else None,
            user_attrs={"record": trial_to_dict(record)},
        )
    )


@contextmanager
def _watched(folder: Path, url: str | None = None) -> Iterator[str]:
    """Serve the study ``seen``, and yield the page's address."""
    with WatchServer(Workspace(folder, url), "seen", "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def _read(address: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
        return str(answer.read().decode())


def _refusal(address: str, **headers: str) -> int:
    """Return the status of a request that is refused."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        _read(address, **headers)
    refused.value.close()
    return refused.value.code


def _state(address: str) -> tuple[str, int]:
    state: dict[str, Any] = json.loads(_read(f"{address}state"))
    return state["progress"], state["version"]


def test_the_page_follows_a_study_from_its_first_trial_to_the_last(tmp_path: Path, storage: str | None) -> None:
    study = _study(tmp_path, storage)
    with _watched(tmp_path, storage) as address:
        page = _read(address)
        assert page.startswith("<!DOCTYPE html>")
        assert "No complete trial yet" in page
        progress, first = _state(address)
        assert "0 of 3 trials are done" in progress
        assert "farsearch run --study seen" in progress
        _add(study, make_trial(0, None, 1000.0, 200.0, state="running"))
        with recorded(tmp_path / "studies" / "seen", "trial 0", lambda *_: None, number=0, epochs=2.0) as on_step:
            on_step(10, 10, 0.5)
            progress, version = _state(address)
        assert all(text in progress for text in ("trial 0", "evaluating", "2.00 of 2", "0.500"))
        assert version == first
        for number in (1, 2, 3):
            _add(study, make_trial(number, 0.8 + number / 100, 1000.0 + number, 200.0))
        progress, version = _state(address)
        assert "3 of 3 trials are done" in progress
        assert version > first
        assert "trial 3" in _read(f"{address}report")


def test_a_running_trial_of_another_machine_is_named(tmp_path: Path) -> None:
    study = _study(tmp_path)
    _add(study, make_trial(0, None, 1000.0, 200.0, state="running"))
    with _watched(tmp_path) as address:
        assert "not on this machine" in _state(address)[0]


def test_a_storage_that_goes_away_is_a_message_until_it_is_back(tmp_path: Path) -> None:
    _add(_study(tmp_path), make_trial(0, 0.8, 1000.0, 200.0))
    journal = tmp_path / "studies.journal"
    with _watched(tmp_path) as address:
        _, version = _state(address)
        shutil.copy(journal, tmp_path / "copy")
        journal.unlink()
        progress, same = _state(address)
        assert "can&#39;t be read now" in progress
        assert "1 of 3" in progress
        assert same == version
        assert "80.0" in _read(f"{address}report")
        shutil.move(tmp_path / "copy", journal)
        assert "can&#39;t be read" not in _state(address)[0]


def test_a_later_study_of_the_same_name_is_read_from_its_begin(tmp_path: Path) -> None:
    _add(_study(tmp_path), make_trial(0, 0.8, 1000.0, 200.0))
    with _watched(tmp_path) as address:
        assert "1 of 3" in _state(address)[0]
        Store(tmp_path).delete("seen")
        assert "is not in" in _state(address)[0] or "there is no study" in _state(address)[0]
        _study(tmp_path)
        assert "0 of 3" in _state(address)[0]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:5080", ""])
def test_requests_to_a_foreign_name_are_refused(tmp_path: Path, host: str) -> None:
    """A page of another site could otherwise read the study, under a name of its own for this machine."""
    _study(tmp_path)
    with _watched(tmp_path) as address:
        assert _refusal(f"{address}state", Host=host) == 421
        assert "0 of 3" in _read(f"{address}state", Host="localhost:1234")


def test_other_paths_are_not_found(tmp_path: Path) -> None:
    _study(tmp_path)
    with _watched(tmp_path) as address:
        assert _refusal(f"{address}../../etc/passwd") == 404


def test_texts_of_a_study_are_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    html = progress_html(Progress(evil, 0, 1, evil, evil, evil, [{evil: evil}], [{evil: evil}]))
    assert "<img" not in html


def test_a_port_in_use_and_an_unknown_study_are_refused(tmp_path: Path) -> None:
    _study(tmp_path)
    with _watched(tmp_path) as address, pytest.raises(MissingResource, match="another `port`"):
        WatchServer(Workspace(tmp_path), "seen", "127.0.0.1", int(address.rsplit(":", 1)[1].strip("/")))
    with pytest.raises(BadInput):
        WatchServer(Workspace(tmp_path), "unseen", "127.0.0.1", 0)
