"""Checkpointing for torch >= 1.10, with any arguments, also above frozen layers."""

from functools import partial
from typing import Any, Callable, Dict

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from .dropout import drawn_again, generator_state
from .execution import autocast_dtype, autocast_to

__all__ = ["checkpointed"]


def checkpointed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` such that it saves only its arguments, and is run again in the backward pass.

    The tensors that autograd would save are numbered in the forward pass, and looked up by their number when the
    function is run again. torch's own checkpointing does this since 1.11; the reentrant one before needs an input with
    a gradient and accepts no keywords.
    """
    return partial(_run, function)  # not a closure: a deep copy of a model must run its own layers


def _run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    state, dtype = generator_state(x), autocast_dtype(x)
    count = 0
    again: Dict[int, Tensor] = {}

    def number(_: Tensor) -> int:
        nonlocal count
        count += 1
        return count - 1

    def recompute(key: int) -> Tensor:
        if not again:
            with drawn_again(x, state), torch.enable_grad(), autocast_to(x, dtype), saved_tensors_hooks(keep, refuse):
                function(*args, **kwargs)
        return again.pop(key)

    def keep(tensor: Tensor) -> None:
        again[len(again)] = tensor.detach()

    def refuse(_: None) -> Tensor:
        raise RuntimeError("a checkpointed part can't be differentiated twice")

    with saved_tensors_hooks(number, recompute):
        return function(*args, **kwargs)
