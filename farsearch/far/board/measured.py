"""What a run of a bundle took, as a file that goes back to the workstation."""

import datetime
import json
import os
import platform
from typing import Any, Dict, Optional, Sequence

import torch

from ..batches import phase_batches
from .opened import Opened
from .phase import Course

__all__ = ["MEASUREMENT", "SCHEMA_VERSION", "machine_name", "measurement_of", "predicted_seconds", "write_json"]

MEASUREMENT = "farsearch measurement"
"""What the file says it is."""

SCHEMA_VERSION = 1


def machine_name() -> str:
    """What this machine says of itself: a board's model, otherwise its processor."""
    for path in ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model"):
        try:
            with open(path, "rb") as file:
                return file.read().decode("utf-8", "replace").strip("\x00 \n")
        except OSError:
            continue
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name(0))
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def predicted_seconds(bundle: Opened, lengths: Sequence[int], epochs: float) -> float:
    """What the bundle predicts for a phase over rows of these lengths, in seconds: step by step, as batches are padded.

    The bundle knows some lengths; between two of them it is a straight line.
    """
    phase = bundle.phase
    known = sorted((int(length), float(seconds)) for length, seconds in phase["predicted"]["step_s"].items())
    batches = phase_batches(lengths, phase["batch_size"], epochs, phase["seed"])
    counts: Dict[int, int] = {}
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        counts[longest] = counts.get(longest, 0) + 1
    return sum(count * _between(known, length) for length, count in counts.items())


def _between(known: Sequence[Any], length: int) -> float:
    if length <= known[0][0]:
        return float(known[0][1])
    for (low, at_low), (high, at_high) in zip(known, known[1:]):
        if length <= high:
            return float(at_low + (at_high - at_low) * (length - low) / (high - low))
    return float(known[-1][1])


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def measurement_of(
    bundle: Opened, rows: int, epochs: float, course: Course, process_mib: float, peak_mib: float,
    predicted_mib: float, predicted_s: float, metric: Optional[float],
) -> Dict[str, Any]:  # fmt: skip
    """What was measured beside what the bundle predicted of the same work, in JSON types."""
    import transformers

    says = bundle.says
    # the first step warms up caches and allocators
    timed = course.seconds[1:] or course.seconds
    return {
        "what": MEASUREMENT,
        "schema_version": SCHEMA_VERSION,
        "study": says["study"],
        "device": says["phase"]["predicted"]["device"],
        "bundle": says["digest"],
        "losses": course.losses,
        "measured": {
            "trial": says["trial"]["number"],
            "machine": machine_name(),
            "software": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "cuda": torch.version.cuda or "none",
                "threads": str(torch.get_num_threads()),
            },
            "rows": rows,
            "epochs": epochs,
            "steps": len(course.seconds),
            "peak_memory_mib": peak_mib,
            "process_memory_mib": process_mib,
            "step_time_s": _median(timed),
            "wall_time_s": sum(timed) / len(timed) * course.steps,
            "predicted_memory_mib": predicted_mib,
            "predicted_process_mib": says["phase"]["predicted"]["process_mib"],
            "predicted_time_s": predicted_s,
            "metric": metric,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        },
    }


def write_json(path: str, data: Dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    temporary = path + ".part"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
