"""Memory of this machine and of this process, and the micro-batch that fits into a budget."""

import contextlib
import ctypes
import os
import sys
from typing import Any, List, Optional, Sequence, Tuple

__all__ = [
    "MIB",
    "fitting_micro_batch",
    "free_at_once",
    "host_available_mib",
    "host_peak_mib",
    "is_out_of_memory",
    "mapped_mib",
    "release",
    "reset_host_peak",
    "resident_mib",
]

MIB = 2.0**20
"""Bytes."""

_M_MMAP_THRESHOLD = -3
"""glibc's option for the size from which on memory is mapped from the system and returned when it is freed."""
_LARGE = 1 << 17


def _field(path: str, name: str) -> Optional[float]:
    """A field in kB of a file in ``/proc``, in MiB; None where the system has no such file or field."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name + ":"):
                    return float(line.split()[1]) / 1024.0
    except (OSError, ValueError, IndexError):
        pass
    return None


def _psutil() -> Any:
    """Return psutil, for systems without ``/proc``; None where it is not installed, as on boards."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil


def resident_mib() -> Optional[float]:
    """Return the resident memory of this process in MiB; None where it is not reported."""
    resident = _field("/proc/self/status", "VmRSS")
    if resident is None and _psutil() is not None:
        resident = _psutil().Process().memory_info().rss / MIB
    return resident


def mapped_mib(path: str) -> float:
    """Return the resident memory of this process that a mapped file takes, in MiB; 0 where it is not reported."""
    end, kib, inside = " " + os.path.realpath(path), 0.0, False
    with contextlib.suppress(OSError), open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.split(" ", 1)[0].endswith(":"):
                inside = line.rstrip("\n").endswith(end)
            elif inside and line.startswith("Rss:"):
                kib += float(line.split()[1])
    return kib / 1024.0


def host_available_mib() -> Optional[float]:
    """Return the memory that a new process could take, this one's included, in MiB; None if it is not reported."""
    free = _field("/proc/meminfo", "MemAvailable")
    if free is None and _psutil() is not None:
        free = _psutil().virtual_memory().available / MIB
    return None if free is None else free + (resident_mib() or 0.0)


def host_peak_mib() -> float:
    """Return the highest resident memory of this process so far, in MiB; 0 on Windows without psutil."""
    highest = _field("/proc/self/status", "VmHWM")
    if highest is not None:
        return highest
    if sys.platform == "win32":
        return 0.0 if _psutil() is None else _psutil().Process().memory_info().peak_wset / MIB
    else:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (MIB if sys.platform == "darwin" else 1024.0)


def reset_host_peak() -> None:
    """Reset the peak of ``host_peak_mib`` to the resident memory now, if the system allows it."""
    release()
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def release() -> None:
    """Return freed memory to the system, where the C library can do that."""
    _c_library("malloc_trim", 0)


def free_at_once() -> None:
    """Return large tensors to the system as soon as they are freed, so that residency follows allocation.

    By default the C library caches freed memory, a tenth more in a step of MiniLM (docs/log.md).
    """
    _c_library("mallopt", _M_MMAP_THRESHOLD, _LARGE)


def _c_library(name: str, *arguments: int) -> None:
    """Call a function of the C library, where it has one of that name."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)


def fitting_micro_batch(
    peaks: Sequence[Sequence[Any]], budget_mib: Optional[float]
) -> Tuple[Optional[int], float, bool]:
    """Return the largest micro-batch whose predicted peak is within a budget, or the smallest where none is.

    Args:
        peaks: micro-batch size (None for the plan's own) and predicted peak in MiB, from the largest to the smallest.

    Returns:
        its size, its predicted peak, and whether that is within the budget.
    """
    ordered: List[Sequence[Any]] = list(peaks)
    for size, peak in ordered:
        if budget_mib is None or peak <= budget_mib:
            return size, float(peak), True
    size, peak = ordered[-1]
    return size, float(peak), False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or of a tensor library reports that memory ran out."""
    causes = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(cause in str(error).lower() for cause in causes)
    )
