"""A feed-forward block whose hidden neurons are part learners and part frozen.

A block does not care in which order its hidden neurons stand, so the two parts are summed and nothing is permuted:
``y = act(x W1_l' + b1_l) W2_l' + act(x W1_f' + b1_f) W2_f' + b2`` with l for the learners and f for the frozen ones.

What the backward pass needs, in units of the block's input (r = share of learners; 4 hidden neurons a channel):

===========  ================================  ================================  =======
policy       frozen part keeps                 learners keep                     in all
===========  ================================  ================================  =======
modules      pre-activation 4 (1 - r)          x, pre-activation 4 r, value 4 r  5 + 4 r
store        pre-activation 4 (1 - r)          x, pre-activation 4 r             5
compact      derivative in one byte, 1 - r     x, pre-activation 4 r             2 + 3 r
recompute    x                                 x                                 1
===========  ================================  ================================  =======

Without learners ``recompute`` alone needs x, and the others keep 1 less. All but ``compact`` are exact. ``recompute``
costs one more product with W1 (5 + 2 r products instead of 4 + 2 r).
"""

from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activations import Activation, activation_of
from .execution import FEED_FORWARD, autocast_to, compute_dtype, portions, rows_at_once

__all__ = ["SplitFeedForward", "WholeFeedForward", "feed_forward", "padding"]

_ALIGNED, _WIDE = 16, 256

_LEVELS = 255.0
"""Steps of a derivative in one byte: it is off by at most half a step, 0.0025 for GELU."""


class _Neurons(NamedTuple):
    """Weights of some hidden neurons: ``up`` [k, hidden], ``bias`` [k], ``down`` [hidden, k]."""

    up: Tensor
    bias: Tensor
    down: Tensor

    def to(self, dtype: torch.dtype) -> "_Neurons":
        return _Neurons(self.up.to(dtype), self.bias.to(dtype), self.down.to(dtype))


def _flat(x: Tensor, rows: slice) -> Tensor:
    return x[rows].view(-1, x.shape[-1])


def _to_byte(derivative: Tensor, bounds: Tuple[float, float]) -> Tensor:
    low, high = bounds
    # a derivative of few digits may have been rounded past its bounds, and 256 would come back as 0
    return derivative.sub_(low).mul_(_LEVELS / (high - low)).round_().clamp_(0.0, _LEVELS).to(torch.uint8)


def _from_byte(code: Tensor, bounds: Tuple[float, float], dtype: torch.dtype) -> Tensor:
    low, high = bounds
    return code.to(dtype).mul_((high - low) / _LEVELS).add_(low)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``; summed over the portions in the type of ``total``."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)


