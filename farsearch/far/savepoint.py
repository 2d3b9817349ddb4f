"""Where a phase stands, on disk: trained weights, the optimizer's state and the number of steps done.

A phase that goes on from there does what it would have done without the break: dropout of a step is drawn by the
step's number, and so is its batch.
"""

from typing import Any, Dict, Iterator, Mapping, Tuple

import torch
from torch import Tensor, nn

from . import safetensors
from .display import shown
from .optimizer import BackwardOptimizer, Optimizer

__all__ = ["read_savepoint", "write_savepoint"]

_WEIGHT, _STATE, _NUMBER = "weight/", "state/", "number/"
"""Of a trained tensor, a tensor of the optimizer's state, and a plain number of it (older versions count steps so)."""


def write_savepoint(path: str, model: nn.Module, optimizer: Optimizer, said: Mapping[str, str]) -> None:
    """Write the state of a phase, whole or not at all.

    Args:
        model: as it is trained; what is frozen is not written.
        said: what else is to be kept, the number of steps among it.

    Raises:
        OSError: when the disk refuses.
    """
    tensors: Dict[str, Tensor] = {}
    for name, parameter, state in _trained(model, optimizer):
        tensors[_WEIGHT + name] = parameter
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors["{}{}/{}".format(_STATE, key, name)] = value
            else:
                tensors["{}{}/{}".format(_NUMBER, key, name)] = torch.tensor(float(value), dtype=torch.float64)
    safetensors.save(path, tensors, said)


def read_savepoint(path: str, model: nn.Module, optimizer: Optimizer) -> None:
    """Bring model and optimizer, both as they were when the phase began, to where the savepoint was written.

    Raises:
        OSError: when it can't be read.
        ValueError: when it is damaged, or of another model or optimizer.
    """
    owners = {name: (parameter, state) for name, parameter, state in _trained(model, optimizer)}
    left = set(owners)
    for key, value in safetensors.read(path):
        kind, _, rest = key.partition("/")
        field, name = ("", rest) if kind + "/" == _WEIGHT else _split(rest)
        if name not in owners:
            raise ValueError("it has {}, which is not trained here".format(shown(name)))
        parameter, state = owners[name]
        if kind + "/" == _WEIGHT:
            if value.shape != parameter.shape:
                raise ValueError("{} has another shape than the model's".format(shown(name)))
            with torch.no_grad():
                parameter.copy_(value)
            left.discard(name)
        elif kind + "/" == _STATE:
            # a count stays where its optimizer keeps it, on the CPU as a rule
            state[field] = value.to(parameter.device) if value.shape == parameter.shape else value
        else:
            state[field] = int(value)
    if left:
        raise ValueError("it lacks {!r}".format(sorted(left)[0]))


def _split(text: str) -> Tuple[str, str]:
    field, _, name = text.partition("/")
    return field, name


def _trained(model: nn.Module, optimizer: Optimizer) -> Iterator[Tuple[str, Tensor, Dict[str, Any]]]:
    """Each trained parameter with its name and the optimizer's state of it, which may be written to."""
    parts = optimizer.optimizers if isinstance(optimizer, BackwardOptimizer) else [optimizer]
    owner = {id(p): part for part in parts for group in part.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter, owner[id(parameter)].state[parameter]
