"""Layers in 16 bits: hidden states, products, saved tensors and frozen matrices. Trained parameters are in float32.

It is mixed precision as by torch's autocast, with two differences that save memory. Hidden states between modules are
of 16 bits too, so that the maps of one input share it, of which autocast would make a copy each. Frozen matrices are
stored in 16 bits, so that they are not cast at each use. LayerNorms and softmax compute in float32 inside of layers;
embeddings and head are outside of them.

``float16`` loses gradients below 6e-8. So inside of the layers gradients are ``LOSS_SCALE`` times as large: multiplied
where they enter from the head, divided where they leave, at each parameter and at the bottom. The loss, and the
gradients that an optimizer gets, are not scaled. ``bfloat16`` has the range of float32 and needs no scale.
"""

from functools import partial
from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .execution import LOSS_SCALE
from .layout import ModelLayout, get_module, set_module

__all__ = ["HalfEmbedding", "HalfLinear", "lower_layers", "raise_layers"]


def _unscaled(gradient: Tensor) -> Tensor:
    """A gradient of 16 bits that leaves the layers, in float32."""
    whole = gradient.float()
    return whole.div_(LOSS_SCALE) if gradient.dtype == torch.float16 else whole


class _Lower(torch.autograd.Function):
    """float32 to 16 bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        return _unscaled(g), None


class _Raise(torch.autograd.Function):
    """16 bits to float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        return x.float()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        return (g * LOSS_SCALE if ctx.dtype == torch.float16 else g).to(ctx.dtype)


class _HalfLinear(torch.autograd.Function):
    """``x W' + b`` in the type of ``x``, without a saved copy of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        x, weight = ctx.saved_tensors
        dx = dw = db = None
        flat = g.reshape(-1, g.shape[-1])
        if ctx.needs_input_grad[0]:
            dx = (flat @ weight.to(g.dtype)).view(g.shape[:-1] + (-1,))
        if ctx.needs_input_grad[1]:
            dw = _unscaled(flat.t() @ x.reshape(-1, x.shape[-1]))
        if ctx.needs_input_grad[2]:
            db = _unscaled(flat.sum(0))
        return dx, dw, db


class HalfLinear(nn.Module):
    """Replaces a linear map of a layer in 16 bits; it has the map's parameters under their names."""

    def __init__(self, original: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        # in a tuple, so that it is no submodule
        self.shell = (original,)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` of 16 bits to ``[..., out]``."""
        return _HalfLinear.apply(x, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]

    def release(self) -> nn.Module:
        """Return the replaced map, which shares the parameters."""
        return self.shell[0]


class HalfEmbedding(nn.Module):
    """Replaces a frozen table of embeddings that is stored in 16 bits."""

    def __init__(self, original: nn.Embedding) -> None:
        super().__init__()
        self.weight = original.weight
        # in a tuple, so that it is no submodule
        self.shell = (original,)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the rows of ``tokens`` in float32."""
        return F.embedding(tokens, self.weight).float()

    def release(self) -> nn.Module:
        """Return the replaced table, which shares the parameter."""
        return self.shell[0]


def lower_layers(model: nn.Module, layout: ModelLayout, dtype: torch.dtype) -> None:
    """Execute the layers in ``dtype``, in place; norms, attentions and feed-forward blocks follow their input's type.

    Frozen matrices of the layers, and frozen tables of the embeddings, are stored in ``dtype``.
    """
    for layer in layout.layers:
        for name, module in list(get_module(model, layer.path).named_modules()):
            if type(module) is nn.Linear:
                set_module(model, layer.path + "." + name, HalfLinear(module))
        for parameter in get_module(model, layer.path).parameters():
            if parameter.dim() > 1 and not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)
    for name, module in list(get_module(model, layout.embeddings).named_modules()):
        if type(module) is nn.Embedding and not module.weight.requires_grad:
            set_module(model, layout.embeddings + "." + name, HalfEmbedding(module))
            module.weight.data = module.weight.data.to(dtype)
    bottom, top = (get_module(model, layout.layers[i].path) for i in (0, -1))
    # not a closure: a deep copy of a model must run its own layers
    bottom.forward = partial(_run_lowered, bottom.forward, dtype)
    top.register_forward_hook(_raised)


def raise_layers(model: nn.Module, layout: ModelLayout) -> None:
    """Revert ``lower_layers`` in place, but for its modules; matrices stored in 16 bits are returned rounded.

    A model whose layers are not lowered is not changed.
    """
    if not layout.layers:
        return
    hooks = get_module(model, layout.layers[-1].path)._forward_hooks
    ours = [key for key, hook in hooks.items() if hook is _raised]
    if not ours:
        return
    for key in ours:
        del hooks[key]
    for path in (layout.embeddings,) + tuple(layer.path for layer in layout.layers):
        for parameter in get_module(model, path).parameters():
            parameter.data = parameter.data.float()


def _run_lowered(function: Callable[..., Any], dtype: torch.dtype, *args: Any, **kwargs: Any) -> Any:
    """Run the lowest layer on hidden states in ``dtype``: its first argument, or the keyword of DistilBERT."""
    if args:
        return function(_lowered(args[0], dtype), *args[1:], **kwargs)
    name = "hidden_states" if "hidden_states" in kwargs else "x"
    return function(**dict(kwargs, **{name: _lowered(kwargs[name], dtype)}))


def _lowered(x: Tensor, dtype: torch.dtype) -> Tensor:
    return _Lower.apply(x, dtype)  # type: ignore[no-any-return, no-untyped-call]


def _raised(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """The top layer's hidden states in float32."""
    if isinstance(output, Tensor):
        return _Raise.apply(output)  # type: ignore[no-untyped-call]
    return (_Raise.apply(output[0]),) + tuple(output[1:])  # type: ignore[no-untyped-call]
