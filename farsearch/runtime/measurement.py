"""The measurement of a run, as a file for the workstation."""

import datetime
import json
import os
import platform
from typing import Any, Dict, Mapping, Optional, Sequence

from ..far.batches import phase_batches
from .bundle_files import BundleFiles
from .job import PhaseLog

__all__ = ["MEASUREMENT", "SCHEMA_VERSION", "machine_name", "measurement_of", "predicted_seconds", "write_json"]

MEASUREMENT = "farsearch measurement"
"""Value of the key ``what``, which identifies the file."""

SCHEMA_VERSION = 1


def machine_name(gpu: Optional[str] = None) -> str:
    """Return the name of this machine: a board's model, otherwise its GPU or its processor.

    Args:
        gpu: name of the GPU in use.
    """
    for path in ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model"):
        try:
            with open(path, "rb") as file:
                return file.read().decode("utf-8", "replace").strip("\x00 \n")
        except OSError:
            continue
    if gpu is not None:
        return gpu
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.lower().startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def predicted_seconds(bundle: BundleFiles, lengths: Sequence[int], epochs: float, steps: int) -> float:
    """Return the predicted time of a phase over rows of these lengths, in seconds, step by step with padding.

    Between the lengths for which the bundle has a prediction it is interpolated linearly.

    Args:
        steps: those that were run; fewer than the phase's after an early stop.
    """
    phase = bundle.phase
    known = sorted((int(length), float(seconds)) for length, seconds in phase["predicted"]["step_s"].items())
    batches = phase_batches(lengths, phase["batch_size"], epochs, phase["seed"])
    counts: Dict[int, int] = {}
    for batch in batches[:steps]:
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
    bundle: BundleFiles, rows: int, epochs: float, log: PhaseLog, gpu: Optional[str], software: Mapping[str, str],
    process_mib: float, peak_mib: float, predicted_mib: float, predicted_s: float, metric: Optional[float],
) -> Dict[str, Any]:  # fmt: skip
    """Return measured beside predicted figures of a run, as JSON types.

    Args:
        software: versions and settings of the engine's libraries.
    """
    manifest = bundle.manifest
    # the first step warms up caches and allocators
    timed = log.seconds[1:] or log.seconds
    return {
        "what": MEASUREMENT,
        "schema_version": SCHEMA_VERSION,
        "study": manifest["study"],
        "device": manifest["phase"]["predicted"]["device"],
        "bundle": manifest["digest"],
        "losses": log.losses,
        "measured": {
            "trial": manifest["trial"]["number"],
            "machine": machine_name(gpu),
            "software": dict(software, python=platform.python_version()),
            "rows": rows,
            "epochs": epochs,
            "steps": len(log.seconds),
            "peak_memory_mib": peak_mib,
            "process_memory_mib": process_mib,
            "step_time_s": _median(timed),
            "wall_time_s": sum(timed) / len(timed) * log.done,
            "predicted_memory_mib": predicted_mib,
            "predicted_process_mib": manifest["phase"]["predicted"]["process_mib"],
            "predicted_time_s": predicted_s,
            "metric": metric,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        },
    }


def write_json(path: str, data: Dict[str, Any]) -> None:
    """Write JSON and atomically rename it to ``path``."""
    temporary = path + ".part"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
