"""Facts about the host, whatever computes on it: processor, conditions, and the load of other programs."""

import glob
import os
import platform
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Optional

__all__ = [
    "BUSY_SHARE",
    "OtherPrograms",
    "conditions",
    "cpu_name",
    "demanded_cores",
    "host_facts",
    "physical_bytes",
    "plain",
    "read_text",
    "wait_for_idle",
]

BUSY_SHARE = 0.2
"""Share of the cores used by other programs above which they are waited for, and the range of times is widened."""


def read_text(path: str) -> Optional[str]:
    """Return the text of a file of the system without zero bytes; None if it can't be read."""
    try:
        with open(path, errors="replace") as file:
            return file.read().replace("\x00", "").strip()
    except OSError:
        return None


def plain(text: str) -> str:
    """Return a text as one printable line: the self-descriptions of boards contain tabs and zero bytes."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _busy_cores(seconds: float = 0.5) -> Optional[float]:
    """Cores used by other programs while this one sleeps; None if unknown."""
    before = _busy_seconds()
    time.sleep(seconds)
    after = _busy_seconds()
    return None if before is None or after is None else max(0.0, after - before) / seconds


def _busy_seconds() -> Optional[float]:
    text = read_text("/proc/stat")
    if sys.platform == "win32" or text is None:
        return None
    else:
        user, nice, system, _idle, _waiting, interrupt, soft, stolen = [int(field) for field in text.split()[1:9]]
        return (user + nice + system + interrupt + soft + stolen) / float(os.sysconf("SC_CLK_TCK"))


def demanded_cores(used: float, cores: int) -> float:
    """Return the demand d of other programs that used u of c cores beside this process: u = c d / (c + d)."""
    used = min(used, 0.9 * cores)
    return cores * used / (cores - used)


class OtherPrograms:
    """The cores used by other programs during the measurement, without this process and its children."""

    def __init__(self) -> None:
        self._busy, self._own, self._begun = _busy_seconds(), sum(os.times()[:4]), time.perf_counter()

    def cores(self) -> Optional[float]:
        """Return the mean number of cores used by others since the construction; None if unknown."""
        now = _busy_seconds()
        if now is None or self._busy is None:
            return None
        others = now - self._busy - (sum(os.times()[:4]) - self._own)
        return max(0.0, others) / (time.perf_counter() - self._begun)


def wait_for_idle(cores: int, patience: float, report: Callable[[str], None]) -> Optional[float]:
    """Wait at most ``patience`` seconds for other programs to end, and return the cores that they use."""
    busy = _busy_cores()
    if busy is None or busy <= BUSY_SHARE * cores:
        return busy
    report("other programs keep {:.1f} of {} cores busy; waiting up to {:.0f} s for them".format(busy, cores, patience))
    end = time.perf_counter() + patience
    while busy is not None and busy > BUSY_SHARE * cores and time.perf_counter() < end:
        time.sleep(1.0)
        busy = _busy_cores()
    return busy


def conditions() -> Dict[str, str]:
    """Return clocks, governors, power mode and temperatures, as far as this machine reports them."""
    states = {}
    folder = "/sys/devices/system/cpu/cpu0/cpufreq"
    for name, path in (
        ("board", "/proc/device-tree/model"),
        ("jetpack", "/etc/nv_tegra_release"),
        ("cpu_governor", folder + "/scaling_governor"),
        ("cpu_khz", folder + "/scaling_cur_freq"),
        ("cpu_max_khz", folder + "/scaling_max_freq"),
    ):
        text = read_text(path)
        if text:
            states[name] = plain(text.splitlines()[0])
    for path in sorted(
        glob.glob("/sys/class/devfreq/*gpu*/cur_freq") + glob.glob("/sys/class/devfreq/*gv11b*/cur_freq")
    ):
        states["gpu_hz"] = plain(read_text(path) or "")
    degrees = [read_text(path) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    known = [int(text) for text in degrees if text and text.lstrip("-").isdigit()]
    if known:
        states["hottest_celsius"] = "{:.0f}".format(max(known) / 1000.0)
    for name, command in (("power_mode", ["nvpmodel", "-q"]), ("throttled", ["vcgencmd", "get_throttled"])):
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10)
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            states[name] = plain(done.stdout.decode("utf-8", "replace"))
    return states


def host_facts() -> Dict[str, Any]:
    """Return cores, Python's version and physical memory."""
    return {
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "memory_gib": int(round(physical_bytes() / 2.0**30)),
    }


def physical_bytes() -> int:
    """Return the size of this machine's memory in bytes."""
    if sys.platform == "win32":
        import psutil  # installed with farsearch; boards run Linux

        return int(psutil.virtual_memory().total)
    else:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cpu_name() -> str:
    """Return the CPU's model, from /proc/cpuinfo if that exists."""
    lines = (read_text("/proc/cpuinfo") or "").splitlines()
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            if line.startswith(key) and ":" in line:
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
