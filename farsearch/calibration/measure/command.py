"""The whole measurement with torch, and its command line."""

from typing import Any, Callable, Dict, List, Optional

import torch

from .cases import most_elements
from .machine import device_of_torch, machine
from .session import SECONDS, SHARES, command_line, measured, room_for_operands
from .timing import Pool, half_speedups, overheads, sustained_load, timed_cases
from .torch_memory import memory_figures

__all__ = ["main", "measure"]


def measure(
    seconds: float = SECONDS, report: Callable[[str], None] = lambda _: None, threads: Optional[int] = None
) -> Dict[str, Any]:
    """Measure this machine: CUDA if torch supports it, otherwise the CPU with torch's threads.

    Args:
        seconds: time of the measurements; the memory of a bare process may take 30 s more.
        report: called with messages.
        threads: of torch on the CPU from now on; None for as many as it has.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    device = device_of_torch()

    def parts(left: Callable[[], float]) -> Dict[str, Any]:
        report("memory of a bare process")
        memory = memory_figures(device, 30.0)
        elements = int(min(most_elements(), room_for_operands(memory)))
        report("overheads")
        launch = overheads(device, SHARES["launch"] * seconds)
        pool = Pool(device, elements)
        samples: List[Dict[str, Any]] = []
        with torch.no_grad():
            for group in ("products", "streams"):
                samples += timed_cases(group, device, pool, SHARES[group] * seconds, report)
        del pool
        report("products of 16 bits")
        half = half_speedups(device)
        sustained = sustained_load(device, left(), report)
        return {
            "memory": memory, "launch": launch, "samples": samples, "half_speedups": half, "sustained": sustained,
        }  # fmt: skip

    return measured(machine(), seconds, report, parts)


def main() -> None:
    """Run the command line of the file on a board."""
    command_line("torch", measure)
