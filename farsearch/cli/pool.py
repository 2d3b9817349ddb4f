"""The worker processes of one run: started, listened to, started again when they are killed, and ended with it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from farsearch.errors import BadInput, FarsearchError, MissingResource, NoFeasibleTrial, StudyMismatch

if TYPE_CHECKING:
    from farsearch.cli.progress import SearchProgress
    from farsearch.records import StudySnapshot

__all__ = ["Pool", "worker_environment"]

_DEATHS = 10
"""Kills of workers in a row, without a trial that ended in between, after which a run gives up."""

_ENDED = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a worker that somebody ended."""

_POLL_S = 0.5

_LEAVE_S = 30.0
"""How long a worker that is asked to end may take to give its trial back."""

_ERRORS: Mapping[int, type[FarsearchError]] = {
    error.exit_code: error for error in (BadInput, NoFeasibleTrial, StudyMismatch, MissingResource)
}


def worker_environment(workers: int, storage: str | None) -> dict[str, str]:
    """The environment of each of ``workers`` processes: its share of the cores, and no password on its command line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": str(max(1, cores // workers)), **os.environ}
    if storage is not None:
        environment["FARSEARCH_STORAGE"] = storage
    return environment


def _program() -> str:
    """What a worker runs. Its path is this process's, in which the working folder is not: ``-m`` would put it there."""
    return f"import sys; sys.path[:] = {sys.path!r}; from farsearch.__main__ import main; main()"


@dataclass
class _Slot:
    """The place of one worker, in which another follows when it is killed.

    Attributes:
        away: the worker gave up because the storage did not answer.
        error: what the worker ended with.
    """

    number: int
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None
    trial: int | None = None
    away: bool = False
    error: FarsearchError | None = None
    complaints: deque[str] = field(default_factory=lambda: deque(maxlen=20))


