"""The optimizer: AdamW or SGD, operation by operation or fused, at the end of a step or during its backward pass."""

import inspect
from typing import Any, Callable, Dict, List, Sequence, Union

import torch
from torch import Tensor, nn

__all__ = ["BackwardOptimizer", "Optimizer", "has_backward_hooks", "has_fused", "make_optimizer"]

_KINDS: Dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def _version() -> Sequence[int]:
    return [int(part) for part in torch.__version__.split("+")[0].split(".")[:2]]


def has_fused() -> bool:
    """This torch has fused kernels of both optimizers on a CPU and on CUDA: since 2.4."""
    return list(_version()) >= [2, 4]


def has_backward_hooks() -> bool:
    """This torch can call back when a gradient is complete: since 2.1."""
    return hasattr(Tensor, "register_post_accumulate_grad_hook")


def _trained(model: nn.Module) -> List[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _make(kind: str, parameters: Sequence[nn.Parameter], weight_decay: float, fused: bool) -> torch.optim.Optimizer:
    factory = _KINDS[kind]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    # torch 1.10 knows neither argument and steps tensor by tensor anyway
    known = inspect.signature(factory).parameters
    options: Dict[str, bool] = {"fused": True} if fused else {"foreach": False} if "foreach" in known else {}
    return factory([group for group in groups if group["params"]], lr=1e-3, **options)


class BackwardOptimizer:
    """Steps each parameter as soon as its gradient is complete, and drops the gradient.

    So never more than one gradient lives. The result is that of ``make_optimizer`` with the same arguments: AdamW and
    SGD treat each parameter by itself. It needs ``has_backward_hooks``. Call ``close`` when training is over.
    """

    def __init__(self, kind: str, model: nn.Module, weight_decay: float = 0.01, fused: bool = False) -> None:
        parameters = _trained(model)
        self.optimizers = [_make(kind, [parameter], weight_decay, fused) for parameter in parameters]
        self._handles = [
            parameter.register_post_accumulate_grad_hook(self._stepping(optimizer))  # type: ignore[attr-defined, unused-ignore]
            for parameter, optimizer in zip(parameters, self.optimizers)
        ]

    @staticmethod
    def _stepping(optimizer: torch.optim.Optimizer) -> Callable[[Tensor], None]:
        def step(parameter: Tensor) -> None:
            optimizer.step()
            parameter.grad = None

        return step

    @property
    def param_groups(self) -> List[Dict[str, Any]]:
        """The groups of all parameters; their learning rate is set before a step."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def state(self) -> Dict[Any, Any]:
        """The state of all parameters."""
        return {key: value for optimizer in self.optimizers for key, value in optimizer.state.items()}

    def step(self) -> None:
        """All is done when the backward pass ends."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """No gradient is left."""

    def close(self) -> None:
        """The parameters are no longer stepped."""
        for handle in self._handles:
            handle.remove()


Optimizer = Union[torch.optim.Optimizer, BackwardOptimizer]


def make_optimizer(
    kind: str, model: nn.Module, weight_decay: float = 0.01, fused: bool = False
) -> torch.optim.Optimizer:
    """An optimizer of the parameters that have gradients.

    Args:
        kind: ``adamw``, or ``sgd`` without momentum, which keeps no state.
        weight_decay: for matrices; vectors (biases, LayerNorm) are not decayed.
        fused: in one kernel, without temporaries (``has_fused``).

    Without ``fused`` it steps tensor by tensor (``foreach=False``): the multi-tensor form, CUDA's default, holds a copy
    of the parameters.
    """
    return _make(kind, _trained(model), weight_decay, fused)
