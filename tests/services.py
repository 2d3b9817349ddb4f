"""Real services for tests, created and removed by them: PostgreSQL, MLflow, Chromium, a disk of a few MiB.

Services that are already running are not used. If a machine can't run a service, the test is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = [
    "MlflowServer",
    "Postgres",
    "SmallDisk",
    "browser",
    "free_port",
    "mlflow_server",
    "own_postgres",
    "postgres",
    "small_disk",
    "storage",
]

_START_S = 180
"""Timeout in seconds for a service to start, on a busy machine."""

_DISK_MIB = 3


def free_port() -> int:
    """Return a free port of 127.0.0.1.

    It is outside of the range that the kernel assigns to outgoing connections, so it stays free while the service is
    stopped.
    """
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's newest server programs, which are not on Debian's path."""
    on_path = shutil.which("initdb")
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda name: float(Path(name).parent.name))
    found = [Path(folder) for folder in folders if (Path(folder) / "initdb").exists()]
    return found[-1] if found else None if on_path is None else Path(on_path).resolve().parent


def _other_user() -> dict[str, Any]:
    """Return options of ``subprocess`` for another user than root, because PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    import pwd  # Windows has none, and no test there needs the server

    names = {entry.pw_name for entry in pwd.getpwall()}
    account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class Postgres:
    """A throw-away PostgreSQL cluster on a free port of 127.0.0.1.

    Args:
        password: of the user ``farsearch``; by default none is required.

    Attributes:
        port: the port of the server.
        password: of the user; to be updated if it changes.
        programs: folder of PostgreSQL's own programs.
        url: the latest fresh database, as ``--storage`` takes it, without a password.
    """

    def __init__(self, password: str | None = None) -> None:
        programs = _postgres_programs()
        if programs is None:
            pytest.skip("PostgreSQL is not installed: there is no initdb on the path or in /usr/lib/postgresql")
        if importlib.util.find_spec("psycopg") is None:
            pytest.skip("psycopg, the driver of PostgreSQL, is not installed")
        self.programs, self.port, self._databases = programs, free_port(), 0
        self._options: dict[str, Any] = _other_user()
        self.password = password or "none"
        # pytest's folder is readable only by its owner; and a socket's path has at most 107 characters
        self._folder = Path(tempfile.mkdtemp(prefix="farsearch-pg-"))
        if self._options:
            os.chown(self._folder, self._options["user"], self._options["group"])
        # removes it at the end of its stdin, so also if this process is killed
        stop = f'cat; "{programs}/pg_ctl" stop --pgdata data --mode immediate; rm -r "{self._folder}"'
        self._guard = subprocess.Popen(
            ["sh", "-c", stop], cwd=self._folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, **self._options,
        )  # fmt: skip
        with tempfile.NamedTemporaryFile("w", suffix=".password") as file:
            file.write(self.password)
            file.flush()
            if self._options:
                os.chown(file.name, self._options["user"], self._options["group"])
            auth = "trust" if password is None else "scram-sha-256"
            self._call("initdb", "--pgdata", "data", "--username", "farsearch", "--auth", auth, "--pwfile", file.name,
                       "--no-sync", "--encoding", "UTF8", "--locale", "C")  # fmt: skip
        self.start()
        self.url = self.fresh_database()

    def _call(self, program: str, *arguments: str) -> None:
        log = self._folder / f"{program}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [self.programs / program, *arguments],
                cwd=self._folder, env={**os.environ, "PGPASSWORD": self.password}, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, **self._options,
            )  # fmt: skip
        assert done.returncode == 0, log.read_text()

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it answers."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self._folder,
            "fsync": "off",  # the machine does not crash in tests
        }
        words = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._call("pg_ctl", "start", "--pgdata", "data", "--log", "server.log", "--options", words, "--wait",
                   "--timeout", str(_START_S))  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: ``immediate`` drops all connections and recovers at the next start, ``fast`` shuts down cleanly."""
        self._call("pg_ctl", "stop", "--pgdata", "data", "--mode", mode, "--wait", "--timeout", str(_START_S))

    def fresh_database(self, name: str | None = None) -> str:
        """Return the URL of a new, empty database, and set ``url`` to it."""
        self._databases += 1
        name = name or f"study_{self._databases}"
        self._call("createdb", "--host", "127.0.0.1", "--port", str(self.port), "--username", "farsearch", name)
        self.url = f"postgresql://farsearch@127.0.0.1:{self.port}/{name}"
        return self.url

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._folder / "server.log"

    @property
    def pid(self) -> int:
        """Id of the server's first process."""
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def remove(self) -> None:
        """Stop it if it is running, and remove its files."""
        self._guard.communicate()


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Postgres]:
    cluster = Postgres()
    yield cluster
    cluster.remove()


@pytest.fixture
def postgres(_cluster: Postgres) -> Postgres:
    """The session's cluster with a fresh database for this test. Do not stop it."""
    _cluster.fresh_database()
    return _cluster


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A cluster for this test, which may stop it."""
    cluster = Postgres()
    yield cluster
    cluster.remove()


@pytest.fixture(params=["journal", pytest.param("postgresql", marks=pytest.mark.service)])
def storage(request: pytest.FixtureRequest) -> str | None:
    """Yield the value of ``--storage`` for each storage; None is the journal in the working directory."""
    return None if request.param == "journal" else str(request.getfixturevalue("postgres").url)


@dataclass
class MlflowServer:
    """MLflow's own server, with database and proxied artifacts in ``folder``."""

    folder: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """The value of ``--tracking-uri``."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it answers."""
        from farsearch.tracking.connection import UI_ENVIRONMENT, ui_command

        command = ui_command(f"sqlite:///{self.folder}/server.db", self.port)
        log_file = self.folder / "server.log"
        with log_file.open("a") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env={**os.environ, **UI_ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            assert self._process.poll() is None, log_file.read_text()
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it and its child processes."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A running MLflow server for one test."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow-server"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class SmallDisk:
    """A file system of three MiB in memory, mounted in a namespace of its own.

    Attributes:
        folder: its path for processes in the namespace.
        seen: its path for all others.
        enter: prefix of a command line, which runs the command in ``folder`` within the namespace.
    """

    folder: Path
    seen: Path
    enter: tuple[str, ...]

    def fill(self, leave: int) -> Path:
        """Fill it except for ``leave`` bytes. Return the file."""
        free = os.statvfs(self.seen)
        ballast = self.seen / "ballast"
        ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - leave))
        return ballast


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small disk. It is removed with the process that holds its namespace."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("unshare or nsenter, with which a test gets a disk of its own, is not installed")
    mount = f"mount -t tmpfs -o size={_DISK_MIB}m tmpfs {folder} && echo ready && exec sleep infinity"
    # root can mount in a mount namespace; other users must be root in a user namespace first
    for user in ((), ("--user",)):
        mapped = ("--map-root-user",) if user else ()
        command = ["unshare", "--mount", *user, *mapped, "sh", "-c", mount]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as holder:
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                continue
            credentials = ("--preserve-credentials",) if user else ()
            change = ("sh", "-c", 'cd "$0" && exec "$@"', str(folder))
            enter = ("nsenter", "--target", str(holder.pid), "--mount", *user, *credentials, *change)
            yield SmallDisk(folder, Path(f"/proc/{holder.pid}/root{folder}"), enter)
            holder.kill()
            return
    pytest.skip("this system lets this user mount nothing")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        # Chromium has no sandbox for root; the pages are our own
        found = driver.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield found
        found.close()