class Pool:
    """Worker processes that search one study.

    They have their stdin from this process and end when it is gone, however it went.

    Args:
        arguments: of ``farsearch worker``.
        snapshot: reads the study.
        ask: does a step that reads the storage, and waits for a storage that does not answer.
    """

    def __init__(
        self,
        workers: int,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        progress: SearchProgress,
        snapshot: Callable[[], StudySnapshot],
        ask: Callable[[Callable[[], StudySnapshot]], StudySnapshot],
    ) -> None:
        self._slots = [_Slot(number + 1) for number in range(workers)]
        self._arguments, self._environment = list(arguments), dict(environment)
        self._progress, self._snapshot, self._ask = progress, snapshot, ask
        self._events: queue.SimpleQueue[tuple[_Slot, dict[str, Any]]] = queue.SimpleQueue()
        self._told: list[int] = []
        self._deaths = 0

    def run(self, timeout_s: float | None) -> None:
        """Search until the study has all its trials, or the time is over.

        Raises:
            FarsearchError: what ended the workers before the study had its trials.
            KeyboardInterrupt: when it was interrupted; the workers have given their trials back.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            for slot in self._slots:
                self._start(slot, deadline)
            while any(slot.process is not None for slot in self._slots) or self._told:
                self._listen(deadline)
                self._show()
        finally:
            self._end()
        errors = [slot.error for slot in self._slots if slot.error is not None]
        if errors and not _is_done(self._ask(self._snapshot)):
            raise errors[0]

    def _start(self, slot: _Slot, deadline: float | None) -> None:
        """Start a worker, unless it came too late."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        options = ["--for-run", *([] if left is None else ["--timeout", str(left)])]
        # Ctrl-C goes to all processes of a terminal: the workers leave it to this one, which ends them
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            slot.process = subprocess.Popen(
                [sys.executable, "-c", _program(), "worker", *self._arguments, *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                env=self._environment,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)
        slot.reader = threading.Thread(target=self._read, args=(slot, slot.process), daemon=True)
        slot.reader.start()

    def _read(self, slot: _Slot, process: subprocess.Popen[str]) -> None:
        """Pass on what a worker says until it has ended, in a thread."""
        assert process.stdout is not None
        assert process.stderr is not None
        with process:
            complaints = threading.Thread(target=slot.complaints.extend, args=(process.stderr,), daemon=True)
            complaints.start()
            for line in process.stdout:
                with suppress(ValueError):  # a library that prints is no event
                    self._events.put((slot, dict(json.loads(line))))
            complaints.join()
        self._events.put((slot, {"event": "ended", "code": process.returncode}))

    def _listen(self, deadline: float | None) -> None:
        """Handle what the workers say, for a moment at most."""
        with suppress(queue.Empty):
            slot, event = self._events.get(timeout=_POLL_S)
            while True:
                self._handle(slot, event, deadline)
                slot, event = self._events.get_nowait()

    def _handle(self, slot: _Slot, event: Mapping[str, Any], deadline: float | None) -> None:
        kind = event["event"]
        if kind == "note":
            self._progress.note(event["text"])
        elif kind == "began":
            self._drop(slot)
            slot.trial = event["number"]
            self._progress.began(event["number"], event["text"])
        elif kind == "stepped":
            self._progress.stepped(event["number"], event["text"])
        elif kind == "told":
            slot.trial, self._deaths = None, 0
            self._told.append(event["number"])
            self._start_again(deadline)
        elif kind == "away":
            slot.away = True
        elif kind == "ended":
            self._drop(slot)
            self._ended(slot, event["code"], deadline)

    def _start_again(self, deadline: float | None) -> None:
        """The storage answers: start those again that gave up waiting for it."""
        for slot in self._slots:
            if slot.process is None and slot.away:
                slot.away, slot.error = False, None
                self._progress.note(f"the storage answers again; worker {slot.number} is started again")
                self._start(slot, deadline)

    def _drop(self, slot: _Slot) -> None:
        """The worker's trial, if it has one, did not end."""
        if slot.trial is not None:
            self._progress.dropped(slot.trial)
            slot.trial = None

    def _ended(self, slot: _Slot, code: int, deadline: float | None) -> None:
        """A worker's process is gone: start another where it was killed, and keep the reason where it gave up."""
        slot.process = None
        if code == 0:
            return
        if code > 0 and code not in _ENDED:
            slot.error = _error_of(slot, code)
            self._progress.note(f"worker {slot.number} ended: {slot.error}")
            return
        self._deaths += 1
        if self._deaths >= _DEATHS:
            slot.error = MissingResource(
                f"workers were killed {_DEATHS} times before one finished a trial: this machine may have too little "
                "memory; ask for fewer --workers or a smaller --batch-size"
            )
            return
        self._progress.note(f"worker {slot.number} was killed; another one takes its place")
        self._start(slot, deadline)

    def _show(self) -> None:
        """Print and mirror the trials that ended. Where the storage is away, that is for later."""
        if not self._told:
            return
        live = any(slot.process is not None for slot in self._slots)
        try:
            snapshot = self._snapshot() if live else self._ask(self._snapshot)
        except MissingResource:
            # as long as a worker goes on asking it: after the last one, this is what the run ends with
            if not live:
                raise
            return
        told, self._told = self._told, []
        self._progress.told(told, snapshot)

    def _end(self) -> None:
        """End the workers that are left. They give their trials back."""
        left = [slot.process for slot in self._slots if slot.process is not None]
        for process in left:
            process.terminate()
        deadline = time.monotonic() + _LEAVE_S
        for process in left:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()
        for slot in self._slots:
            if slot.reader is not None:
                slot.reader.join()


def _error_of(slot: _Slot, code: int) -> FarsearchError:
    """Why a worker gave up: its last line, as this process would have said it."""
    lines = [line.strip() for line in slot.complaints if line.strip()]
    reason = lines[-1].removeprefix("farsearch: ") if lines else f"a worker ended with exit code {code}"
    return _ERRORS.get(code, FarsearchError)(reason)


def _is_done(snapshot: StudySnapshot) -> bool:
    """The study has all its trials."""
    return sum(trial.state in ("complete", "pruned") for trial in snapshot.trials) >= snapshot.n_trials
