"""The worker processes of one search: started, monitored, restarted when they are killed, and ended with it."""

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
from farsearch.signals import terminate_worker

if TYPE_CHECKING:
    from farsearch.api.progress import SearchProgress
    from farsearch.records import StudySnapshot

__all__ = ["Pool", "worker_environment"]

_DEATHS = 10
"""Consecutive kills of workers, without a finished trial in between, after which a search fails."""

_ENDED = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a worker that was ended by a signal."""

_POLL_S = 0.5

_LEAVE_S = 30.0
"""Seconds that a terminated worker may take to return its trial to the queue."""

_ERRORS: Mapping[int, type[FarsearchError]] = {
    error.exit_code: error for error in (BadInput, NoFeasibleTrial, StudyMismatch, MissingResource)
}


def worker_environment(workers: int, storage: str | None) -> dict[str, str]:
    """Return the environment of each of ``workers`` processes: its share of the cores, and the storage's address.

    The address may hold a password, so it is not on the command line.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": str(max(1, cores // workers)), **os.environ}
    if storage is not None:
        environment["FARSEARCH_STORAGE"] = storage
    return environment


def _program() -> str:
    """Return a worker's program. Its import path is this process's; ``-m`` would prepend the working directory."""
    return f"import sys; sys.path[:] = {sys.path!r}; from farsearch.__main__ import main; main()"


@dataclass
class _Slot:
    """One of the workers, replaced by another process when it is killed.

    Attributes:
        away: the worker ended because the storage did not answer.
        error: the error that ended the worker.
        stderr: the last lines that it printed there.
    """

    number: int
    process: subprocess.Popen[str] | None = None
    reader: threading.Thread | None = None
    trial: int | None = None
    away: bool = False
    error: FarsearchError | None = None
    stderr: deque[str] = field(default_factory=lambda: deque(maxlen=20))


class Pool:
    """Worker processes that search one study.

    They end when this process ends, whatever ends it: their stdin is a pipe from it.

    Args:
        arguments: of ``farsearch worker``.
        snapshot: reads the study.
        ask: calls a function that reads the storage, and waits for a storage that does not answer.
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
        self._finished: list[int] = []
        self._deaths = 0

    def run(self, timeout_s: float | None) -> None:
        """Search until the study has all its trials, or the time limit is reached.

        Raises:
            FarsearchError: the error that ended the workers before the study had its trials.
            KeyboardInterrupt: when it was interrupted; the workers have returned their trials to the queue.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            for slot in self._slots:
                self._start(slot, deadline)
            while any(slot.process is not None for slot in self._slots) or self._finished:
                self._listen(deadline)
                self._show()
        finally:
            self._end()
        errors = [slot.error for slot in self._slots if slot.error is not None]
        if errors and not _is_done(self._ask(self._snapshot)):
            raise errors[0]

    def _start(self, slot: _Slot, deadline: float | None) -> None:
        """Start a worker, unless the time limit is reached."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        options = ["--for-run", *([] if left is None else ["--timeout", str(left)])]
        # Ctrl-C goes to all processes of a terminal: workers ignore it, this process ends them
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
        """Queue the events of a worker until it ends; runs in a thread."""
        assert process.stdout is not None
        assert process.stderr is not None
        with process:
            errors = threading.Thread(target=slot.stderr.extend, args=(process.stderr,), daemon=True)
            errors.start()
            for line in process.stdout:
                with suppress(ValueError):  # printed by a library
                    self._events.put((slot, dict(json.loads(line))))
            errors.join()
        self._events.put((slot, {"event": "ended", "code": process.returncode}))

    def _listen(self, deadline: float | None) -> None:
        """Handle the workers' events, waiting for the first one for a moment."""
        with suppress(queue.Empty):
            slot, event = self._events.get(timeout=_POLL_S)
            while True:
                self._handle(slot, event, deadline)
                slot, event = self._events.get_nowait()

    def _handle(self, slot: _Slot, event: Mapping[str, Any], deadline: float | None) -> None:
        kind = event["event"]
        if kind == "note":
            self._progress.note(event["text"])
        elif kind == "started":
            self._drop(slot)
            slot.trial = event["number"]
            self._progress.started(event["number"], event["text"])
        elif kind == "stepped":
            self._progress.stepped(event["number"], event["text"])
        elif kind == "finished":
            slot.trial, self._deaths = None, 0
            self._finished.append(event["number"])
            self._start_again(deadline)
        elif kind == "away":
            slot.away = True
        elif kind == "ended":
            self._drop(slot)
            self._ended(slot, event["code"], deadline)

    def _start_again(self, deadline: float | None) -> None:
        """Restart the workers that gave up waiting for the storage, which answers again."""
        for slot in self._slots:
            if slot.process is None and slot.away:
                slot.away, slot.error = False, None
                self._progress.note(f"the storage answers again; worker {slot.number} is started again")
                self._start(slot, deadline)

    def _drop(self, slot: _Slot) -> None:
        """Report that the worker's trial, if it has one, did not end."""
        if slot.trial is not None:
            self._progress.dropped(slot.trial)
            slot.trial = None

    def _ended(self, slot: _Slot, code: int, deadline: float | None) -> None:
        """Handle the end of a worker's process: restart it after a kill, record its error otherwise."""
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
                "memory; give a smaller `workers` or `batch_size`"
            )
            return
        self._progress.note(f"worker {slot.number} was killed; another one takes its place")
        self._start(slot, deadline)

    def _show(self) -> None:
        """Print and mirror the trials that ended; retry later where the storage does not answer."""
        if not self._finished:
            return
        live = any(slot.process is not None for slot in self._slots)
        try:
            snapshot = self._snapshot() if live else self._ask(self._snapshot)
        except MissingResource:
            # a live worker retries; after the last one, this error ends the search
            if not live:
                raise
            return
        finished, self._finished = self._finished, []
        self._progress.finished(finished, snapshot)

    def _end(self) -> None:
        """Terminate the remaining workers, which return their trials to the queue."""
        left = [slot.process for slot in self._slots if slot.process is not None]
        for process in left:
            terminate_worker(process)
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
    """Return the error of a worker, read from its last line on stderr."""
    lines = [line.strip() for line in slot.stderr if line.strip()]
    reason = lines[-1].removeprefix("farsearch: ") if lines else f"a worker ended with exit code {code}"
    return _ERRORS.get(code, FarsearchError)(reason)


def _is_done(snapshot: StudySnapshot) -> bool:
    return snapshot.finished >= snapshot.n_trials
