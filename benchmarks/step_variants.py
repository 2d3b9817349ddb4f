"""The variants of far_step: methods of fine-tuning one model, each with its trained parameters and execution.

Other methods use ordinary modules and AdamW with torch's default kernel for the device (tensor by tensor on a CPU).
Ours are executed by a step plan.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from farsearch.baselines import METHODS
from farsearch.calibration.steps import apply_config
from farsearch.cost.plans import optimizer_of
from farsearch.far.features import Batch
from farsearch.far.layout import ModelLayout, get_module, set_module
from farsearch.far.loop import train_step
from farsearch.far.optimizer import Optimizer
from farsearch.far.selection import learner_count, random_learners
from farsearch.records import FarConfig, StepPlan

__all__ = ["ABLATION", "FULL", "VARIANTS", "Contender", "Family", "RowSplit", "Variant", "contender"]

FULL = "full"
"""The reference of all other variants."""

Prepare = Callable[[nn.Module, ModelLayout], object]

Family = Literal["full fine-tuning", "FAR, ordinary modules", "FAR", "FAR, more frozen", "other methods", "ablation"]

_FROZEN = 0.9
_RATE = 2e-5
"""Learning rate: small, so that the values of twenty steps stay realistic."""


@dataclass(frozen=True)
class Variant:
    """One method of fine-tuning.

    Attributes:
        prepare: readies a model in place, of which everything is trained and nothing is reconfigured.
        plan: how ours is executed, None for a rival.
    """

    name: str
    family: Family
    prepare: Prepare
    plan: StepPlan | None = None


@dataclass(frozen=True)
class Contender:
    """A variant with its model and optimizer."""

    variant: Variant
    model: nn.Module
    optimizer: Optimizer

    @property
    def trainable(self) -> int:
        """Return the number of trained parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def step(self, batch: Batch) -> Tensor:
        """Run one optimizer step."""
        return train_step(self.model, self.optimizer, batch)

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss, which holds the tensors saved for the backward pass."""
        loss: Tensor = self.model(**batch.inputs).loss
        return loss


def contender(variant: Variant, model: nn.Module, layout: ModelLayout) -> Contender:
    """Return a copy of ``model`` prepared for ``variant``."""
    model = copy.deepcopy(model).train()
    variant.prepare(model, layout)
    if variant.plan is None:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer: Optimizer = torch.optim.AdamW(trained)
    else:
        optimizer = optimizer_of(variant.plan, model)
    for group in optimizer.param_groups:
        group["lr"] = _RATE
    return Contender(variant, model, optimizer)


class RowSplit(nn.Module):
    """A linear map with learning and frozen output rows, as in FAR's paper: two maps, permuted.

    Args:
        linear: of any shape ``[rows, columns]``, with bias.
        learners: the rows that learn.
    """

    order: Tensor

    def __init__(self, linear: nn.Linear, learners: list[int]) -> None:
        super().__init__()
        rest = sorted(set(range(linear.out_features)) - set(learners))
        self.learner, self.frozen = _rows(linear, learners), _rows(linear, rest).requires_grad_(False)
        order = torch.tensor([*learners, *rest], device=linear.weight.device).argsort()
        self.register_buffer("order", order, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., columns]`` to ``[..., rows]``."""
        y = torch.cat([self.learner(x), self.frozen(x)], -1)
        # the quickest permutation of torch, backward too, that saves no copy of y
        return y.index_select(-1, self.order)


def _rows(linear: nn.Linear, rows: list[int]) -> nn.Linear:
    part = nn.Linear(linear.in_features, len(rows), device="meta")
    part.weight = nn.Parameter(linear.weight.detach()[rows])
    part.bias = nn.Parameter(linear.bias.detach()[rows])
    return part


def _split_by_rows(model: nn.Module, layout: ModelLayout) -> None:
    """Split both maps of each feed-forward block, with a tenth of the rows learning."""
    for layer in layout.layers:
        for path in (layer.blocks[0].up, layer.blocks[0].down):
            linear = get_module(model, path)
            rows = linear.out_features
            set_module(model, path, RowSplit(linear, random_learners(rows, learner_count(rows, _FROZEN), seed=0)))


def _far(frozen: float, plan: StepPlan, embeddings: bool = False, attention: bool = False) -> Prepare:
    """FAR with one frozen fraction for all layers; ``attention`` freezes the attention of all layers."""

    def prepare(model: nn.Module, layout: ModelLayout) -> None:
        layers = len(layout.layers)
        config = FarConfig((frozen,) * layers, 1e-4, 1.0, 0.0, embeddings, layers if attention else 0)
        apply_config(model, layout, config, plan)

    return prepare


def _ours(name: str, family: Family, plan: StepPlan, embeddings: bool = False, attention: bool = False) -> Variant:
    return Variant(name, family, _far(_FROZEN, plan, embeddings, attention), plan)


def _checkpoint(model: nn.Module, layout: ModelLayout) -> None:
    """Checkpoint each layer by torch; transformers' switch for it changes its name between versions."""
    for layer in layout.layers:
        module = get_module(model, layer.path)
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def _method(name: str) -> Prepare:
    prepare = METHODS[name].prepare
    assert prepare is not None
    return prepare


_MODULES = StepPlan()
_STORE = StepPlan(
    feed_forward="store",
    attention="recompute",
    dropout="seed",
    layer_norm="output",
    optimizer_kernel="fused",
    optimizer_step="backward",
)
_COMPACT = dataclasses.replace(_STORE, feed_forward="compact")
_RECOMPUTE = dataclasses.replace(_STORE, feed_forward="recompute")
_CHECKPOINTED = dataclasses.replace(_STORE, checkpointing=True)

VARIANTS = (
    Variant(FULL, "full fine-tuning", _far(0.0, _MODULES)),
    Variant("full-ckpt", "full fine-tuning", _checkpoint),
    Variant("far10-rows", "FAR, ordinary modules", _split_by_rows),
    _ours("far10-modules", "FAR, ordinary modules", _MODULES),
    _ours("far10-store", "FAR", _STORE),
    _ours("far10-compact", "FAR", _COMPACT),
    _ours("far10-recompute", "FAR", _RECOMPUTE),
    _ours("far10-emb", "FAR, more frozen", _STORE, embeddings=True),
    _ours("far10-emb-attn", "FAR, more frozen", _STORE, embeddings=True, attention=True),
    _ours("far10-emb-attn-ckpt", "FAR, more frozen", _CHECKPOINTED, embeddings=True, attention=True),
    Variant("ffn-frozen", "other methods", _far(1.0, _MODULES)),
    Variant("bitfit", "other methods", _method("bitfit")),
    Variant("lora8", "other methods", _method("lora8")),
)

_PIECES = ("feed_forward", "attention", "dropout", "layer_norm", "optimizer_kernel", "optimizer_step")


def _without(piece: str) -> Variant:
    ordinary = getattr(_MODULES, piece)
    plan = dataclasses.replace(_STORE, **{piece: ordinary})
    return _ours(f"far10-store:{piece}={ordinary}", "ablation", plan)


ABLATION = tuple(_without(piece) for piece in _PIECES)
"""far10-store with one part of its plan at a time as in ordinary modules."""
