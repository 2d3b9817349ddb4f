"""The activations of feed-forward blocks: value, gradient, and the range of the derivative."""

from typing import Any, Callable, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Activation", "activation_of"]


class Activation(NamedTuple):
    """An element-wise function.

    Attributes:
        value: ``y = f(x)``.
        gradient: of (``g``, ``x``), ``g f'(x)``.
        derivative_range: bounds of ``f'``, None if unknown.
    """

    value: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    derivative_range: Optional[Tuple[float, float]]


def _tanh_value(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _tanh_gradient(g: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(g, x, approximate="tanh")  # type: ignore[no-any-return]


def _gelu_gradient(g: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward(g, x)  # type: ignore[no-any-return]


def _relu_gradient(g: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(g, x, 0)  # type: ignore[no-any-return]


def _silu_gradient(g: Tensor, x: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward(g, x)  # type: ignore[no-any-return]


# The ranges are those of the derivatives, rounded outwards: GELU's extremes are 0.5 -+ 0.6289 at -+sqrt(2) and the tanh
# form's 0.5 -+ 0.6290; SiLU's are 0.5 -+ 0.5998 at -+2.3994.
_GELU = Activation(F.gelu, _gelu_gradient, (-0.1295, 1.1295))
_GELU_TANH = Activation(_tanh_value, _tanh_gradient, (-0.1295, 1.1295))
_RELU = Activation(F.relu, _relu_gradient, (0.0, 1.0))
_SILU = Activation(F.silu, _silu_gradient, (-0.1, 1.1))

_BY_CLASS = {
    "GELU": _GELU,
    "GELUActivation": _GELU,
    "ReLU": _RELU,
    "SiLU": _SILU,
    "SiLUActivation": _SILU,
}
_TANH_CLASSES = ("NewGELUActivation", "FastGELUActivation", "PytorchGELUTanh", "GELUTanh")
"""transformers' classes of one formula: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""

_BY_FUNCTION = {F.gelu: _GELU, F.relu: _RELU, torch.relu: _RELU, F.silu: _SILU}


def activation_of(module: Any) -> Activation:
    """Return the activation that a module or function computes; an unknown one is differentiated by autograd."""
    name = type(module).__name__
    tanh = name in _TANH_CLASSES or (isinstance(module, nn.GELU) and getattr(module, "approximate", "none") == "tanh")
    if tanh:
        return _GELU_TANH if _has_tanh() else _by_autograd(module, _GELU_TANH.derivative_range)
    known = _BY_CLASS.get(name) if isinstance(module, nn.Module) else _BY_FUNCTION.get(module)
    return known or _by_autograd(module, None)


def _has_tanh() -> bool:
    """Whether torch has the tanh form as one kernel: since 1.12."""
    try:
        F.gelu(torch.zeros(1), approximate="tanh")
    except TypeError:
        return False
    return True


def _by_autograd(function: Callable[[Tensor], Tensor], bounds: Optional[Tuple[float, float]]) -> Activation:
    def gradient(g: Tensor, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(function(x), x, g)[0]

    return Activation(function, gradient, bounds)
