"""The whole measurement, and its command line."""

import argparse
import datetime
import json
import os
import time
from typing import Any, Callable, Dict, List

import torch

from .cases import most_elements
from .machine import BUSY_SHARE, OtherPrograms, conditions, demanded_cores, device_of_torch, machine, wait_for_idle
from .memory import MIB, memory_figures
from .timing import Pool, overheads, sustained_load, timed_cases

__all__ = ["RESULT", "SCHEMA_VERSION", "main", "measure"]

RESULT = "farsearch calibration"
"""The value of ``what`` in the result file."""
SCHEMA_VERSION = 1
SECONDS = 200.0
"""Time of the measurements; the total with the bare process is below 4 minutes."""
_SHARES = {"launch": 0.05, "products": 0.3, "streams": 0.3, "sustained": 0.35}
"""Shares of the time. The sustained load at the end uses the remainder."""


def measure(seconds: float = SECONDS, report: Callable[[str], None] = lambda _: None) -> Dict[str, Any]:
    """Measure this machine: CUDA if torch supports it, otherwise the CPU with torch's threads.

    Args:
        seconds: time of the measurements; the memory of a bare process may take 30 s more.
        report: called with messages.
    """
    device = device_of_torch()
    begun = time.perf_counter()
    cores = machine()["cores"]
    busy = wait_for_idle(cores, min(30.0, 0.15 * seconds), report)
    before, others = conditions(), OtherPrograms()
    report("memory of a bare process")
    memory = memory_figures(device, 30.0)
    room = memory["visible_mib"] - (memory["others_mib"] or memory["visible_mib"] / 2)
    # at most an eighth of the free memory
    elements = int(min(most_elements(), room * MIB / 4 / 8))
    report("overheads")
    launch = overheads(device, _SHARES["launch"] * seconds)
    pool = Pool(device, elements)
    samples: List[Dict[str, Any]] = []
    with torch.no_grad():
        for group in ("products", "streams"):
            samples += timed_cases(group, device, pool, _SHARES[group] * seconds, report)
    del pool
    spent = time.perf_counter() - begun
    sustained = sustained_load(device, max(_SHARES["sustained"] * seconds, min(seconds, 200.0) - spent), report)
    used = others.cores()
    if busy is not None and used is not None:
        # the load may rise after the first measurement
        busy = max(busy, demanded_cores(used, cores))
        if busy > BUSY_SHARE * cores:
            report(
                "other programs kept {:.1f} of {} cores busy: times are too long and get a wider range; measure again "
                "when the machine is idle".format(busy, cores)
            )
    return {
        "what": RESULT,
        "schema_version": SCHEMA_VERSION,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "busy_cores": busy,
        "conditions": {"before": before, "after": conditions()},
        "memory": memory,
        "launch": launch,
        "samples": samples,
        "sustained": sustained,
        "took_s": time.perf_counter() - begun,
    }


def _may_write(path: str) -> bool:
    """Whether the file does not exist, or is the result of an earlier run."""
    if not os.path.lexists(path):
        return True
    try:
        with open(path) as file:
            content = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"schema_version", "machine", "samples"} <= set(content)


def _threads(text: str) -> int:
    value, cores = int(text), os.cpu_count() or 1
    if not 1 <= value <= cores:
        raise argparse.ArgumentTypeError("{} threads; this machine has {} cores".format(value, cores))
    return value


def main() -> None:
    """Run the command line of the file on a board."""
    parser = argparse.ArgumentParser(description="Measure this machine for farsearch; leave it idle meanwhile.")
    parser.add_argument("--out", default="result.json", help="file to write (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="to measure (default: %(default)s)")
    parser.add_argument("--threads", type=_threads, help="of torch on the CPU (default: torch's own)")
    arguments = parser.parse_args()
    if not _may_write(arguments.out):
        parser.error("--out {} exists and is not a result of this script; give another name".format(arguments.out))
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    result = measure(arguments.seconds, lambda text: print(text, flush=True))
    # atomically, so that a power cut leaves no partial file
    with open(arguments.out + ".part", "w") as file:
        json.dump(result, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(arguments.out + ".part", arguments.out)
    print("wrote {}; on the workstation: farsearch devices import {}".format(arguments.out, arguments.out))
