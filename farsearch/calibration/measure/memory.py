"""Memory of the host: visible to this process, held by other programs, and of a bare process."""

import os
import subprocess
import sys
from typing import Any, Dict, List, Optional, Tuple

from .host import physical_bytes, read_text

__all__ = ["MIB", "field", "host_memory", "run_python"]

MIB = 2.0**20


def run_python(code: str, timeout: float) -> Optional[List[str]]:
    """Return the tokens that a new Python process prints for ``code``; None if it fails or takes too long.

    It has the module path of this process: -c alone would search the working folder first.
    """
    code = "import sys; sys.path[:] = {!r}\n{}".format(sys.path, code)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.decode("utf-8", "replace").split() or None


def field(path: str, key: str) -> Optional[float]:
    """Return the value of ``key`` in a file of /proc in MiB."""
    for line in (read_text(path) or "").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024.0
    return None


def host_memory(bare_process: str, timeout: float) -> Dict[str, Any]:
    """Return MiB of visible memory, of other programs, and of a bare process; None for unknown.

    Args:
        bare_process: code of a process that prints its MiB, and what it has imported.
        timeout: seconds for it.
    """
    visible, reason = _visible()
    figures: Dict[str, Any] = {
        "others_mib": None, "process_mib": None, "own": "", "visible_mib": visible, "visible_is": reason,
    }  # fmt: skip
    available = field("/proc/meminfo", "MemAvailable")
    if available is not None:
        mine = field("/proc/self/status", "RssAnon") or 0.0
        figures["others_mib"] = min(max(0.0, visible - available - mine), 0.9 * visible)
    tokens = run_python(bare_process, timeout)
    if tokens is not None:
        figures["process_mib"] = float(tokens[0])
        figures["own"] = " ".join(tokens[1:])
    return figures


def _visible() -> Tuple[float, str]:
    """MiB of memory visible to this process, with the reason."""
    physical = float(physical_bytes())
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = read_text(os.path.join("/sys/fs/cgroup", name)) or ""
        if limit.isdigit() and int(limit) < physical:
            return int(limit) / MIB, "limit of the control group in {}".format(name)
    return physical / MIB, "physical pages"
