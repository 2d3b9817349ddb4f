"""The optimizer: AdamW or SGD, by one of torch's three kernels, at the end of a step or during its backward pass."""

import inspect
from typing import Any, Callable, Dict, List, Sequence, Union

import torch
from torch import Tensor, nn

from .execution import KERNELS

__all__ = ["BackwardOptimizer", "Optimizer", "has_backward_hooks", "has_fused", "make_optimizer"]

_KINDS: Dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def _version() -> Sequence[int]:
    return [int(part) for part in torch.__version__.split("+")[0].split(".")[:2]]


def has_fused() -> bool:
    """Return whether torch has fused kernels of both optimizers on a CPU and on CUDA: since 2.4."""
    return list(_version()) >= [2, 4]


def has_backward_hooks() -> bool:
    """Return whether torch has hooks for complete gradients: since 2.1."""
    return hasattr(Tensor, "register_post_accumulate_grad_hook")


def _trained(model: nn.Module) -> List[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _make(kind: str, parameters: Sequence[nn.Parameter], weight_decay: float, kernel: str) -> torch.optim.Optimizer:
    factory = _KINDS[kind]
    if kernel not in KERNELS:
        raise ValueError("kernel {!r} is none of {}".format(kernel, ", ".join(KERNELS)))
    # torch 1.10 has neither option, and steps tensor by tensor
    known = inspect.signature(factory).parameters
    if kernel != "loop" and kernel not in known:
        raise ValueError("torch {} has no kernel {!r} of {}".format(torch.__version__, kernel, kind))
    options = {name: name == kernel for name in KERNELS if name in known}
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return factory([group for group in groups if group["params"]], lr=1e-3, **options)


class BackwardOptimizer:
    """Steps each parameter as soon as its gradient is complete, and drops the gradient.

    So at most one gradient lives at a time. The result is that of ``make_optimizer`` with the same arguments: AdamW and
    SGD step each parameter independently. It requires ``has_backward_hooks``. Call ``close`` after training.

    Raises:
        ValueError: for the kernel ``foreach``, which steps all parameters at once.
    """

    def __init__(self, kind: str, model: nn.Module, weight_decay: float = 0.01, kernel: str = "loop") -> None:
        if kernel == "foreach":
            raise ValueError("the kernel 'foreach' steps all parameters at once, the backward pass one at a time")
        parameters = _trained(model)
        self.optimizers = [_make(kind, [parameter], weight_decay, kernel) for parameter in parameters]
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
        """Do nothing: the backward pass has stepped all parameters."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: no gradient is left."""

    def close(self) -> None:
        """Remove the hooks: the parameters are no longer stepped."""
        for handle in self._handles:
            handle.remove()


Optimizer = Union[torch.optim.Optimizer, BackwardOptimizer]


def make_optimizer(
    kind: str, model: nn.Module, weight_decay: float = 0.01, kernel: str = "loop"
) -> torch.optim.Optimizer:
    """Return an optimizer of the parameters that have gradients.

    Args:
        kind: ``adamw``, or ``sgd`` without momentum, which keeps no state.
        weight_decay: for matrices; vectors (biases, LayerNorm) are not decayed.
        kernel: one of ``KERNELS``; ``fused`` needs ``has_fused``.

    Raises:
        ValueError: for an unknown kernel, or one that this torch lacks.
    """
    return _make(kind, _trained(model), weight_decay, kernel)
