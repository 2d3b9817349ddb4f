"""Renamed studies: content, invalid names, and a kill at any line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution

from farsearch.errors import BadInput
from farsearch.study.liveness import Worker
from farsearch.study.names import check_new_name, usable_name
from farsearch.study.renaming import rename_study
from farsearch.study.store import Store
from tests.factories import make_settings

META = {"metric": "accuracy", "budget_mib": 2000.0}
SPACE: dict[str, BaseDistribution] = {"rate": FloatDistribution(0.0, 1.0)}

# Optuna expects heartbeats in its own loop only.
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


def _nothing() -> None:
    """Replace the mirror for a study that is not in MLflow."""


def _open(store: Store, name: str = "old", trials: int = 3) -> optuna.Study:
    """Return a study with trials, an auxiliary study with one trial, and a file in its folder."""
    study = store.open(name, make_settings(), META)
    for i in range(trials):
        study.tell(study.ask(SPACE), [0.1 * i, 100.0, 10.0])
    auxiliary = store.open_auxiliary(study, "baselines")
    auxiliary.tell(auxiliary.ask(SPACE), [0.5, 100.0, 10.0])
    saved = store.folder(name) / "trials" / "0000" / "trained.safetensors"
    saved.parent.mkdir(parents=True)
    saved.write_text("tensors")
    return study


def _held(store: Store, name: str) -> list[object]:
    """Return the complete content of a study."""
    study, auxiliary = store.load(name), store.auxiliary(name, "baselines")
    assert auxiliary is not None
    attrs = {key: value for key, value in study.user_attrs.items() if key != "renaming"}
    trials = [(t.number, t.state, t.values, t.params, t.datetime_complete) for t in study.trials]
    file = store.folder(name) / "trials" / "0000" / "trained.safetensors"
    return [attrs, trials, [t.values for t in auxiliary.trials], file.read_text()]


def test_renamed_study_retains_its_content(storage: str | None, tmp_path: Path) -> None:
    """Settings, trials, auxiliary studies and files are moved; the old name is free, and the search can continue."""
    store = Store(tmp_path, storage)
    study = _open(store)
    study.enqueue_trial({"rate": 0.3})
    before = _held(store, "old")
    rename_study(store, "old", "new", _nothing)
    fresh = Store(tmp_path, storage)
    assert sorted(fresh.all_names()) == ["new", "new/baselines"]
    assert _held(fresh, "new") == before
    assert not store.folder("old").exists()
    again = fresh.open("new", make_settings(), META)
    assert again.ask(SPACE).params == {"rate": 0.3}
    rename_study(fresh, "new", "newer", _nothing)
    assert Store(tmp_path, storage).names() == ["newer"]


def test_name_in_use_is_refused(tmp_path: Path) -> None:
    """Neither another study nor files of another study are overwritten."""
    store = Store(tmp_path)
    _open(store, "old")
    _open(store, "other")
    (store.folder("left") / "trials").mkdir(parents=True)
    for new, message in (
        ("other", "the study 'other' exists"),
        ("left", "exists and belongs to no study"),
        ("OTHER", "only in case"),
        ("a/b", "is not usable"),
    ):
        with pytest.raises(BadInput, match=message):
            rename_study(store, "old", new, _nothing)
    assert sorted(store.names()) == ["old", "other"]


def test_study_with_a_running_worker_is_not_renamed(tmp_path: Path) -> None:
    """The worker would continue to write to the old name."""
    store = Store(tmp_path)
    study = _open(store)
    worker = Worker(store.folder("old"), study)
    with pytest.raises(BadInput, match="a worker is at work on the study 'old'"):
        rename_study(store, "old", "new", _nothing)
    worker.close()
    rename_study(store, "old", "new", _nothing)


def test_interrupted_rename_is_resumed_with_the_same_name(tmp_path: Path) -> None:
    """After an error of MLflow the same command continues, and another name is rejected."""
    store = Store(tmp_path)
    _open(store)

    def fail() -> None:
        raise BadInput("MLflow is away")

    with pytest.raises(BadInput, match="MLflow is away"):
        rename_study(store, "old", "new", fail)
    with pytest.raises(BadInput, match="finish it first: farsearch studies rename old new"):
        rename_study(store, "old", "else", _nothing)
    rename_study(store, "old", "new", _nothing)
    assert store.names() == ["new"]


KILLS = """
    import os, shutil, sys
    from pathlib import Path
    from farsearch.study import renaming
    from farsearch.study.store import Store
    from tests.study.test_study_renaming import _held, _nothing, _open

    home = Path(sys.argv[1])
    _open(Store(home / "first"), trials=2)
    before = _held(Store(home / "first"), "old")

    def killed(folder, line):
        # Whether a child that is killed at this line of the module, counted as they run, was killed.
        child = os.fork()
        if not child:
            left = [line]
            def trace(frame, event, _):
                if frame.f_code.co_filename != renaming.__file__:
                    return None
                if event == "line":
                    left[0] -= 1
                    if left[0] < 0:
                        os.kill(os.getpid(), 9)
                return trace
            sys.settrace(trace)
            renaming.rename_study(Store(folder), "old", "new", _nothing)
            os._exit(0)
        return os.waitpid(child, 0)[1] == 9

    line = 0
    while True:
        folder = shutil.copytree(home / "first", home / str(line))
        if not killed(folder, line):
            break
        store = Store(folder)
        if "old" in store.names():
            renaming.rename_study(store, "old", "new", _nothing)
        store = Store(folder)
        assert sorted(store.all_names()) == ["new", "new/baselines"], line
        assert _held(store, "new") == before, line
        assert not store.folder("old").exists(), line
        line += 1
    print(line)
"""


@pytest.mark.slow
def test_rename_killed_at_any_line_is_completed_by_the_same_command(tmp_path: Path) -> None:
    """Send SIGKILL before each line of the renaming."""
    command = [sys.executable, "-c", textwrap.dedent(KILLS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60


@pytest.mark.parametrize("name", ["con", "NUL.txt", "com1", "trailing."])
def test_names_of_windows_devices_are_refused(name: str) -> None:
    """A project may be copied to such a machine."""
    with pytest.raises(BadInput, match="not usable on Windows"):
        check_new_name(name, [])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sst2-minilm-jetson-nano-default", "sst2-minilm-jetson-nano-default"),
        ("sst2-owner/model-local-default", "sst2-owner-model-local-default"),
        ("отзывы-minilm-local-default", "otzyvy-minilm-local-default"),
        ("отзыву-minilm-local-default", "otzyvu-minilm-local-default"),
        ("Щука, ёж и чай-minilm", "Shchuka--ezh-i-chai-minilm"),
        ("Відгуки її", "Vidguki-ii"),
        ("Größe-crème_brûlée", "Grosse-creme_brulee"),
        ("κριτικές", "kritikes"),
        ("日本", ""),
        ("日本-minilm-local-default", "minilm-local-default-"),
        ("中文-minilm-local-default", "minilm-local-default-"),
        ("x" * 300, "x" * 191 + "-"),
        ("con", "con-"),
    ],
)
def test_default_names_are_valid_and_unique(text: str, name: str) -> None:
    """A valid name is not changed; letters of other alphabets become Latin; what is left invalid gets a hash."""
    made = usable_name(text)
    assert made.startswith(name)
    check_new_name(made, [])
    assert made != usable_name(text + "!")
