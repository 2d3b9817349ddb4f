"""A process of farsearch on a system without POSIX: a module for the tests, and the program that they start.

    python -m tests.foreign_system [arguments of farsearch]

hides from farsearch's own modules what Windows lacks, imports all of them, and then runs the command. The libraries
keep it, because they choose their code by the name of the system.
"""

from __future__ import annotations

import builtins
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

__all__ = ["HIDDEN", "hide", "import_all"]

HIDDEN = ("crypt", "fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")
"""Modules of Python's library that Windows lacks."""

_ATTRIBUTES = {
    "os": ("chown", "fork", "getegid", "geteuid", "getgid", "getpgid", "getuid", "killpg", "mkfifo", "nice",
           "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname", "wait4", "EX_UNAVAILABLE", "O_DIRECTORY",
           "O_NOFOLLOW", "WIFSIGNALED"),
    "signal": ("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm",
               "pthread_kill", "setitimer", "sigwait"),
}  # fmt: skip
"""What modules lack there that exist."""


def _without(module: ModuleType, names: Sequence[str]) -> ModuleType:
    """Return a copy of a module without some of its names."""
    copy = ModuleType(module.__name__)
    copy.__dict__.update({name: value for name, value in vars(module).items() if name not in names})
    return copy


def hide() -> None:
    """Hide them from importers in farsearch."""
    plain_import = builtins.__import__
    partial = {module.__name__: _without(module, _ATTRIBUTES[module.__name__]) for module in (os, signal)}

    def hiding(
        name: str, globals: Mapping[str, object] | None = None, locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (), level: int = 0,
    ) -> ModuleType:  # fmt: skip
        importer = str((globals or {}).get("__name__"))
        if importer.partition(".")[0] == "farsearch" and not level:
            if name in HIDDEN:
                raise ModuleNotFoundError(f"{importer} imports {name}, which other systems lack", name=name)
            if name in partial:
                return partial[name]
        return plain_import(name, globals, locals, fromlist, level)

    builtins.__import__ = hiding


def import_all() -> int:
    """Import all modules of farsearch, and return their number."""
    import farsearch

    found = [module.name for module in pkgutil.walk_packages(farsearch.__path__, "farsearch.")]
    for name in found:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return len(found)


if __name__ == "__main__":
    hide()
    import_all()
    from farsearch.cli import main

    main(sys.argv[1:])
