"""Memory of a process with torch, on the CPU and on CUDA."""

import os
from typing import Any, Dict

import torch

from ...runtime.imports import UNNEEDED
from .memory import MIB, host_memory, run_python

__all__ = ["memory_figures"]

_BARE_PROCESS = """
def read(path, key):
    try:
        lines = open(path).read().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024.0 for line in lines if line.startswith(key + ":")), None)
before = read("/proc/meminfo", "MemAvailable")
import sys
import torch
sys.modules.update(dict.fromkeys(UNNEEDED_PACKAGES))
try:
    from transformers import AutoTokenizer, BertForSequenceClassification, DistilBertForSequenceClassification
    imported = "torch and transformers"
except ImportError:
    imported = "torch without transformers"
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
print(max(peak, taken), imported)
"""
"""Prints the MiB of a process with the imports, and the context, of a bundle's ``train.py``. On Linux it is VmHWM,
because ``ru_maxrss`` starts at the memory of the parent."""
_CUDA_PROCESS = """
import torch
torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")
torch.cuda.synchronize()
print(torch.cuda.mem_get_info()[0])
"""


def memory_figures(device: torch.device, timeout: float) -> Dict[str, Any]:
    """Return MiB of visible memory, of other programs, and of a bare process that trains; None for unknown."""
    if device.type != "cuda" or _integrated():
        return host_memory(_BARE_PROCESS.replace("UNNEEDED_PACKAGES", repr(UNNEEDED)), timeout)
    torch.zeros(1, device=device)
    free, total = [number / MIB for number in torch.cuda.mem_get_info()]
    tokens = run_python(_CUDA_PROCESS, timeout)
    own = None if tokens is None else max(0.0, free - float(tokens[-1]) / MIB)
    # the context and the reserved memory of this process do not count as others' memory
    held = (own or 300.0) + torch.cuda.memory_reserved() / MIB
    others = min(max(0.0, total - free - held), 0.9 * total)
    return {
        "others_mib": others, "process_mib": own, "own": "CUDA context", "visible_mib": total,
        "visible_is": "of the GPU",
    }  # fmt: skip


def _integrated() -> bool:
    """Whether the GPU uses the host's memory, as on Jetson boards."""
    properties = torch.cuda.get_device_properties(0)
    known = getattr(properties, "is_integrated", None)
    return bool(known) if known is not None else os.path.exists("/etc/nv_tegra_release")
