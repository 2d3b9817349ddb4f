"""LayerNorm that saves its output, which the next block saves anyway, and rebuilds the normalised input from it.

In layers in 16 bits (half.py) it saves its input instead, and computes in float32.
"""

from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .execution import gradient_scale, portions

__all__ = ["HalfLayerNorm", "OutputLayerNorm", "rebuilds_input"]

_SMALL = 0.05
"""Weights nearer to 0 than this are not divided by: the normalised input of their channels is saved."""


def rebuilds_input(norm: Any) -> bool:
    """Return whether ``OutputLayerNorm`` can replace a module: an ``nn.LayerNorm`` with 1-d weight and bias."""
    plain = isinstance(norm, nn.LayerNorm)
    return plain and norm.weight is not None and norm.bias is not None and norm.weight.dim() == 1


class _LayerNorm(torch.autograd.Function):
    """``y = n w + b`` with n the normalised input, so ``n = (y - b) / w``.

    The formulas of Ioffe and Szegedy use only n: with n as the input, mean 0 and deviation 1, torch's kernel computes
    the gradients, that of the input up to 1 / deviation.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, eps: float, small: Tensor) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(z, weight.shape, weight, bias, eps)
        apart = ((z[..., small] - mean) * rstd) if small.numel() else None
        ctx.save_for_backward(y, rstd, weight, bias, small, apart)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        y, rstd, weight, bias, small, apart = ctx.saved_tensors
        normalised = (y - bias).div_(weight)
        if apart is not None:
            normalised[..., small] = apart
        needs = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
        dz, dw, db = torch.ops.aten.native_layer_norm_backward(
            g.contiguous(), normalised, weight.shape, torch.zeros_like(rstd), torch.ones_like(rstd), weight, bias, needs
        )
        if needs[0]:
            dz.mul_(rstd)
        return dz if needs[0] else None, dw if needs[1] else None, db if needs[2] else None, None, None


class OutputLayerNorm(nn.Module):
    """``nn.LayerNorm`` over the last dimension that rebuilds its normalised input from its output.

    With an output of fewer digits than float32 (autocast) it is the ordinary LayerNorm, for precision.

    Channels with weights too near to 0 for a division are determined at each call, because training changes them; their
    input is saved.
    """

    def __init__(self, original: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = original.weight, original.bias, original.eps
        self.shell = (original,)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``[..., hidden]`` to ``[..., hidden]``."""
        if z.dtype not in (torch.float32, torch.float64) or self.weight.dtype != z.dtype:
            return F.layer_norm(z, self.weight.shape, self.weight, self.bias, self.eps)
        small = _near_zero(self.weight.detach())
        return _LayerNorm.apply(z, self.weight, self.bias, self.eps, small)  # type: ignore[no-any-return, no-untyped-call]

    def release(self) -> nn.Module:
        """Return the replaced module, which shares the parameters."""
        return self.shell[0]


def _near_zero(weight: Tensor) -> Tensor:
    """Indices of the weights near 0."""
    small = weight.abs().lt(_SMALL)
    # meta tensors have no values: no channel is small, as hardly any is in trained models
    return small.new_empty(0, dtype=torch.long) if small.is_meta else small.nonzero().flatten()


class _HalfLayerNorm(torch.autograd.Function):
    """LayerNorm of 16 bits with float32 inside, portion by portion, so that only few float32 values live."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, eps: float, rows: Optional[int]) -> Tensor:
        ctx.rows = rows
        y = torch.empty_like(z)
        mean, rstd = (z.new_empty(z.shape[:-1] + (1,), dtype=torch.float32) for _ in range(2))
        for part in portions(z, rows):
            y[part], mean[part], rstd[part] = torch.native_layer_norm(z[part].float(), weight.shape, weight, bias, eps)
        ctx.save_for_backward(z, mean, rstd, weight, bias)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        z, mean, rstd, weight, bias = ctx.saved_tensors
        needs = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
        dz = torch.empty_like(z) if needs[0] else None
        totals = [torch.zeros_like(each) if need else None for each, need in zip((weight, bias), needs[1:])]
        for part in portions(z, ctx.rows):
            inner, *others = torch.ops.aten.native_layer_norm_backward(
                g[part].float(), z[part].float(), weight.shape, mean[part], rstd[part], weight, bias, needs
            )
            if dz is not None:
                dz[part] = inner
            for total, other in zip(totals, others):
                if total is not None:
                    total.add_(other)
            del inner, others
        scale = gradient_scale(z, weight)
        if scale != 1.0:
            totals = [None if total is None else total.div_(scale) for total in totals]
        return (dz, *totals, None, None)


class HalfLayerNorm(nn.Module):
    """Replaces ``nn.LayerNorm`` in layers in 16 bits; it has the norm's parameters, which stay in float32."""

    def __init__(self, original: nn.LayerNorm, rows: Optional[int]) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.rows = original.weight, original.bias, original.eps, rows
        self.shell = (original,)

    def forward(self, z: Tensor) -> Tensor:
        """Map ``[rows, length, hidden]`` of 16 bits to the same."""
        return _HalfLayerNorm.apply(z, self.weight, self.bias, self.eps, self.rows)  # type: ignore[no-any-return, no-untyped-call]

    def release(self) -> nn.Module:
        """Return the replaced module, which shares the parameters."""
        return self.shell[0]
