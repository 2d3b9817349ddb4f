"""The whole measurement with the engine without torch, and its command line."""

import os
import tempfile
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import onnxruntime

from .host import cpu_name, host_facts, plain
from .memory import host_memory
from .onnx_timing import GraphCases, compiled_step, engine_overheads, engine_sustained, unpacked
from .session import SECONDS, SHARES, command_line, measured, room_for_operands

__all__ = ["main", "measure_engine"]

_BARE_PROCESS = """
import argparse, csv, ctypes, glob, hashlib, json, mmap, tempfile
import numpy
import onnxruntime
imported = "numpy and onnxruntime"
try:
    import tokenizers
    imported = "numpy, onnxruntime and tokenizers"
except ImportError:
    pass
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}
options.add_session_config_entry("session.disable_prepacking", "1")
sessions = [
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for path in glob.glob({folder!r} + "/graph-*.onnx")
]
lines = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) / 1024.0 for line in lines if line.startswith("VmRSS:")), imported)
"""
"""Prints the MiB of a process with the imports and the sessions of one that trains."""


def measure_engine(
    payload: str, seconds: float = SECONDS, report: Callable[[str], None] = lambda _: None,
    threads: Optional[int] = None,
) -> Dict[str, Any]:  # fmt: skip
    """Measure this machine's CPU with onnxruntime and numpy.

    Args:
        payload: the text that ``farsearch.calibration.payload`` makes.
        seconds: time of the measurements; the memory of a bare process may take 30 s more.
        report: called with messages.
        threads: of a graph; None for onnxruntime's choice.
    """
    values = unpacked(payload)
    facts = dict(
        host_facts(),
        kind="cpu",
        processor=plain(cpu_name()),
        threads=threads or os.cpu_count() or 1,
        onnxruntime=str(onnxruntime.__version__),
        numpy=str(np.__version__),
    )

    def parts(left: Callable[[], float]) -> Dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="farsearch-") as folder:
            tiny = compiled_step(values["tiny"], folder, threads)
            report("memory of a bare process")
            memory = host_memory(_BARE_PROCESS.format(threads=threads or 0, folder=folder), 30.0)
            room = room_for_operands(memory)
            cases = GraphCases(values, folder, int(min(values["most_elements"], room)), threads)
            report("overheads")
            launch = engine_overheads(cases, tiny, SHARES["launch"] * seconds)
            samples: List[Dict[str, Any]] = []
            for group in ("products", "streams"):
                samples += cases.timed(group, SHARES[group] * seconds, report)
            del cases
            # half of the free memory, where the operands had an eighth of it
            room_mib = 4 * 4 * room / 2**20
            sustained = engine_sustained(values["steps"], folder, threads, room_mib, left(), report)
        return {"memory": memory, "launch": launch, "samples": samples, "sustained": sustained}

    return measured(facts, seconds, report, parts)


def main(payload: str) -> None:
    """Run the command line of the file on a board."""
    command_line("onnxruntime", lambda seconds, report, threads: measure_engine(payload, seconds, report, threads))
