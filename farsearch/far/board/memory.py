"""What this machine has of memory, what this process takes of it, and the micro-batch that fits."""

import contextlib
import ctypes
import os
import resource
import sys
from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import nn

from ..features import Features, batch_of

__all__ = [
    "available_mib",
    "fitting_micro_batch",
    "free_at_once",
    "is_out_of_memory",
    "peak_mib",
    "process_mib",
    "reset_peak",
]

_MIB = 2.0**20

_M_MMAP_THRESHOLD = -3
"""Number of glibc's option for the size from which on memory is taken from the system and given back at once."""
_LARGE = 1 << 17


def _field(path: str, name: str) -> Optional[float]:
    """A number of kB out of a file of ``/proc``, in MiB; None where the system does not tell."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name + ":"):
                    return float(line.split()[1]) / 1024.0
    except (OSError, ValueError, IndexError):
        pass
    return None


def available_mib() -> Optional[float]:
    """What a process that starts now could take, this one's own share included; None where the system does not tell.

    On a Jetson, GPU and CPU have one memory, and this is it; of a GPU of its own it is what is free there.
    """
    free, own = _field("/proc/meminfo", "MemAvailable"), _field("/proc/self/status", "VmRSS")
    if free is None:
        return None
    host = free + (own or 0.0)
    if torch.cuda.is_available() and not _shares_memory():
        return torch.cuda.mem_get_info()[0] / _MIB if hasattr(torch.cuda, "mem_get_info") else None
    return host


def _shares_memory() -> bool:
    return os.path.exists("/etc/nv_tegra_release") or os.path.isdir("/sys/devices/soc0")


def reset_peak() -> None:
    """Forget the peak so far: loading is over, and what it took is given back. Where the system lets us."""
    _give_back()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass


def process_mib(model: nn.Module, features: Features, pad_id: int) -> float:
    """What this process takes beside the tensors of a model that is ready to be trained, in MiB.

    One row goes forward and backward first: what libraries load and set up at their first use is the process's too.
    Where the system does not tell what is resident now, its peak so far stands for that.
    """
    _warm_up(model, features, pad_id)
    _give_back()
    now = _field("/proc/self/status", "VmRSS")
    held = sum(value.numel() * value.element_size() for value in [*model.parameters(), *model.buffers()])
    return max(0.0, (peak_mib() if now is None else now) - held / _MIB)


def free_at_once() -> None:
    """Large tensors go back to the system as soon as they are freed, so that the process takes what they take.

    By default the C library keeps what it thinks will be wanted again, a tenth more in a step of MiniLM (docs/log.md).
    """
    _c_library("mallopt", _M_MMAP_THRESHOLD, _LARGE)


def _c_library(name: str, *arguments: int) -> None:
    """Call a function of the C library, where it has one of that name."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)


def _warm_up(model: nn.Module, features: Features, pad_id: int) -> None:
    """A step that changes nothing, and one of the optimizer on a tensor of its own."""
    device = next(model.parameters()).device
    model.train()
    model(**batch_of(features.take([0]), pad_id, device).inputs).loss.backward()
    model.zero_grad(set_to_none=True)
    tiny = nn.Linear(64, 64).to(device)
    tiny(torch.zeros(64, 64, device=device)).sum().backward()
    torch.optim.AdamW(tiny.parameters()).step()


def _give_back() -> None:
    """What was freed while the model was loaded goes back to the system, where the C library can do that."""
    _c_library("malloc_trim", 0)


def peak_mib() -> float:
    """The highest resident memory of this process, and of CUDA's allocator beside it where there is a GPU."""
    highest = _field("/proc/self/status", "VmHWM")
    if highest is None:
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        highest = taken / _MIB if sys.platform == "darwin" else taken / 1024.0
    return highest + (torch.cuda.max_memory_reserved() / _MIB if torch.cuda.is_available() else 0.0)


def fitting_micro_batch(
    peaks: Sequence[Sequence[Any]], budget_mib: Optional[float]
) -> Tuple[Optional[int], float, bool]:
    """The largest micro-batch whose predicted peak is within a budget.

    Args:
        peaks: micro-batch size (None for the plan's own) and predicted peak in MiB, from the largest to the smallest.

    Returns:
        its size, its predicted peak, and whether that is within the budget; the smallest where none is.
    """
    ordered: List[Sequence[Any]] = list(peaks)
    for size, peak in ordered:
        if budget_mib is None or peak <= budget_mib:
            return size, float(peak), True
    size, peak = ordered[-1]
    return size, float(peak), False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is torch's or Python's way to say that memory ran out."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )
