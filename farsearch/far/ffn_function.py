"""The function of a feed-forward block whose hidden neurons are part learners and part frozen, and its gradients.

A block does not depend on the order of its hidden neurons, so the two parts are summed and nothing is permuted:
``y = act(x W1_l' + b1_l) W2_l' + act(x W1_f' + b1_f) W2_f' + b2`` with l for the learners and f for the frozen ones.

Tensors saved for the backward pass, in units of the block's input (r = share of learners; 4 neurons per channel):

===========  ================================  ================================  =======
policy       frozen part                       learners                          total
===========  ================================  ================================  =======
modules      pre-activation 4 (1 - r)          x, pre-activation 4 r, value 4 r  5 + 4 r
store        pre-activation 4 (1 - r)          x, pre-activation 4 r             5
compact      derivative in one byte, 1 - r     x, pre-activation 4 r             2 + 3 r
recompute    x                                 x                                 1
===========  ================================  ================================  =======

Without learners only ``recompute`` saves x, and the others save 1 less. All but ``compact`` are exact. ``recompute``
costs one more product with W1 (5 + 2 r products instead of 4 + 2 r).
"""

from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .activations import Activation
from .execution import autocast_to, compute_dtype, gradient_scale, portions, rows_at_once

__all__ = ["feed_forward"]

_LEVELS = 255.0
"""Steps of a derivative in one byte: the error is at most half a step, 0.0025 for GELU."""


class _Neurons(NamedTuple):
    """Weights of hidden neurons: ``up`` [k, hidden], ``bias`` [k] or None, ``down`` [hidden, k]."""

    up: Tensor
    bias: Optional[Tensor]
    down: Tensor

    def to(self, dtype: torch.dtype) -> "_Neurons":
        return _Neurons(self.up.to(dtype), _as(self.bias, dtype), self.down.to(dtype))


def _as(x: Optional[Tensor], dtype: torch.dtype) -> Optional[Tensor]:
    return None if x is None else x.to(dtype)


def _flat(x: Tensor, rows: slice) -> Tensor:
    return x[rows].view(-1, x.shape[-1])


def _to_byte(derivative: Tensor, bounds: Tuple[float, float]) -> Tensor:
    low, high = bounds
    # a derivative of few digits may be rounded past its bounds, and 256 would wrap to 0
    return derivative.sub_(low).mul_(_LEVELS / (high - low)).round_().clamp_(0.0, _LEVELS).to(torch.uint8)


def _from_byte(code: Tensor, bounds: Tuple[float, float], dtype: torch.dtype) -> Tensor:
    low, high = bounds
    return code.to(dtype).mul_((high - low) / _LEVELS).add_(low)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """``total += left @ right``, accumulated in the type of ``total``."""
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
        bias: Optional[Tensor],
    ) -> Tensor:
        ctx.activation, ctx.policy, ctx.dtype = activation, policy, compute_dtype(x)
        ctx.rows = rows or rows_at_once(x.shape)
        ctx.learns, ctx.scale = any(ctx.needs_input_grad[4:7]), gradient_scale(x, learner_up)
        x = x.contiguous()
        learners, frozen = _parts((learner_up, learner_bias, learner_down, frozen_up, frozen_bias, frozen_down))
        save_frozen = frozen is not None and ctx.needs_input_grad[0] and policy != "recompute"
        save_learners = learners is not None and (ctx.learns or ctx.needs_input_grad[0]) and policy != "recompute"
        with autocast_to(x, None):  # cast once, not at each product
            y, saved_frozen, saved_learners = _run(ctx, x, learners, frozen, bias, save_frozen, save_learners)
        again = policy == "recompute" and ctx.needs_input_grad[0]
        ctx.save_for_backward(
            x if ctx.learns or again else None,
            learner_up, learner_bias, learner_down, frozen_up, frozen_bias, frozen_down,
            *saved_frozen, *saved_learners,
        )  # fmt: skip
        ctx.count = len(saved_frozen)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        x, *others = ctx.saved_tensors  # read once: checkpointing returns them once
        weights, saved = others[:6], (iter(others[6 : 6 + ctx.count]), iter(others[6 + ctx.count :]))
        learners, frozen = _parts(weights)
        with autocast_to(g, None):  # cast once, not at each product
            dx, totals = _run_backward(ctx, g.contiguous(), x, learners, frozen, saved)
            bias = g.reshape(-1, g.shape[-1]).sum(0) if ctx.needs_input_grad[10] else None
            if ctx.scale != 1.0:
                totals = [None if total is None else total.div_(ctx.scale) for total in totals]
                bias = None if bias is None else bias.float().div_(ctx.scale)
        return (dx, None, None, None, *totals, None, None, None, bias)


def _parts(weights: Sequence[Optional[Tensor]]) -> Tuple[Optional[_Neurons], Optional[_Neurons]]:
    learner_up, learner_bias, learner_down, frozen_up, frozen_bias, frozen_down = weights
    learners = frozen = None
    if learner_up is not None and learner_down is not None:
        learners = _Neurons(learner_up, learner_bias, learner_down)
    if frozen_up is not None and frozen_down is not None:
        frozen = _Neurons(frozen_up, frozen_bias, frozen_down)
    return learners, frozen


