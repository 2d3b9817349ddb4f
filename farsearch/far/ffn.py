"""Modules of a feed-forward block that is split into learners and frozen neurons, or wholly trained.

Their parameters are what is trained and what is frozen; how they are computed with is in ffn_function.py, or, with the
policy ``modules``, left to autograd.
"""

from typing import Any, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activations import Activation, activation_of
from .execution import FEED_FORWARD
from .ffn_function import feed_forward

__all__ = ["SplitFeedForward", "WholeFeedForward", "padding"]

_ALIGNED, _WIDE = 16, 256


def _checked(policy: str, activation: Activation) -> str:
    if policy not in FEED_FORWARD:
        raise ValueError("policy {!r} is none of {}".format(policy, ", ".join(FEED_FORWARD)))
    if policy == "compact" and activation.derivative_range is None:
        raise ValueError("policy 'compact' needs an activation whose derivative has known bounds")
    return policy


def padding(width: int, learners: int) -> int:
    """Neurons of nothing that are added to the frozen ones of a block of ``width`` neurons.

    A product with 2765 output columns takes 1.4 times as long on a CPU as one with 2768 (docs/log.md), so the frozen
    part is made a multiple of 16 wide by neurons whose weights are 0. Small blocks are left as they are.
    """
    frozen = width - learners
    return -frozen % _ALIGNED if frozen and width >= _WIDE else 0


class SplitFeedForward(nn.Module):
    """``down(activation(up(x)))`` with the neurons in ``learners`` trained and all else frozen, ``b2`` included.

    Args:
        up: linear map ``[width, hidden]`` with bias.
        activation: module or function between the two maps.
        down: linear map ``[hidden, width]`` with bias.
        learners: indices of the trained hidden neurons, ``0 <= k <= width`` of them.
        policy: what is kept for the backward pass.
        frozen_dtype: in which the frozen weights are held.
        rows: sequences that are worked on together; None chooses.

    The three modules are emptied of their weights and kept, so that ``release`` can fill and return them.
    """

    def __init__(
        self,
        up: nn.Linear,
        activation: Any,
        down: nn.Linear,
        learners: Sequence[int],
        policy: str = "modules",
        frozen_dtype: torch.dtype = torch.float32,
        rows: Optional[int] = None,
    ) -> None:
        super().__init__()
        self.activation_pair = activation_of(activation)
        self.policy, self.rows = _checked(policy, self.activation_pair), rows
        chosen = set(learners)
        self.learners = sorted(chosen)
        self.frozen = [j for j in range(up.weight.shape[0]) if j not in chosen]
        held = up.weight.dtype if frozen_dtype == torch.float32 else frozen_dtype
        more = padding(up.weight.shape[0], len(self.learners))
        with torch.no_grad():
            here = torch.tensor(self.learners, dtype=torch.long, device=up.weight.device)
            rest = torch.tensor(self.frozen, dtype=torch.long, device=up.weight.device)
            self.learner_up = nn.Parameter(up.weight.index_select(0, here))
            self.learner_bias = nn.Parameter(up.bias.index_select(0, here))
            self.learner_down = nn.Parameter(down.weight.index_select(1, here))
            frozen_up = F.pad(up.weight.index_select(0, rest), (0, 0, 0, more)).to(held)
            frozen_bias = F.pad(up.bias.index_select(0, rest), (0, more))
            frozen_down = F.pad(down.weight.index_select(1, rest), (0, more)).to(held)
        self.frozen_up = nn.Parameter(frozen_up, requires_grad=False)
        self.frozen_bias = nn.Parameter(frozen_bias, requires_grad=False)
        self.frozen_down = nn.Parameter(frozen_down, requires_grad=False)
        self.bias = nn.Parameter(down.bias.detach(), requires_grad=False)
        if not self.learners:
            for name in ("learner_up", "learner_bias", "learner_down"):
                getattr(self, name).requires_grad_(False)
        up.weight = up.bias = down.weight = down.bias = None  # type: ignore[assignment]
        # in a tuple, so that they are no submodules: their parameters are the six above
        self.shells = (up, activation, down)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., hidden]`` to ``[..., hidden]``."""
        learners = (self.learner_up, self.learner_bias, self.learner_down) if self.learners else None
        frozen = (self.frozen_up, self.frozen_bias, self.frozen_down) if self.frozen else None
        if self.policy != "modules":
            return feed_forward(x, self.activation_pair, self.policy, learners, frozen, self.bias, self.rows)
        activation = self.shells[1]
        # the frozen part first, for the same reason as in the function above
        if frozen is None:
            return F.linear(activation(F.linear(x, self.learner_up, self.learner_bias)), self.learner_down, self.bias)
        up, down = self.frozen_up.to(self.bias.dtype), self.frozen_down.to(self.bias.dtype)
        y = F.linear(activation(F.linear(x, up, self.frozen_bias)), down, None if learners else self.bias)
        if learners is None:
            return y
        return y + F.linear(activation(F.linear(x, self.learner_up, self.learner_bias)), self.learner_down, self.bias)

    def extra_repr(self) -> str:
        """The two counts and the policy, as torch prints them."""
        return "learners={}, frozen={}, policy={}".format(len(self.learners), len(self.frozen), self.policy)

    def release(self) -> Tuple[nn.Linear, Any, nn.Linear]:
        """The three original modules with the weights of this block, in the original order of the neurons."""
        up, activation, down = self.shells
        order = torch.tensor(self.learners + self.frozen, device=self.bias.device).argsort()
        with torch.no_grad():
            # the order has no index of the neurons of nothing, which come last
            frozen_up, frozen_down = self.frozen_up.to(self.bias.dtype), self.frozen_down.to(self.bias.dtype)
            up.weight = nn.Parameter(torch.cat([self.learner_up, frozen_up])[order])
            up.bias = nn.Parameter(torch.cat([self.learner_bias, self.frozen_bias])[order])
            down.weight = nn.Parameter(torch.cat([self.learner_down, frozen_down], 1).index_select(1, order))
            down.bias = nn.Parameter(self.bias.detach())
        return up, activation, down


class _Held(nn.Module):
    """Keeps a linear map's parameters under their names, and hands its input through."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return x


class WholeFeedForward(nn.Module):
    """A block of which all is trained, ``b2`` too, computed by the same function.

    Its parameters keep the names that they have in the ordinary modules: ``held`` stands where ``up`` stood.
    """

    def __init__(self, up: nn.Linear, activation: Any, down: nn.Linear, policy: str, rows: Optional[int]) -> None:
        super().__init__()
        self.activation_pair = activation_of(activation)
        self.policy, self.rows = _checked(policy, self.activation_pair), rows
        self.weight, self.bias = down.weight, down.bias
        self.shells = (up, activation, down)
        # in a tuple, so that its parameters are not counted twice
        self._held = (_Held(up),)

    @property
    def held(self) -> nn.Module:
        """What stands in place of ``up``."""
        return self._held[0]

    def forward(self, x: Tensor) -> Tensor:
        """``[..., hidden]`` to ``[..., hidden]``."""
        up = self._held[0]
        learners = (up.weight, up.bias, self.weight)
        return feed_forward(x, self.activation_pair, self.policy, learners, None, self.bias, self.rows)

    def release(self) -> Tuple[nn.Linear, Any, nn.Linear]:
        """The three original modules: their parameters were the block's all along."""
        return self.shells
