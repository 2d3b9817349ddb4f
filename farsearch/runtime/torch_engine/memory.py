"""Memory of this process with torch's: on the GPU, and beside the tensors of a model."""

import os
from typing import Optional

import torch
from torch import nn

from ...far.features import Features, batch_of
from ..memory import MIB, host_available_mib, host_peak_mib, release, reset_host_peak, resident_mib
from .device import gpu_memory_mib, training_device

__all__ = ["available_mib", "peak_mib", "process_mib", "reset_peak"]


def available_mib() -> Optional[float]:
    """Return the memory that a new process could take, this one's included, in MiB; None if it is not reported.

    GPU and CPU of a Jetson or of Apple share one memory; a discrete GPU's own memory is the limit.
    """
    host = host_available_mib()
    if host is not None and training_device().type == "cuda" and not _shares_memory():
        return torch.cuda.mem_get_info()[0] / MIB if hasattr(torch.cuda, "mem_get_info") else None
    return host


def _shares_memory() -> bool:
    return os.path.exists("/etc/nv_tegra_release") or os.path.isdir("/sys/devices/soc0")


def reset_peak() -> None:
    """Reset the peak of ``peak_mib``, so that it does not include the loading of a model."""
    if training_device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    reset_host_peak()


def peak_mib() -> float:
    """Return the highest resident memory of this process, plus that of the GPU's allocator where one trains."""
    return host_peak_mib() + gpu_memory_mib(training_device())


def process_mib(model: nn.Module, features: Features, pad_id: int) -> float:
    """Return the memory of this process beside the tensors of a model that is ready to be trained, in MiB.

    One row goes forward and backward first: libraries load and allocate more at their first use. If the system does
    not report the resident memory now, the peak so far replaces it.
    """
    _warm_up(model, features, pad_id)
    release()
    resident = resident_mib()
    tensors = sum(value.numel() * value.element_size() for value in [*model.parameters(), *model.buffers()])
    return max(0.0, (peak_mib() if resident is None else resident) - tensors / MIB)


def _warm_up(model: nn.Module, features: Features, pad_id: int) -> None:
    """A step that changes no parameter, and one of the optimizer on a tensor of its own."""
    device = next(model.parameters()).device
    model.train()
    model(**batch_of(features.take([0]), pad_id, device).inputs).loss.backward()
    model.zero_grad(set_to_none=True)
    tiny = nn.Linear(64, 64).to(device)
    tiny(torch.zeros(64, 64, device=device)).sum().backward()
    torch.optim.AdamW(tiny.parameters()).step()
