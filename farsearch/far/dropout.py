"""Dropout that keeps no mask: the random generator's state before it was drawn is enough to draw it again."""

from contextlib import contextmanager
from typing import Any, Iterator

import torch
from torch import Tensor, nn

__all__ = ["SeededDropout", "drawn_again", "generator_state", "keep_or_drop"]


def generator_state(x: Tensor) -> Tensor:
    """State of the generator that draws for tensors like ``x``: 5 KB on a CPU, 16 bytes on CUDA, kept on the CPU."""
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


@contextmanager
def drawn_again(x: Tensor, state: Tensor) -> Iterator[None]:
    """What is drawn inside is what was drawn after ``state``; outside, the generator goes on where it was."""
    now = generator_state(x)
    _set(x, state)
    try:
        yield
    finally:
        _set(x, now)


def _set(x: Tensor, state: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.set_rng_state(state, x.device)
    else:
        torch.set_rng_state(state)


def keep_or_drop(x: Tensor, p: float) -> Tensor:
    """A factor for each element of ``x``: 0 with probability p, else 1 / (1 - p). As ``nn.Dropout`` draws on a CPU."""
    # contiguous, as elements are drawn in the order of memory: a gradient may lie there in another order than its value
    factor = torch.empty_like(x, memory_format=torch.contiguous_format)
    return factor.zero_() if p >= 1.0 else factor.bernoulli_(1.0 - p).div_(1.0 - p)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p, ctx.state = p, generator_state(x)
        return keep_or_drop(x, p).mul_(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        with drawn_again(g, ctx.state):
            return keep_or_drop(g, ctx.p).mul_(g), None


class SeededDropout(nn.Module):
    """``nn.Dropout`` whose mask is drawn again in the backward pass.

    On a CPU it draws the same masks as ``nn.Dropout`` does for a contiguous input.
    """

    def __init__(self, original: nn.Dropout) -> None:
        super().__init__()
        self.p = original.p
        self.shell = (original,)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or self.p == 0.0:
            return x
        return _Dropout.apply(x, self.p)  # type: ignore[no-any-return, no-untyped-call]

    def release(self) -> nn.Module:
        """The module that this one stands for."""
        return self.shell[0]
