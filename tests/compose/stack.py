"""The services of ``docker-compose.yml`` as processes of this machine: the file's commands and environment, no Docker.

This module does the work of Docker: it substitutes variables of ``.env``, replaces names of services by 127.0.0.1 and
a free port and volumes by folders, and limits the environment of a process to that of its service.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.services import Postgres, free_port

__all__ = ["ROOT", "VARIABLE", "Stack", "compose_file", "env_example"]

ROOT = Path(__file__).parents[2]

VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::([-?])([^}]*))?\})")
"""A variable in the file, with its default or the message where it is missing."""

_PATIENCE_S = 300


def env_example() -> dict[str, str]:
    """Return the variables of ``.env.example``, with their values."""
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def compose_file(env: Mapping[str, str]) -> Any:
    """Return ``docker-compose.yml`` with substituted variables.

    Raises:
        KeyError: for a missing variable without a default.
    """

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if name is None:
            return "$"
        given = env.get(name, "")
        if not given and kind == "?":
            raise KeyError(f"{name}: {rest}")
        return given or (rest or "")

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(child) for key, child in node.items()}
        if isinstance(node, list):
            return [filled(child) for child in node]
        return VARIABLE.sub(value, node) if isinstance(node, str) else node

    return filled(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8")))


def _image_entrypoint() -> list[str]:
    """Return the entry point of the Dockerfile's image."""
    line = next(line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("ENTRYPOINT"))
    words: list[str] = yaml.safe_load(line.removeprefix("ENTRYPOINT"))
    return words


@dataclass
class Stack:
    """The services, started one by one.

    Args:
        folder: for volumes and logs.
        env: contents of ``.env``.
    """

    folder: Path
    env: Mapping[str, str]
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = compose_file(self.env)
        self.postgres: Postgres | None = None
        self.mlflow_port = free_port()
        self.dashboard_port = free_port()
        self.volumes = {"/studies": self.folder / "work", "/artifacts": self.folder / "artifacts"}
        self.logs, self.nowhere = self.folder / "logs", self.folder / "read-only"
        for folder in (*self.volumes.values(), self.logs, self.nowhere):
            folder.mkdir(parents=True)

    def start_postgres(self) -> None:
        """Initialise the database as PostgreSQL's image does at its first start, with the service's environment."""
        environment = self.file["services"]["postgres"]["environment"]
        assert environment["POSTGRES_USER"] == "farsearch"
        self.postgres = Postgres(environment["POSTGRES_PASSWORD"])
        self.postgres.fresh_database(environment["POSTGRES_DB"])

    def here(self, word: str) -> str:
        """Translate an argument or an environment value to this machine."""
        assert self.postgres is not None
        word = word.replace("postgres:5432", f"127.0.0.1:{self.postgres.port}")
        word = re.sub(r"(mlflow|127\.0\.0\.1):5000", f"127.0.0.1:{self.mlflow_port}", word)
        word = re.sub(r"127\.0\.0\.1:8080", f"127.0.0.1:{self.dashboard_port}", word)
        word = word.replace("--port=5000", f"--port={self.mlflow_port}")
        word = word.replace("--port=8080", f"--port={self.dashboard_port}").replace("0.0.0.0", "127.0.0.1")
        for inside, folder in {**self.volumes, "/data": self.env["FARSEARCH_DATA"]}.items():
            word = re.sub(rf"(?<![\w/.]){inside}\b", str(folder), word)
        return word

    def command(self, name: str, *words: str) -> list[str]:
        """Return the command line of a service, or that of ``docker compose run`` with other arguments."""
        service = self.file["services"][name]
        given = list(words) or service.get("command", [])
        entrypoint = [] if service["image"].startswith("postgres") else service.get("entrypoint") or _image_entrypoint()
        return [self.here(word) for word in (*entrypoint, *given)]

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a service, and the path of its programs."""
        assert self.postgres is not None
        given = self.file["services"][name].get("environment", {})
        found = {key: self.here(str(value)) for key, value in given.items()}
        if found.get("PGHOST") == "postgres":
            found |= {"PGHOST": "127.0.0.1", "PGPORT": str(self.postgres.port)}
        path = (sysconfig.get_path("scripts"), str(Path(sys.executable).parent), str(self.postgres.programs))
        return {"PATH": os.pathsep.join((*path, os.environ["PATH"])), "MPLCONFIGDIR": str(self.logs / "mpl"), **found}

    def start(self, name: str, *words: str, log: str | None = None) -> subprocess.Popen[bytes]:
        """Start a service, optionally with other arguments than those of the file."""
        volumes = [volume.split(":")[1] for volume in self.file["services"][name].get("volumes", [])]
        folder = self.volumes["/studies"] if "/studies" in volumes else self.nowhere
        with (self.logs / f"{log or name}.log").open("ab") as output:
            process = subprocess.Popen(
                self.command(name, *words), cwd=folder, env=self.environment(name), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def run(self, name: str, *words: str, log: str | None = None) -> int:
        """Run a service until it ends. Return its exit code."""
        return self.start(name, *words, log=log).wait(timeout=_PATIENCE_S)

    def healthy(self, name: str) -> None:
        """Wait until the service's own health check succeeds."""
        assert self.postgres is not None
        kind, *test = self.file["services"][name]["healthcheck"]["test"]
        assert kind == "CMD"
        words = [self.here(word) for word in test]
        environment = {**self.environment(name), "PGPORT": str(self.postgres.port)}
        deadline = time.monotonic() + _PATIENCE_S
        while subprocess.run(words, env=environment, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, f"{shlex.join(words)}: {self.said()}"
            time.sleep(0.5)

    def said(self) -> str:
        """Return all logs, including the database's."""
        assert self.postgres is not None
        return "\n".join(path.read_text(errors="replace") for path in (*self.logs.glob("*.log"), self.postgres.log))

    def processes(self) -> Iterator[psutil.Process]:
        """Yield all running processes of the services."""
        assert self.postgres is not None
        for pid in (self.postgres.pid, *(process.pid for process in self._processes)):
            with contextlib.suppress(psutil.NoSuchProcess):
                first = psutil.Process(pid)
                yield from (first, *first.children(recursive=True))

    def stop(self) -> None:
        """Stop all services."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        if self.postgres is not None:
            self.postgres.remove()