class _FeedForward(torch.autograd.Function):
    """``act(x W1' + b1) W2' + b2`` over learners and frozen neurons, portion by portion."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        activation: Activation,
        policy: str,
        rows: Optional[int],
        learner_up: Optional[Tensor],
        learner_bias: Optional[Tensor],
        learner_down: Optional[Tensor],
        frozen_up: Optional[Tensor],
        frozen_bias: Optional[Tensor],
        frozen_down: Optional[Tensor],
        bias: Tensor,
    ) -> Tensor:
        ctx.activation, ctx.policy, ctx.dtype = activation, policy, compute_dtype(x)
        ctx.rows = rows or rows_at_once(x.shape)
        ctx.learns = any(ctx.needs_input_grad[4:7])
        x = x.contiguous()
        learners, frozen = _parts((learner_up, learner_bias, learner_down, frozen_up, frozen_bias, frozen_down))
        keep_frozen = frozen is not None and ctx.needs_input_grad[0] and policy != "recompute"
        keep_learners = learners is not None and (ctx.learns or ctx.needs_input_grad[0]) and policy != "recompute"
        with autocast_to(x, None):  # types are chosen once, not at each product
            y, kept_frozen, kept_learners = _run(ctx, x, learners, frozen, bias, keep_frozen, keep_learners)
        again = policy == "recompute" and ctx.needs_input_grad[0]
        ctx.save_for_backward(
            x if ctx.learns or again else None,
            learner_up, learner_bias, learner_down, frozen_up, frozen_bias, frozen_down,
            *kept_frozen, *kept_learners,
        )  # fmt: skip
        ctx.count = len(kept_frozen)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        x, *others = ctx.saved_tensors  # asked for once: checkpointing hands them out once
        weights, kept = others[:6], (iter(others[6 : 6 + ctx.count]), iter(others[6 + ctx.count :]))
        learners, frozen = _parts(weights)
        with autocast_to(g, None):  # types are chosen once, not at each product
            dx, totals = _run_backward(ctx, g.contiguous(), x, learners, frozen, kept)
            bias = g.reshape(-1, g.shape[-1]).sum(0) if ctx.needs_input_grad[10] else None
        return (dx, None, None, None, *totals, None, None, None, bias)


def _parts(weights: Sequence[Optional[Tensor]]) -> Tuple[Optional[_Neurons], Optional[_Neurons]]:
    learner_up, learner_bias, learner_down, frozen_up, frozen_bias, frozen_down = weights
    learners = frozen = None
    if learner_up is not None and learner_bias is not None and learner_down is not None:
        learners = _Neurons(learner_up, learner_bias, learner_down)
    if frozen_up is not None and frozen_bias is not None and frozen_down is not None:
        frozen = _Neurons(frozen_up, frozen_bias, frozen_down)
    return learners, frozen


def _run(
    ctx: Any,
    x: Tensor,
    learners: Optional[_Neurons],
    frozen: Optional[_Neurons],
    bias: Tensor,
    keep_frozen: bool,
    keep_learners: bool,
) -> Tuple[Tensor, List[Tensor], List[Tensor]]:
    """The value, and what each portion of the backward pass needs of the frozen neurons and of the learners."""
    activation, dtype = ctx.activation, ctx.dtype
    learners, frozen = (None if part is None else part.to(dtype) for part in (learners, frozen))
    bias = bias.to(dtype)
    y = x.new_empty(x.shape, dtype=dtype)
    kept_frozen: List[Tensor] = []
    kept_learners: List[Tensor] = []
    tokens = ctx.rows * _flat(x, slice(0, 1)).shape[0]
    # twice the rows of the backward pass, which has twice the temporaries
    for rows in portions(x, 2 * ctx.rows):
        here, out = _flat(x, rows).to(dtype), _flat(y, rows)
        # the frozen part first: what it does not keep is gone before the learners' activations come
        for part, keeps, kept in ((frozen, keep_frozen, kept_frozen), (learners, keep_learners, kept_learners)):
            if part is None:
                continue
            before = F.linear(here, part.up, part.bias)
            value = activation.value(before)
            if part is frozen or frozen is None:
                torch.addmm(bias, value, part.down.t(), out=out)
            else:
                out.addmm_(value, part.down.t())
            if keeps and part is frozen and ctx.policy == "compact":
                # the value is not needed any more, so that its memory can carry the ones
                before = _to_byte(activation.gradient(value.fill_(1.0), before), activation.derivative_range)
            del value
            if keeps:
                kept.extend(before.split(tokens))
            del before
    return y, kept_frozen, kept_learners


def _run_backward(
    ctx: Any,
    g: Tensor,
    x: Optional[Tensor],
    learners: Optional[_Neurons],
    frozen: Optional[_Neurons],
    kept: Tuple[Iterator[Tensor], Iterator[Tensor]],
) -> Tuple[Optional[Tensor], List[Optional[Tensor]]]:
    """Gradients of ``x`` and of the learners' three tensors."""
    dtype, through = ctx.dtype, ctx.needs_input_grad[0]
    dx = torch.empty_like(g, dtype=dtype) if through else None
    totals: List[Optional[Tensor]] = [None, None, None]
    if learners is not None and ctx.learns:
        totals = [torch.zeros_like(weight) for weight in learners]
    learners, frozen = (None if part is None else part.to(dtype) for part in (learners, frozen))
    for rows in portions(g, ctx.rows):
        here = None if x is None else _flat(x, rows).to(dtype)
        above, below = _flat(g, rows).to(dtype), None if dx is None else _flat(dx, rows)
        if frozen is not None and below is not None:
            inner = _frozen_gradient(ctx, above @ frozen.down, here, frozen, kept[0])
            torch.mm(inner, frozen.up, out=below)
            del inner
        if learners is not None and (ctx.learns or through):
            inner = _learner_gradient(ctx, above, here, learners, kept[1], totals)
            if below is not None and frozen is None:
                torch.mm(inner, learners.up, out=below)
            elif below is not None:
                below.addmm_(inner, learners.up)
            del inner
    return dx, totals


def _frozen_gradient(ctx: Any, g: Tensor, x: Optional[Tensor], part: _Neurons, kept: Any) -> Tensor:
    """``g act'(before)`` of the frozen neurons in one portion."""
    if ctx.policy == "compact":
        return g.mul_(_from_byte(next(kept), ctx.activation.derivative_range, g.dtype))
    before = next(kept) if ctx.policy == "store" else F.linear(x, part.up, part.bias)  # type: ignore[arg-type]
    return ctx.activation.gradient(g, before)  # type: ignore[no-any-return]


def _learner_gradient(
    ctx: Any, above: Tensor, x: Optional[Tensor], part: _Neurons, kept: Any, totals: Sequence[Optional[Tensor]]
) -> Tensor:
    """``g act'(before)`` of the learners in one portion, whose weights' gradients it adds up."""
    before = F.linear(x, part.up, part.bias) if ctx.policy == "recompute" else next(kept)  # type: ignore[arg-type]
    up, bias, down = totals
    if down is not None:
        _add_product(down, above.t(), ctx.activation.value(before))
    inner: Tensor = ctx.activation.gradient(above @ part.down, before)
    if up is not None and bias is not None and x is not None:
        _add_product(up, inner.t(), x)
        bias.add_(inner.sum(0))
    return inner


def feed_forward(
    x: Tensor,
    activation: Activation,
    policy: str,
    learners: Optional[Sequence[Tensor]],
    frozen: Optional[Sequence[Tensor]],
    bias: Tensor,
    rows: Optional[int] = None,
) -> Tensor:
    """``act(x W1' + b1) W2' + b2`` over learners and frozen neurons, ``[..., hidden]`` to ``[..., hidden]``.

    Args:
        policy: ``store``, ``compact`` or ``recompute``.
        learners, frozen: W1 ``[k, hidden]``, b1 ``[k]`` and W2 ``[hidden, k]`` of each part, None where it is empty.
        bias: b2 ``[hidden]``.
        rows: entries of the first dimension that are worked on together; None chooses.
    """
    return _FeedForward.apply(  # type: ignore[no-any-return, no-untyped-call]
        x, activation, policy, rows, *(learners or (None,) * 3), *(frozen or (None,) * 3), bias
    )


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
