"""What Ctrl-C and SIGTERM do to a command, from its first line to its last."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = [
    "INTERRUPTED",
    "TERMINATED",
    "Terminated",
    "catch",
    "catching",
    "interruption",
    "release",
    "when_interrupted",
]

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

_AGAIN_S = 5.0
"""A SIGTERM within so many seconds after another signal is the same request."""

_IMPORTLIB = "<frozen importlib._bootstrap>"
_COMMAND_LINE = ("farsearch.cli", "farsearch.api", "farsearch.__main__", "farsearch.signals")

_ended_at = -math.inf
_messages = ["interrupted"]


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a search in the same way as Ctrl-C."""


def catch() -> None:
    """Handle the signals from now on, except SIGINT where it is ignored: a shell does that in the background."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def release() -> None:
    """Let the signals end the process, without a traceback of whatever Python does at its end."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def catching() -> Iterator[None]:
    """Handle the signals in the block, and then as before."""
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
    """Have the command end with this message if it is interrupted in the block."""
    _messages.append(message)
    try:
        yield
    except KeyboardInterrupt:
        raise  # the message stays for whoever prints it
    except BaseException:
        _messages.pop()
        raise
    else:
        _messages.pop()


def interruption() -> str:
    """What to print of the interruption that ended the command."""
    message = _messages[-1]
    del _messages[1:]
    return message


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    """End, as often as a user insists."""
    global _ended_at
    _ended_at = time.monotonic()
    _end_start(frame, INTERRUPTED)
    raise KeyboardInterrupt


def _terminate(_signal: int, frame: FrameType | None) -> None:
    """End, once: whoever ends a group of processes and whoever leads the group may both ask for it.

    After Ctrl-C too, which a terminal sends to all of a group, and whose leader then ends the others: what was
    interrupted gives its trial back in the meantime.
    """
    global _ended_at
    now = time.monotonic()
    if now - _ended_at > _AGAIN_S:
        _ended_at = now
        _end_start(frame, TERMINATED)
        raise Terminated


def _end_start(frame: FrameType | None, code: int) -> None:
    """End at once while the command line imports libraries, where there is nothing to be given back.

    An exception would be printed, swallowed or replaced by the compiled parts of torch and others.
    """
    if _is_start(frame):
        os.write(2, f"{interruption()}\n".encode(errors="replace"))
        os._exit(code)


def _is_start(frame: FrameType | None) -> bool:
    """Whether an import is in progress that the command line began, and nothing else of farsearch."""
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
