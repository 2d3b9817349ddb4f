"""The frame of a measurement, whatever computes: idle host, conditions before and after; its file and command line."""

import argparse
import datetime
import json
import os
import time
from typing import Any, Callable, Dict, Optional

from .host import BUSY_SHARE, OtherPrograms, conditions, demanded_cores, wait_for_idle
from .memory import MIB

__all__ = ["RESULT", "RESULT_VERSION", "SECONDS", "SHARES", "command_line", "measured", "room_for_operands"]

RESULT = "farsearch calibration"
"""The value of ``what`` in the result file."""
RESULT_VERSION = 1
SECONDS = 200.0
"""Time of the measurements; the total with the bare process is below 4 minutes."""
SHARES = {"launch": 0.05, "products": 0.3, "streams": 0.3, "sustained": 0.35}
"""Shares of the time. The sustained load at the end uses the remainder."""


def room_for_operands(memory: Dict[str, Any]) -> float:
    """Return how many elements of float32 an eighth of the free memory holds."""
    room = memory["visible_mib"] - (memory["others_mib"] or memory["visible_mib"] / 2)
    return float(room * MIB / 4 / 8)


def measured(
    facts: Dict[str, Any], seconds: float, report: Callable[[str], None],
    measure: Callable[[Callable[[], float]], Dict[str, Any]],
) -> Dict[str, Any]:  # fmt: skip
    """Return the result of a measurement of this machine.

    Args:
        facts: of the machine.
        measure: takes a function that returns the seconds that are left for the sustained load, and returns
            ``memory``, ``launch``, ``samples`` and ``sustained``.
    """
    begun = time.perf_counter()
    cores = facts["cores"]
    busy = wait_for_idle(cores, min(30.0, 0.15 * seconds), report)
    before, others = conditions(), OtherPrograms()

    def left() -> float:
        spent = time.perf_counter() - begun
        return max(SHARES["sustained"] * seconds, min(seconds, SECONDS) - spent)

    parts = measure(left)
    used = others.cores()
    if busy is not None and used is not None:
        # the load may rise after the first measurement
        busy = max(busy, demanded_cores(used, cores))
        if busy > BUSY_SHARE * cores:
            report(
                "other programs kept {:.1f} of {} cores busy: times are too long and get a wider range; measure again "
                "when the machine is idle".format(busy, cores)
            )
    return dict(
        parts,
        what=RESULT,
        schema_version=RESULT_VERSION,
        date=datetime.date.today().isoformat(),
        machine=facts,
        busy_cores=busy,
        conditions={"before": before, "after": conditions()},
        took_s=time.perf_counter() - begun,
    )


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


def command_line(
    library: str, measure: Callable[[float, Callable[[str], None], Optional[int]], Dict[str, Any]]
) -> None:
    """Run the command line of the file on a board.

    Args:
        library: that computes, for the help.
        measure: takes the seconds, what is called with messages, and the threads or None.
    """
    parser = argparse.ArgumentParser(description="Measure this machine for farsearch; leave it idle meanwhile.")
    parser.add_argument("--out", default="result.json", help="file to write (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="to measure (default: %(default)s)")
    parser.add_argument("--threads", type=_threads, help="of {0} on the CPU (default: its own choice)".format(library))
    arguments = parser.parse_args()
    if not _may_write(arguments.out):
        parser.error("--out {} exists and is not a result of this script; give another name".format(arguments.out))
    result = measure(arguments.seconds, lambda text: print(text, flush=True), arguments.threads)
    # atomically, so that a power cut leaves no partial file
    with open(arguments.out + ".part", "w") as file:
        json.dump(result, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(arguments.out + ".part", arguments.out)
    print("wrote {}; on the workstation: farsearch devices import {}".format(arguments.out, arguments.out))
