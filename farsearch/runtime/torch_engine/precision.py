"""Whether this device computes in the precision of a bundle's step plan."""

from typing import Optional, Sequence

import torch

from ..bundle_files import BundleFiles, BundleProblem

__all__ = ["check_precision"]

CPU_FILE = "/proc/cpuinfo"
"""Where Linux reports the features of a CPU."""
_CAPABILITY = {"bfloat16": (8, 0), "float16": (7, 0)}
"""The first GPUs with tensor cores for a type: Ampere, as in an Orin, and Volta, as in a Xavier."""
_FLAGS = {
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16"),
    "float16": ("avx512_fp16", "amx_fp16", "asimdhp"),
}
"""Features of the CPUs with products of a type, of x86 and ARM."""


def check_precision(bundle: BundleFiles) -> None:
    """Check that this device has the products of a bundle's plan; elsewhere they are computed, but very slowly.

    Raises:
        BundleProblem: one line that names the device.
    """
    precision = bundle.phase["plan"].get("precision", "float32")
    if precision == "float32":
        return
    if torch.cuda.is_available():
        name = str(torch.cuda.get_device_name(0))
        has = tuple(torch.cuda.get_device_capability(0)) >= _CAPABILITY[precision]
    else:
        name, features = "this CPU", _cpu_features()
        has = features is None or any(flag in features for flag in _FLAGS[precision])
    if not has:
        raise BundleProblem(
            "{}: its step plan computes in {}, which {} lacks; export a trial of a study in float32".format(
                bundle.folder, precision, name
            )
        )


def _cpu_features() -> Optional[Sequence[str]]:
    """Features of the first core; None where the system does not report them."""
    try:
        with open(CPU_FILE) as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return None
    return next((value.split() for key, _, value in lines if key.strip() in ("flags", "Features")), None)
