"""The device that trains: a GPU of CUDA, Apple's GPU, or the CPU."""

import os
import platform
from typing import Optional

import torch

from ..bundle_files import BundleProblem

__all__ = ["TRAIN_ON", "gpu_memory_mib", "gpu_name", "training_device"]

TRAIN_ON = "FARSEARCH_TRAIN_ON"
"""Variable of the environment with the device's type, for a machine whose GPU is not to be used."""

_TYPES = ("cuda", "mps", "cpu")
"""From the fastest to the one that every machine has."""


def training_device() -> torch.device:
    """Return the device of ``FARSEARCH_TRAIN_ON``, else CUDA's, else Apple's (``mps``), else the CPU.

    Raises:
        BundleProblem: when the variable names a device that torch does not have here.
    """
    here = [kind for kind in _TYPES if _is_here(kind)]
    wanted = os.environ.get(TRAIN_ON, "")
    if wanted and wanted not in here:
        raise BundleProblem(
            "{} is {!r}; torch has {} on this machine: give one of these, or unset it".format(
                TRAIN_ON, wanted, ", ".join(here)
            )
        )
    return torch.device(wanted or here[0])


def _is_here(kind: str) -> bool:
    if kind == "mps":
        backend = getattr(torch.backends, "mps", None)  # since torch 1.12
        return backend is not None and bool(backend.is_available())
    return kind == "cpu" or torch.cuda.is_available()


def gpu_name() -> Optional[str]:
    """Return the name of the GPU that trains; None for the CPU."""
    kind = training_device().type
    if kind == "cuda":
        return str(torch.cuda.get_device_name(0))
    return "{}, MPS".format(platform.processor() or platform.machine()) if kind == "mps" else None


def gpu_memory_mib(device: torch.device) -> float:
    """Return the memory that torch's allocator took from a GPU, at its peak, in MiB; 0 for the CPU.

    Apple's GPU has no counter of a peak: it is what the allocator holds now, which it does not return by itself.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 2.0**20
    return torch.mps.driver_allocated_memory() / 2.0**20 if device.type == "mps" else 0.0
