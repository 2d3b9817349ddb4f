"""farsearch without what Windows and macOS lack. Types per system are checked by ``make check``."""

from __future__ import annotations

import builtins
import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from farsearch.files import link_or_copy
from farsearch.runtime import memory
from farsearch.signals import Terminated, catching, terminate_self
from tests.journey import finished, prepare, read_study, run_arguments

ROOT = Path(__file__).parents[1]


def _run(program: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_search_runs_without_the_modules_of_posix(tiny_bert: Path, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "work")
    arguments = run_arguments(tiny_bert, 2, train_samples=64)
    done = _run(["-m", "tests.foreign_system", *arguments], folder)
    assert done.returncode == 0, done.stderr
    assert len(finished(read_study(folder))) == 2


def test_what_is_hidden_is_hidden_from_farsearch_alone(tmp_path: Path) -> None:
    program = """
from tests.foreign_system import hide
hide()
import fcntl, os, pwd, resource, signal
print(signal.SIGKILL.value, os.getuid() >= 0)
for line in ("import fcntl", "import pwd", "import resource", "import signal; signal.SIGKILL", "import os; os.getuid"):
    try:
        exec(line, {"__name__": "farsearch.some"})
    except (ModuleNotFoundError, AttributeError) as error:
        print(type(error).__name__)
"""
    printed = _run(["-c", program], tmp_path).stdout.split()
    assert printed == ["9", "True", *["ModuleNotFoundError"] * 3, *["AttributeError"] * 2]


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide /proc from the module that measures memory, as on macOS and Windows."""

    def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return builtins.open(path, *arguments, **options)

    monkeypatch.setattr(memory, "open", refuse, raising=False)


@pytest.mark.usefixtures("no_proc")
def test_memory_is_measured_without_proc() -> None:
    before = memory.resident_mib()
    held = np.frombuffer(mmap.mmap(-1, 64 * 2**20))  # not from what earlier tests have freed
    held.fill(1.0)
    after = memory.resident_mib()
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(held.nbytes / memory.MIB, abs=8.0)
    assert memory.host_peak_mib() >= 0.99 * after
    available = memory.host_available_mib()
    assert available is not None
    assert 0.0 < available < psutil.virtual_memory().total / memory.MIB + after


@pytest.mark.usefixtures("no_proc")
def test_memory_is_unknown_without_proc_and_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert memory.resident_mib() is None
    assert memory.host_available_mib() is None


def test_a_thread_terminates_the_command() -> None:
    thread = threading.Thread(target=terminate_self)

    def wait() -> None:
        thread.start()
        threading.Event().wait(30.0)

    with catching(), pytest.raises(Terminated):
        wait()
    thread.join()


@pytest.mark.parametrize("permitted", [True, False])
def test_a_file_gets_another_name(permitted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise OSError("a required privilege is not held by the client")

    if not permitted:
        monkeypatch.setattr(os, "symlink", refuse)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_bytes(b"tensors")
    link_or_copy(tmp_path / "folder", tmp_path / "other")
    link_or_copy(tmp_path / "other" / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"tensors"
