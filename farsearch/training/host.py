"""This machine, which trains: its device, and whether its memory suffices for a search."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.devices.profile import Profile
from farsearch.devices.registry import load_profile
from farsearch.errors import BadInput, MissingResource
from farsearch.formatting import human_memory
from farsearch.models.config import load_config
from farsearch.models.heads import Head, head_for
from farsearch.models.source import ModelSource
from farsearch.records import JobSpec, StepPlan
from farsearch.runtime.bundle_files import BundleProblem
from farsearch.runtime.memory import resident_mib
from farsearch.runtime.task import Task
from farsearch.runtime.torch_engine.device import training_device
from farsearch.runtime.torch_engine.memory import available_mib

__all__ = ["check_host_memory", "host_device", "host_need_mib"]

_ALIKE = {"cuda": "jetson-orin-nano", "mps": "jetson-orin-nano", "cpu": "raspberry-pi-4"}
"""Shipped profiles with the attention and the dropout masks of current torch on each kind of device."""


def host_device() -> torch.device:
    """Return the device that trains, as ``training_device``.

    Raises:
        BadInput: when the environment names a device that torch does not have here.
    """
    try:
        return training_device()
    except BundleProblem as error:
        raise BadInput(str(error)) from None


def host_need_mib(model_config: Any, head: Head, batch_size: int, max_length: int) -> float:
    """Return the memory that full fine-tuning by ordinary modules takes on this machine, in MiB.

    No training of a search needs more: priming and the baseline do this, all others train less by leaner plans. To the
    tensors of a step a CPU adds this process, and a second copy of the weights, from which each trial starts.
    """
    device, version = host_device(), ".".join(torch.__version__.split(".")[:2])
    profile: Profile = dataclasses.replace(load_profile(_ALIKE[device.type]), torch=version)
    pricer = Pricer(model_config, head, batch_size, max_length, profile)
    price = pricer.price(full_fine_tuning(pricer.layers), StepPlan())
    if device.type == "cuda":
        return price.tensor_peak_mib
    return price.tensor_peak_mib + price.trainable * 4 / 2**20 + (resident_mib() or 0.0)


def check_host_memory(job: JobSpec, source: ModelSource, task: Task, workers: int = 1) -> None:
    """Check that this machine has the memory for the trainings of a search.

    Args:
        workers: processes that train at once.

    Raises:
        MissingResource: with what is needed, what is available, and a suggestion.
    """
    config = load_config(source)
    need = workers * host_need_mib(config, head_for(task, config), job.batch_size, job.max_length)
    available = available_mib()
    if available is not None and need > available:
        fewer = "fewer `workers`, " if workers > 1 else ""
        raise MissingResource(
            f"{job.model} with batches of {job.batch_size} x {job.max_length} tokens needs {human_memory(need)} to be "
            f"trained on this machine, {human_memory(available)} are available; close other programs, or give {fewer}a "
            "smaller `batch_size`, `max_length` or `model`"
        )
