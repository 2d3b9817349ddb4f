"""Trace one training step as a functional graph of aten operators: no mutation, no view that is written to.

The step is the one that torch trains with: what far/ keeps and recomputes shows in the trace, since its autograd
functions are called while it is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from farsearch.far.features import Batch

__all__ = ["StepGraph", "trace_step"]

_LENGTHS = {"input_ids": (1,), "token_type_ids": (1,), "attention_mask": (3,)}
"""Dimensions of the batch's inputs that are its length."""


@dataclass(frozen=True)
class StepGraph:
    """A training step as a graph.

    Attributes:
        graph: its placeholders are the trained tensors, the frozen ones, and the batch's inputs, in this order; its
            outputs are the loss and the gradient of each trained tensor.
        trained, frozen: names of the model's parameters and buffers. inputs: names of the batch's tensors.
    """

    graph: fx.GraphModule
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    inputs: tuple[str, ...]


def trace_step(model: nn.Module, batch: Batch) -> StepGraph:
    """Trace the mean loss of a batch and the gradients of all parameters that require one.

    Args:
        model: reconfigured and frozen, in training mode, without dropout.
        batch: its number of rows is fixed in the graph; its length is symbolic, and must be none of the model's sizes.
    """
    named = dict(model.named_parameters(remove_duplicate=True))
    trained = {name: value for name, value in named.items() if value.requires_grad}
    frozen = {name: value.detach() for name, value in named.items() if not value.requires_grad}
    frozen.update(model.named_buffers())

    def step(learned: list[Tensor], held: list[Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
        state = dict(zip([*trained, *frozen], [*learned, *held], strict=True))
        loss = functional_call(model, state, kwargs=dict(zip(batch.inputs, inputs, strict=True))).loss
        return (loss, *torch.autograd.grad(loss, learned))

    shapes = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    tensors = (
        [shapes.from_tensor(value.detach().requires_grad_(), static_shapes=True) for value in trained.values()],
        [shapes.from_tensor(value, static_shapes=True) for value in frozen.values()],
        [_with_open_length(shapes, name, value) for name, value in batch.inputs.items()],
    )
    with shapes, enable_python_dispatcher():
        traced = make_fx(step)(*tensors)
        with torch.no_grad():
            functional = make_fx(functionalize(traced, remove="mutations_and_views"))(*tensors)
    functional.graph.eliminate_dead_code()
    functional.recompile()
    return StepGraph(functional, tuple(trained), tuple(frozen), tuple(batch.inputs))


def _with_open_length(shapes: FakeTensorMode, name: str, value: Tensor) -> Tensor:
    """A fake tensor whose dimensions of the batch's length are symbolic, all by one symbol."""
    open_sizes = _LENGTHS.get(name, ())
    kinds = [DimDynamic.DUCK if i in open_sizes else DimDynamic.STATIC for i in range(value.dim())]
    return shapes.from_tensor(value, symbolic_context=StatelessSymbolicContext(dynamic_sizes=kinds))