def _run(
    ctx: Any,
    x: Tensor,
    learners: Optional[_Neurons],
    frozen: Optional[_Neurons],
    bias: Optional[Tensor],
    save_frozen: bool,
    save_learners: bool,
) -> Tuple[Tensor, List[Tensor], List[Tensor]]:
    """Return the value, and the tensors that each portion saves of the frozen neurons and of the learners."""
    activation, dtype = ctx.activation, ctx.dtype
    learners, frozen = (None if part is None else part.to(dtype) for part in (learners, frozen))
    bias = _as(bias, dtype)
    y = x.new_empty(x.shape, dtype=dtype)
    saved_frozen: List[Tensor] = []
    saved_learners: List[Tensor] = []
    tokens = ctx.rows * _flat(x, slice(0, 1)).shape[0]
    # twice the rows of the backward pass, which has twice as many temporaries
    for rows in portions(x, 2 * ctx.rows):
        here, out = _flat(x, rows).to(dtype), _flat(y, rows)
        # the frozen part first: its temporaries are freed before the learners' activations are allocated
        for part, saves, saved in ((frozen, save_frozen, saved_frozen), (learners, save_learners, saved_learners)):
            if part is None:
                continue
            before = F.linear(here, part.up, part.bias)
            value = activation.value(before)
            if part is learners and frozen is not None:
                out.addmm_(value, part.down.t())
            elif bias is None:
                torch.mm(value, part.down.t(), out=out)
            else:
                torch.addmm(bias, value, part.down.t(), out=out)
            if saves and part is frozen and ctx.policy == "compact":
                # the value is not needed any more: its memory is reused for the ones
                before = _to_byte(activation.gradient(value.fill_(1.0), before), activation.derivative_range)
            del value
            if saves:
                saved.extend(before.split(tokens))
            del before
    return y, saved_frozen, saved_learners


def _run_backward(
    ctx: Any,
    g: Tensor,
    x: Optional[Tensor],
    learners: Optional[_Neurons],
    frozen: Optional[_Neurons],
    saved: Tuple[Iterator[Tensor], Iterator[Tensor]],
) -> Tuple[Optional[Tensor], List[Optional[Tensor]]]:
    """Return the gradients of ``x`` and of the learners' three tensors."""
    dtype, through = ctx.dtype, ctx.needs_input_grad[0]
    dx = torch.empty_like(g, dtype=dtype) if through else None
    totals: List[Optional[Tensor]] = [None, None, None]
    if learners is not None and ctx.learns:
        totals = [None if weight is None else torch.zeros_like(weight) for weight in learners]
    learners, frozen = (None if part is None else part.to(dtype) for part in (learners, frozen))
    for rows in portions(g, ctx.rows):
        here = None if x is None else _flat(x, rows).to(dtype)
        above, below = _flat(g, rows).to(dtype), None if dx is None else _flat(dx, rows)
        if frozen is not None and below is not None:
            inner = _frozen_gradient(ctx, above @ frozen.down, here, frozen, saved[0])
            torch.mm(inner, frozen.up, out=below)
            del inner
        if learners is not None and (ctx.learns or through):
            inner = _learner_gradient(ctx, above, here, learners, saved[1], totals)
            if below is not None and frozen is None:
                torch.mm(inner, learners.up, out=below)
            elif below is not None:
                below.addmm_(inner, learners.up)
            del inner
    return dx, totals


def _frozen_gradient(ctx: Any, g: Tensor, x: Optional[Tensor], part: _Neurons, saved: Any) -> Tensor:
    """``g act'(before)`` of the frozen neurons in one portion."""
    if ctx.policy == "compact":
        return g.mul_(_from_byte(next(saved), ctx.activation.derivative_range, g.dtype))
    before = next(saved) if ctx.policy == "store" else F.linear(x, part.up, part.bias)  # type: ignore[arg-type]
    return ctx.activation.gradient(g, before)  # type: ignore[no-any-return]


def _learner_gradient(
    ctx: Any, above: Tensor, x: Optional[Tensor], part: _Neurons, saved: Any, totals: Sequence[Optional[Tensor]]
) -> Tensor:
    """``g act'(before)`` of the learners in one portion; adds the gradients of their weights to ``totals``."""
    before = F.linear(x, part.up, part.bias) if ctx.policy == "recompute" else next(saved)  # type: ignore[arg-type]
    up, bias, down = totals
    if down is not None:
        _add_product(down, above.t(), ctx.activation.value(before))
    inner: Tensor = ctx.activation.gradient(above @ part.down, before)
    if up is not None and x is not None:
        _add_product(up, inner.t(), x)
    if bias is not None:
        bias.add_(inner.sum(0))
    return inner


def feed_forward(
    x: Tensor,
    activation: Activation,
    policy: str,
    learners: Optional[Sequence[Optional[Tensor]]],
    frozen: Optional[Sequence[Optional[Tensor]]],
    bias: Optional[Tensor],
    rows: Optional[int] = None,
) -> Tensor:
    """Return ``act(x W1' + b1) W2' + b2`` over learners and frozen neurons, ``[..., hidden]`` to ``[..., hidden]``.

    Args:
        policy: ``store``, ``compact`` or ``recompute``.
        learners, frozen: W1 ``[k, hidden]``, b1 ``[k]`` or None and W2 ``[hidden, k]`` of each part, None for an
            empty part.
        bias: b2 ``[hidden]`` or None.
        rows: entries of the first dimension that are computed together; None selects by length.
    """
    return _FeedForward.apply(  # type: ignore[no-any-return, no-untyped-call]
        x, activation, policy, rows, *(learners or (None,) * 3), *(frozen or (None,) * 3), bias
    )
