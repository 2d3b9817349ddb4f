"""The machine as torch sees it."""

from typing import Any, Dict

import torch

from .host import cpu_name, host_facts, plain

__all__ = ["device_of_torch", "machine"]


def device_of_torch() -> torch.device:
    """Return CUDA if torch supports it here, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> Dict[str, Any]:
    """Return the properties on which the figures depend: processor, cores, torch and its threads, memory."""
    cuda = device_of_torch().type == "cuda"
    return dict(
        host_facts(),
        kind="cuda" if cuda else "cpu",
        processor=plain(torch.cuda.get_device_name() if cuda else cpu_name()),
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
    )
