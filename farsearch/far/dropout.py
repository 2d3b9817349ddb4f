"""Dropout that saves no mask: the mask is redrawn from the generator's state."""

from contextlib import contextmanager
from typing import Any, Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["SeededDropout", "drawn_again", "drop_", "dropped", "generator_state", "masks_from"]

_masks: Any = None
"""A source of masks that replaces torch's generator."""


@contextmanager
def masks_from(source: Any) -> Iterator[None]:
    """Take masks from ``source`` inside of the context: a trace makes them inputs, a test gives its own.

    Args:
        source: ``mask(x, p)`` returns a boolean mask of the dropped elements of ``x``; ``state()`` what ``restore``
            takes to return the same masks again.
    """
    global _masks
    before, _masks = _masks, source
    try:
        yield
    finally:
        _masks = before


def generator_state(x: Tensor) -> Any:
    """Return the state of the generator of ``dropped``: 5 KB on a CPU, 16 bytes on CUDA, stored on the CPU."""
    if _masks is not None:
        return _masks.state()
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.get_rng_state()


@contextmanager
def drawn_again(x: Tensor, state: Any) -> Iterator[None]:
    """Draw from ``state`` inside of the context, and restore the generator's state afterwards."""
    now = generator_state(x)
    _set(x, state)
    try:
        yield
    finally:
        _set(x, now)


def _set(x: Tensor, state: Any) -> None:
    if _masks is not None:
        _masks.restore(state)
    elif x.is_cuda:
        torch.cuda.set_rng_state(state, x.device)
    else:
        torch.set_rng_state(state)


def dropped(x: Tensor, p: float) -> Tensor:
    """Return a boolean mask of the dropped elements of ``x``, each True with probability p (in steps of 2^-16).

    Sixteen random bits per element, four elements per draw: a third of the time of ``bernoulli_`` on a CPU. A CPU's
    generator gives the same bits on every machine.
    """
    if _masks is not None:
        return _masks.mask(x, p)  # type: ignore[no-any-return]
    count = x.numel()
    # for Apple's GPU the CPU draws: the same masks as without it, by a generator that is tested
    device = torch.device("cpu") if x.device.type == "mps" else x.device
    bits = torch.empty(count, dtype=torch.int16, device=device)
    whole = count - count % 4
    try:
        bits[:whole].view(torch.int64).random_(-(2**63), None)
    except RuntimeError:
        # torch 1.10 can't view four elements as one: the same bits, shifted
        words = torch.empty(whole // 4, dtype=torch.int64, device=device).random_(-(2**63), None)
        for i in range(4):
            bits[i:whole:4] = (words >> (16 * i)).to(torch.int16)
    bits[whole:].random_(-(2**15), None)
    return bits.lt(min(int(round(p * 2**16)) - 2**15, 2**15 - 1)).view(x.shape).to(x.device)


def drop_(x: Tensor, mask: Tensor, p: float) -> Tensor:
    """Set the masked elements of ``x`` to 0 and divide the others by 1 - p, in place. With p = 1 all become 0."""
    if p >= 1.0:
        return x.zero_()
    return x.masked_fill_(mask, 0.0).mul_(1.0 / (1.0 - p))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p, ctx.state = p, generator_state(x)
        return drop_(x.clone(), dropped(x, p), p)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        with drawn_again(g, ctx.state):
            mask = dropped(g, ctx.p)
        return drop_(g.clone(), mask, ctx.p), None


class SeededDropout(nn.Module):
    """``nn.Dropout`` that redraws its mask in the backward pass. Its masks are not those of ``nn.Dropout``."""

    def __init__(self, original: nn.Dropout) -> None:
        super().__init__()
        self.p = original.p
        self.shell = (original,)

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape."""
        if not self.training or self.p == 0.0:
            return x
        return _Dropout.apply(x, self.p)  # type: ignore[no-any-return, no-untyped-call]

    def release(self) -> nn.Module:
        """Return the replaced module."""
        return self.shell[0]
