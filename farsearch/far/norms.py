"""LayerNorm that keeps its output, which the next block keeps anyway, and rebuilds the normalised input from it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["OutputLayerNorm", "rebuilds_input"]

_SMALL = 0.05
"""Weights nearer to 0 than this are not divided by: their channels' normalised input is kept as it is."""


def rebuilds_input(norm: Any) -> bool:
    """``OutputLayerNorm`` can stand in for this ``nn.LayerNorm``: it has a weight and a bias, of one dimension."""
    plain = isinstance(norm, nn.LayerNorm)
    return plain and norm.weight is not None and norm.bias is not None and norm.weight.dim() == 1


class _LayerNorm(torch.autograd.Function):
    """``y = n w + b`` with n the normalised input, so ``n = (y - b) / w``.

    Ioffe and Szegedy's formulas hold for n alone: with it in the place of the input, mean 0 and deviation 1, torch's
    own kernel gives the gradients, that of the input up to 1 / deviation.
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

    Where the output has fewer digits than float32 (autocast), too much would be lost: there it is the ordinary one.

    Which channels' weights are too near to 0 for a division is seen at each call, for training moves them; those are
    kept apart, which costs their share.
    """

    def __init__(self, original: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = original.weight, original.bias, original.eps
        self.shell = (original,)

    def forward(self, z: Tensor) -> Tensor:
        """``[..., hidden]`` to ``[..., hidden]``."""
        if z.dtype not in (torch.float32, torch.float64) or self.weight.dtype != z.dtype:
            return F.layer_norm(z, self.weight.shape, self.weight, self.bias, self.eps)
        small = _near_zero(self.weight.detach())
        return _LayerNorm.apply(z, self.weight, self.bias, self.eps, small)  # type: ignore[no-any-return, no-untyped-call]

    def release(self) -> nn.Module:
        """The module that this one stands for: its parameters were these all along."""
        return self.shell[0]


def _near_zero(weight: Tensor) -> Tensor:
    """Indices of the weights that are not divided by."""
    small = weight.abs().lt(_SMALL)
    # meta tensors have no values: there no channel is small, as in trained models hardly any is
    return small.new_empty(0, dtype=torch.long) if small.is_meta else small.nonzero().flatten()
