"""The state of a phase on disk: trained weights, the optimizer's state and the number of steps done.

A phase resumed from a savepoint is identical to one without interruption: dropout and batch of a step depend on the
number of the step.
"""

from typing import Any, Dict, Iterator, Mapping, Tuple

import torch
from torch import Tensor, nn

from . import safetensors
from .display import shown
from .optimizer import BackwardOptimizer, Optimizer

__all__ = ["read_savepoint", "write_savepoint"]

_WEIGHT, _STATE, _NUMBER, _BEST = "weight/", "state/", "number/", "best/"
"""Prefixes of a trained tensor, a tensor of the optimizer's state, a plain number of it (the step count of older
versions), and a trained tensor of the best state."""


def write_savepoint(
    path: str, model: nn.Module, optimizer: Optimizer, texts: Mapping[str, str], best: Mapping[str, Tensor]
) -> None:
    """Write the state of a phase atomically.

    Args:
        model: in training; frozen parameters are not written.
        texts: metadata, such as the number of steps.
        best: trained tensors of the best state by name; empty without one.

    Raises:
        OSError: if the file can't be written.
    """
    tensors: Dict[str, Tensor] = {_BEST + name: value for name, value in best.items()}
    for name, parameter, state in _trained(model, optimizer):
        tensors[_WEIGHT + name] = parameter
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors["{}{}/{}".format(_STATE, key, name)] = value
            else:
                tensors["{}{}/{}".format(_NUMBER, key, name)] = torch.tensor(float(value), dtype=torch.float64)
    safetensors.save(path, tensors, texts)


def read_savepoint(path: str, model: nn.Module, optimizer: Optimizer) -> Dict[str, Tensor]:
    """Restore the state of a savepoint in model and optimizer, which are in their state at the start of the phase.

    Returns:
        the trained tensors of the best state by name; empty without one.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is damaged, or of another model or optimizer.
    """
    owners = {name: (parameter, state) for name, parameter, state in _trained(model, optimizer)}
    missing, best = set(owners), {}
    for key, value in safetensors.read(path):
        kind, _, rest = key.partition("/")
        field, name = ("", rest) if kind + "/" in (_WEIGHT, _BEST) else _split(rest)
        if name not in owners:
            raise ValueError("it has {}, which is not trained here".format(shown(name)))
        parameter, state = owners[name]
        if kind + "/" == _BEST:
            best[name] = value.to(parameter.device)
            continue
        if kind + "/" == _WEIGHT:
            if value.shape != parameter.shape:
                raise ValueError("{} has another shape than the model's".format(shown(name)))
            with torch.no_grad():
                parameter.copy_(value)
            missing.discard(name)
        elif kind + "/" == _STATE:
            # a step count stays on its optimizer's device, usually the CPU
            state[field] = value.to(parameter.device) if value.shape == parameter.shape else value
        else:
            state[field] = int(value)
    if missing:
        raise ValueError("it lacks {!r}".format(sorted(missing)[0]))
    return best


def _split(text: str) -> Tuple[str, str]:
    field, _, name = text.partition("/")
    return field, name


def _trained(model: nn.Module, optimizer: Optimizer) -> Iterator[Tuple[str, Tensor, Dict[str, Any]]]:
    """Yield name, parameter and mutable optimizer state of each trained parameter."""
    parts = optimizer.optimizers if isinstance(optimizer, BackwardOptimizer) else [optimizer]
    owner = {id(p): part for part in parts for group in part.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter, owner[id(parameter)].state[parameter]
