"""Memory: visible to this process, held by other programs, and of a bare process that trains."""

import os
import subprocess
import sys
from typing import Any, Dict, List, Optional, Tuple

import torch

from .machine import physical_bytes, read_text

__all__ = ["MIB", "memory_figures"]

MIB = 2.0**20
_BARE_PROCESS = """
def read(path, key):
    try:
        lines = open(path).read().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024.0 for line in lines if line.startswith(key + ":")), None)
before = read("/proc/meminfo", "MemAvailable")
import torch
try:
    from transformers import AutoTokenizer, BertForSequenceClassification, DistilBertForSequenceClassification
    with_transformers = 1
except ImportError:
    with_transformers = 0
taken = 0.0
if torch.cuda.is_available():
    torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")
    torch.cuda.synchronize()
    after = read("/proc/meminfo", "MemAvailable")
    # the GPU of a Jetson board uses the host's memory, and so does its context
    if before is not None and after is not None:
        taken = before - after
peak = read("/proc/self/status", "VmHWM")
if peak is None and sys.platform == "win32":
    import psutil
    peak = psutil.Process().memory_info().peak_wset / 2.0 ** 20
elif peak is None:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2.0 ** 20 if sys.platform == "darwin" else 1024.0)
print(max(peak, taken), with_transformers)
"""
"""Prints the MiB of a process with the imports, and the context, of one that fine-tunes. On Linux it is VmHWM, because
``ru_maxrss`` starts at the memory of the parent."""
_CUDA_PROCESS = """
import torch
torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")
torch.cuda.synchronize()
print(torch.cuda.mem_get_info()[0])
"""


def _run(code: str, timeout: float) -> Optional[List[str]]:
    """The tokens that a new Python process prints for ``code``; None if it fails or takes too long.

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


def _field(path: str, key: str) -> Optional[float]:
    """The value of ``key`` in a file of /proc in MiB."""
    for line in (read_text(path) or "").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024.0
    return None


def memory_figures(device: torch.device, timeout: float) -> Dict[str, Any]:
    """Return MiB of visible memory, of other programs, and of a bare process that trains; None for unknown."""
    figures: Dict[str, Any] = {"others_mib": None, "process_mib": None, "own": ""}
    if device.type == "cuda" and not _integrated():
        torch.zeros(1, device=device)
        free, total = [number / MIB for number in torch.cuda.mem_get_info()]
        tokens = _run(_CUDA_PROCESS, timeout)
        own = None if tokens is None else max(0.0, free - float(tokens[-1]) / MIB)
        # the context and the reserved memory of this process do not count as others' memory
        held = (own or 300.0) + torch.cuda.memory_reserved() / MIB
        others = min(max(0.0, total - free - held), 0.9 * total)
        figures.update(others_mib=others, process_mib=own, own="CUDA context")
        return dict(figures, visible_mib=total, visible_is="of the GPU")
    visible, reason = _visible()
    available = _field("/proc/meminfo", "MemAvailable")
    if available is not None:
        mine = _field("/proc/self/status", "RssAnon") or 0.0
        figures["others_mib"] = min(max(0.0, visible - available - mine), 0.9 * visible)
    tokens = _run(_BARE_PROCESS, timeout)
    if tokens is not None:
        figures["process_mib"] = float(tokens[-2])
        figures["own"] = "torch and transformers" if tokens[-1] == "1" else "torch without transformers"
    return dict(figures, visible_mib=visible, visible_is=reason)


def _integrated() -> bool:
    """Whether the GPU uses the host's memory, as on Jetson boards."""
    properties = torch.cuda.get_device_properties(0)
    known = getattr(properties, "is_integrated", None)
    return bool(known) if known is not None else os.path.exists("/etc/nv_tegra_release")


def _visible() -> Tuple[float, str]:
    """MiB of memory visible to this process, with the reason."""
    physical = float(physical_bytes())
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = read_text(os.path.join("/sys/fs/cgroup", name)) or ""
        if limit.isdigit() and int(limit) < physical:
            return int(limit) / MIB, "limit of the control group in {}".format(name)
    return physical / MIB, "physical pages"
