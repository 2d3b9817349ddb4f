"""The result of one training: its metrics, predictions and trained tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from farsearch.priming import Primed
from farsearch.records import LossPoint, PrimingReport
from farsearch.runtime import memory
from farsearch.runtime.torch_engine.device import gpu_memory_mib
from farsearch.tasks.metrics import MetricValue
from farsearch.training.phase import Learners, State

__all__ = ["Outcome", "further_metrics", "host_peak_mib"]


@dataclass(frozen=True)
class Outcome:
    """The result of one trial's training.

    Attributes:
        metric: on the validation rows; where there are none, on the development rows.
        learned: ``metric`` is above that of the best constant answer by more than its standard error.
        parts: the single metrics of a combined metric, and the metrics on further development sets.
        learners, heads: trained neurons of each feed-forward block, and trained heads of each layer, as ``apply_far``
            takes them; empty for a method that is not FAR.
        trained: the trained tensors, by the names of the reconfigured model.
        validation_logits, dev_logits: as ``far.loop.predict`` returns them.
        validation_evidence, dev_evidence: contribution of each row to the metric, ``[rows, k]`` (``runtime.scores``).
    """

    metric: float
    metric_error: float
    learned: bool
    dev_metric: float
    parts: Mapping[str, float]
    validation_logits: Tensor
    validation_evidence: Tensor
    dev_logits: Tensor
    dev_evidence: Tensor
    learners: Learners
    heads: Learners
    trained: State
    primed: Primed | None
    priming: PrimingReport
    curve: tuple[LossPoint, ...]
    host_seconds: float
    host_peak_mib: float
    trainable: int


def further_metrics(values: Mapping[str, MetricValue]) -> dict[str, float]:
    """Return the metrics that ``metric`` and ``dev_metric`` leave out: ``f1``, ``dev/f1``, ``dev_mismatched/accuracy``.

    Args:
        values: by ``validation``, ``dev``, and the names of further development sets.
    """
    parts = {}
    for name, value in values.items():
        prefix = {"validation": "", "dev": "dev/"}.get(name, f"dev_{name}/")
        if len(value.parts) > 1 or name not in ("validation", "dev"):
            parts.update({prefix + part: figure for part, figure in value.parts.items()})
    return parts


def host_peak_mib(device: torch.device) -> float:
    """Return the peak of CUDA's allocator since its last reset; otherwise of the process's resident memory so far.

    Apple's GPU has no counter of a peak; what its allocator holds now is added.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return memory.host_peak_mib() + gpu_memory_mib(device)
