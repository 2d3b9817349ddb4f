"""Processes that load a model or a task from a hub, with their imports already done.

Importing torch, transformers and datasets dominates the run time of such a process. Here one process imports them and
forks for each client, so that a client starts in a fraction of a second, without earlier requests or cached files.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

__all__ = ["Clients", "Done"]

_ROOT = Path(__file__).parents[2]
_LIMIT_S = 60.0


@dataclass(frozen=True)
class Done:
    """The result of a client.

    Attributes:
        code: exit status; None if it was killed because it did not end.
        ended_s: end time by ``time.monotonic``.
    """

    code: int | None
    out: str
    err: str
    ended_s: float


class Clients:
    """Starts clients of a hub, one after the other."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        path = os.pathsep.join([str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.hub.clients import serve; serve()"],
            env={**environment, "PYTHONPATH": path},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, client: str, *arguments: str, **environment: str) -> Done:
        """Run a client (``model`` with a name and a revision, or ``data`` with a task), and wait for its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([client, arguments, environment]) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        return Done(code, out, err, time.monotonic())

    def close(self) -> None:
        """End the process that forks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def serve() -> None:
    """Fork a client for each line of stdin, and write its result."""
    import farsearch.tasks.from_hub  # noqa: F401
    from tests.hub.model_files import model_files

    with tempfile.TemporaryDirectory() as folder:
        for name, content in model_files("bert-base-uncased").items():
            Path(folder, name).write_bytes(content)
        _model(folder, "")  # imports what a model needs, without requests to a hub
    for line in sys.stdin:
        client, arguments, environment = json.loads(line)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            pid = os.fork()
            if not pid:
                _be(client, arguments, environment, out, err)
            code = _wait(pid)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
        print(json.dumps([code, *texts]), flush=True)


def _wait(pid: int) -> int | None:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _be(client: str, arguments: list[str], environment: dict[str, str], out: IO[str], err: IO[str]) -> NoReturn:
    """Become a client, and exit as a command does."""
    from farsearch.errors import FarsearchError

    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.environ.update(environment)
    code = 0
    try:
        print(_model(*arguments) if client == "model" else _data(*arguments))
    except FarsearchError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _model(name: str, revision: str) -> str:
    """Load tokenizer and weights; return the commit, some tokens and a hash of the weights."""
    from farsearch.models.heads import Head
    from farsearch.models.load import load_model
    from farsearch.models.source import resolve_model
    from farsearch.models.tokenizer import load_tokenizer

    source = resolve_model(name, revision=revision or None)
    tokenizer = load_tokenizer(source)
    model: Any = load_model(source, Head(), ("negative", "positive"), seed=0)[0]
    weights = hashlib.sha256()
    for part, tensor in sorted(model.base_model.state_dict().items()):
        weights.update(part.encode() + tensor.numpy().tobytes())
    return f"{source.commit} {tokenizer('A warm and clever story').input_ids} {weights.hexdigest()}"


def _data(task: str) -> str:
    """Load the rows of a task; return their fingerprint."""
    from farsearch.tasks.load import load_task

    return load_task(task).fingerprint
