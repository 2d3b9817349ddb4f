"""Handling of Ctrl-C and SIGTERM during a command, on Windows too, which can't send a signal to a process."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = [
    "INTERRUPTED",
    "TERMINATED",
    "Terminated",
    "catch",
    "catching",
    "interruption",
    "release",
    "terminate_self",
    "terminate_worker",
    "when_interrupted",
]

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

_AGAIN_S = 5.0
"""Seconds after a signal within which a SIGTERM is the same request."""

_IMPORTLIB = "<frozen importlib._bootstrap>"
_COMMAND_LINE = ("farsearch.cli", "farsearch.api", "farsearch.__main__", "farsearch.signals")

_ended_at = -math.inf
_messages = ["interrupted"]


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a search like Ctrl-C."""


def catch() -> None:
    """Install the handlers; an ignored SIGINT stays ignored, as in a shell's background job.

    SQLAlchemy's pool logs a traceback where a signal comes within a query of a study or of MLflow: no longer.
    """
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def release() -> None:
    """Restore the default handlers, so that a signal at the end of the process causes no traceback."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def catching() -> Iterator[None]:
    """Install the handlers for a block, and restore the previous ones."""
    global _ended_at
    _ended_at = -math.inf
    del _messages[1:]
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    catch()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def when_interrupted(message: str) -> Iterator[None]:
    """Set the message of an interruption in the block."""
    _messages.append(message)
    try:
        yield
    except KeyboardInterrupt:
        raise  # the message is printed later
    except BaseException:
        _messages.pop()
        raise
    else:
        _messages.pop()


def interruption() -> str:
    """Return the message of the interruption that ended the command."""
    message = _messages[-1]
    del _messages[1:]
    return message


def terminate_self() -> None:
    """Have the main thread handle SIGTERM, as if another process had sent it; for other threads."""
    if sys.platform == "win32":  # os.kill would end the process without its handlers
        import _thread

        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def terminate_worker(process: subprocess.Popen[Any]) -> None:
    """Ask a worker to return its trial and end: it also ends when its standard input does."""
    if sys.platform == "win32":  # terminate() would kill it
        assert process.stdin is not None
        process.stdin.close()
    else:
        process.terminate()


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    """Interrupt at every Ctrl-C."""
    global _ended_at
    _ended_at = time.monotonic()
    _end_start(frame, INTERRUPTED)
    raise KeyboardInterrupt


def _terminate(_signal: int, frame: FrameType | None) -> None:
    """Terminate once: a group of processes may get the signal from outside and from its leader.

    The same after Ctrl-C, which a terminal sends to a whole group, and whose leader then terminates the others: an
    interrupted worker is requeuing its trial meanwhile.
    """
    global _ended_at
    now = time.monotonic()
    if now - _ended_at > _AGAIN_S:
        _ended_at = now
        _end_start(frame, TERMINATED)
        raise Terminated


def _end_start(frame: FrameType | None, code: int) -> None:
    """Exit at once while the command line imports libraries, when no trial is running.

    Compiled parts of torch and others would print, swallow or replace an exception.
    """
    if _is_start(frame):
        os.write(2, f"{interruption()}\n".encode(errors="replace"))
        os._exit(code)


def _is_start(frame: FrameType | None) -> bool:
    """Return whether the command line is importing, and no other code of farsearch is running."""
    importing = False
    outside: list[str] = []
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTLIB:
            importing, outside = True, []
        else:
            outside.append(str(frame.f_globals.get("__name__", "")))
        frame = frame.f_back
    ours = [name for name in outside if name.startswith("farsearch.")]
    return importing and all(name.startswith(_COMMAND_LINE) for name in ours)
