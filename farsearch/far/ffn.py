"""A feed-forward block whose hidden neurons are part learners and part frozen.

A block does not care in which order its hidden neurons stand, so the two parts are summed and nothing is permuted:
``y = act(x W1_l' + b1_l) W2_l' + act(x W1_f' + b1_f) W2_f' + b2`` with l for the learners and f for the frozen ones.
"""

from typing import Any, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SplitFeedForward"]


class SplitFeedForward(nn.Module):
    """``down(activation(up(x)))`` with the neurons in ``learners`` trained and all else frozen, ``b2`` included.

    The frozen part has no gradient and no optimizer state; for the backward pass it keeps its pre-activation, which
    the gradient of ``x`` needs, and only where ``x`` has one.

    Args:
        up: linear map ``[width, hidden]`` with bias.
        activation: module or function between the two maps.
        down: linear map ``[hidden, width]`` with bias.
        learners: indices of the trained hidden neurons, ``0 <= k <= width`` of them.

    The three modules are emptied of their weights and kept, so that ``release`` can fill and return them.
    """

    def __init__(self, up: nn.Linear, activation: Any, down: nn.Linear, learners: Sequence[int]) -> None:
        super().__init__()
        chosen = set(learners)
        self.learners = sorted(chosen)
        self.frozen = [j for j in range(up.weight.shape[0]) if j not in chosen]
        with torch.no_grad():
            here = torch.tensor(self.learners, dtype=torch.long, device=up.weight.device)
            rest = torch.tensor(self.frozen, dtype=torch.long, device=up.weight.device)
            self.learner_up = nn.Parameter(up.weight.index_select(0, here))
            self.learner_bias = nn.Parameter(up.bias.index_select(0, here))
            self.learner_down = nn.Parameter(down.weight.index_select(1, here))
            self.frozen_up = nn.Parameter(up.weight.index_select(0, rest), requires_grad=False)
            self.frozen_bias = nn.Parameter(up.bias.index_select(0, rest), requires_grad=False)
            self.frozen_down = nn.Parameter(down.weight.index_select(1, rest), requires_grad=False)
        self.bias = nn.Parameter(down.bias.detach(), requires_grad=False)
        if not self.learners:
            for name in ("learner_up", "learner_bias", "learner_down"):
                getattr(self, name).requires_grad_(False)
        up.weight = up.bias = down.weight = down.bias = None  # type: ignore[assignment]
        # in a tuple, so that they are no submodules: their parameters are the six above
        self.shells = (up, activation, down)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., hidden]`` to ``[..., hidden]``."""
        activation = self.shells[1]
        if not self.learners:
            return F.linear(activation(F.linear(x, self.frozen_up, self.frozen_bias)), self.frozen_down, self.bias)
        if not self.frozen:
            return F.linear(activation(F.linear(x, self.learner_up, self.learner_bias)), self.learner_down, self.bias)
        # the frozen part first: what it does not keep is gone before the learners' activations come, and the backward
        # pass, which goes the other way, has used those up before the frozen part's gradients come
        y = F.linear(activation(F.linear(x, self.frozen_up, self.frozen_bias)), self.frozen_down)
        return y + F.linear(activation(F.linear(x, self.learner_up, self.learner_bias)), self.learner_down, self.bias)

    def extra_repr(self) -> str:
        """The two counts, as torch prints them."""
        return "learners={}, frozen={}".format(len(self.learners), len(self.frozen))

    def release(self) -> Tuple[nn.Linear, Any, nn.Linear]:
        """The three original modules with the weights of this block, in the original order of the neurons."""
        up, activation, down = self.shells
        order = torch.tensor(self.learners + self.frozen, device=self.bias.device).argsort()
        with torch.no_grad():
            up.weight = nn.Parameter(torch.cat([self.learner_up, self.frozen_up])[order])
            up.bias = nn.Parameter(torch.cat([self.learner_bias, self.frozen_bias])[order])
            down.weight = nn.Parameter(torch.cat([self.learner_down, self.frozen_down], 1).index_select(1, order))
            down.bias = nn.Parameter(self.bias.detach())
        return up, activation, down
