"""Whole training steps of encoder layers, and a tiny one that consists of overhead."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import Call

__all__ = ["WORKLOADS", "tiny_step", "workload"]

WORKLOADS = {
    "narrow": (8, 32, 384, 1536, 144, 4),
    "wide": (8, 64, 768, 3072, 0, 2),
    "long": (8, 128, 384, 1536, 0, 2),
    "learners": (8, 128, 768, 3072, 304, 2),
}
"""Typical training steps: rows, tokens, hidden and feed-forward width, learners (0 for all) and layers."""


class _Layer(nn.Module):
    """A layer of an encoder with ``learners`` trained neurons; 0 for all."""

    def __init__(self, d: int, ff: int, learners: int) -> None:
        super().__init__()
        self.heads = 12
        self.q, self.k, self.v, self.out = (nn.Linear(d, d) for _ in range(4))
        self.norm, self.last_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, learners or ff), nn.Linear(learners or ff, d)
        self.frozen = nn.ModuleList([nn.Linear(d, ff - learners), nn.Linear(ff - learners, d)] if learners else [])
        for parameter in self.frozen.parameters():
            parameter.requires_grad = False

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = torch.matmul(q, k.transpose(-1, -2)) * (d // self.heads) ** -0.5
        chances = F.dropout(torch.softmax(scores, -1), 0.1)
        context = torch.matmul(chances, v).transpose(1, 2).reshape(b, t, d)
        x = self.norm(x + F.dropout(self.out(context), 0.1))
        y = self.down(F.gelu(self.up(x)))
        if self.frozen:
            y = y + self.frozen[1](F.gelu(self.frozen[0](x)))
        out: Tensor = self.last_norm(x + F.dropout(y, 0.1))
        return out


class _Double(torch.autograd.Function):
    """A function like those of farsearch's own step, in Python in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return gradients[0] * 2.0 + x * 0.0


class _TinyLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = _Layer(24, 48, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(_Double.apply(x))  # type: ignore[no-untyped-call, unused-ignore]
        return out


def tiny_step(device: torch.device) -> Call:
    """Return the forward and backward pass of tiny layers, which consists of the operations' overhead.

    Call it under ``torch.device("meta")`` to trace it.
    """
    layers = nn.Sequential(*[_TinyLayer() for _ in range(4)]).to(device)
    inputs = torch.ones(2, 8, 24, device=device)

    def step() -> None:
        layers(inputs).sum().backward()
        for parameter in layers.parameters():
            parameter.grad = None

    return step


def workload(name: str, device: torch.device) -> Call:
    """Return a training step: forward pass, backward pass, SGD. Call it under ``torch.device("meta")`` to trace it."""
    rows, length, d, ff, learners, layers = WORKLOADS[name]
    stack = nn.Sequential(*[_Layer(d, ff, learners) for _ in range(layers)]).to(device)
    x = torch.ones(rows, length, d, device=device)
    optimizer = torch.optim.SGD([p for p in stack.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        stack(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
