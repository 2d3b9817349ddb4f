"""What this machine is and what memory it has, as the profile ``local`` needs it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from farsearch.devices.profile import Figure

__all__ = ["Machine", "Memory", "busy_cores", "measure_memory", "this_machine"]

_MIB = 2**20
_GROWTH = 1.25
"""A process that trains outgrows the bare one by so much at most: threads, and rests in the heap."""

_BARE_PROCESS = """
import resource, sys, torch
from transformers import AutoTokenizer, BertForSequenceClassification, DistilBertForSequenceClassification
if torch.cuda.is_available():
    torch.zeros(1, device="cuda")
try:
    lines = open("/proc/self/status").read().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
print(peak / 1024)
"""
"""Prints the peak resident memory in MiB of a process with the imports of one that fine-tunes. On Linux it is VmHWM,
because ``ru_maxrss`` begins at what the parent held when it started the process."""

_CUDA_PROCESS = """
import torch
torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")
torch.cuda.synchronize()
print(torch.cuda.mem_get_info()[0])
"""


@dataclass(frozen=True)
class Machine:
    """What the figures of ``local`` depend on.

    Attributes:
        kind: ``cuda`` where torch has a CUDA device, which then is what is measured.
        processor: name of the GPU, or of the CPU.
        threads: of torch.
        memory_gib: physical memory of the host, rounded.
    """

    kind: Literal["cuda", "cpu"]
    processor: str
    cores: int
    threads: int
    torch: str
    memory_gib: int

    @property
    def identity(self) -> str:
        """Twelve digits of a hash over all that the figures depend on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Memory:
    """The three memory figures of a profile, in MiB."""

    visible: Figure
    system: Figure
    process: Figure


def this_machine() -> Machine:
    """The machine that this process runs on."""
    cuda = torch.cuda.is_available()
    return Machine(
        kind="cuda" if cuda else "cpu",
        processor=torch.cuda.get_device_name() if cuda else _cpu_name(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        memory_gib=round(_physical() / 2**30),
    )


def measure_memory(machine: Machine, when: str, timeout: float = 30.0) -> Memory:
    """What there is, what others hold and what a bare training process takes.

    Args:
        when: date and versions, for the sources.
        timeout: seconds that the bare process may take; after that its share is assumed.
    """
    # the GPU of a Jetson board works in the host's memory, and so does its context
    if machine.kind == "cuda" and not torch.cuda.get_device_properties(0).is_integrated:
        return _cuda_memory(when, timeout)
    visible, source = _visible()
    process = _bare_process(when, timeout)
    return Memory(_exact(visible, f"{source}, {when}"), _system(visible, when), process)


def busy_cores(seconds: float = 0.3) -> float:
    """Cores that other programs keep busy while this one sleeps for ``seconds``; 0 where the system does not tell."""
    before = _busy_seconds()
    time.sleep(seconds)
    after = _busy_seconds()
    return 0.0 if before is None or after is None else max(0.0, after - before) / seconds


def _busy_seconds() -> float | None:
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _wait, interrupt, soft = (int(field) for field in first[1:8])
    return (user + nice + system + interrupt + soft) / os.sysconf("SC_CLK_TCK")


def _cuda_memory(when: str, timeout: float) -> Memory:
    """Memory of the GPU, seen before and beside another process that only has a context."""
    torch.zeros(1, device="cuda")
    free, total = (number / _MIB for number in torch.cuda.mem_get_info())
    printed = _run(_CUDA_PROCESS, timeout)
    if printed is None:
        context = Figure(300.0, 200.0, 1024.0, "assumed: a process with a context did not end in time", "assumed")
    else:
        taken = max(0.0, free - float(printed) / _MIB)
        source = f"CUDA context: free memory before and beside a second process, {when}"
        context = _figure(taken, 0.9 * taken, _GROWTH * taken, source)
    # this process has a context too, and holds what its allocator reserved; neither counts as others' memory
    taken = total - free - context.value - torch.cuda.memory_reserved() / _MIB
    system = _others(min(max(0.0, taken), 0.9 * total), total, f"total - free - own, {when}")
    return Memory(_exact(total, f"CUDA's total memory, {when}"), system, context)


def _bare_process(when: str, timeout: float) -> Figure:
    printed = _run(_BARE_PROCESS, timeout)
    if printed is None:
        source = "assumed: a process that imports torch and transformers did not end in time"
        return Figure(400.0, 200.0, 1024.0, source, "assumed")
    peak = float(printed)
    source = f"peak resident memory of a process that imports torch and transformers, {when}; high: {_GROWTH} times"
    return _figure(peak, 0.9 * peak, _GROWTH * peak, source)


def _run(code: str, timeout: float) -> str | None:
    """The last line that a fresh Python prints for ``code``; None when it fails or takes too long."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    lines = done.stdout.split()
    return lines[-1] if lines else None


def _visible() -> tuple[float, str]:
    """Memory that this process may see in MiB, with the reason."""
    physical = _physical()
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((Path("/sys/fs/cgroup") / name).read_text())
        except (OSError, ValueError):  # no such control group, or "max" for no limit
            continue
        if limit < physical:
            return limit / _MIB, f"limit of the control group in {name}"
    return physical / _MIB, "physical pages"


def _system(visible: float, when: str) -> Figure:
    """What others hold, and the kernel keeps, of the visible memory."""
    available = _proc("/proc/meminfo", "MemAvailable")
    if available is None:
        source = "assumed a quarter, between a tenth and a half: this system has no /proc/meminfo"
        return Figure(0.25 * visible, 0.1 * visible, 0.5 * visible, source, "assumed")
    own = _proc("/proc/self/status", "RssAnon") or 0.0
    others = min(max(0.0, visible - available - own), 0.9 * visible)
    return _others(others, visible, f"visible - MemAvailable - this process, {when}")


def _others(taken: float, visible: float, source: str) -> Figure:
    """What others hold, with room for some that start later."""
    high = min(1.25 * taken + 256, 0.95 * visible)
    return _figure(taken, 0.75 * taken, high, f"{source}; high: a quarter and 256 MiB more, others may start")


def _proc(path: str, key: str) -> float | None:
    """The value of ``key`` in a file of /proc in MiB; None where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), None)


def _physical() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cpu_name() -> str:
    """The CPU's model, from /proc/cpuinfo where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            if line.startswith(key) and ":" in line:
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _exact(value: float, source: str) -> Figure:
    return _figure(value, value, value, source)


def _figure(value: float, low: float, high: float, source: str) -> Figure:
    """A measured figure in whole MiB."""
    return Figure(float(round(value)), float(round(low)), float(round(high)), source, "measured")
