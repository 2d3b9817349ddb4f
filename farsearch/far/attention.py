"""Self-attention that saves queries, keys and values, and recomputes scores and probabilities.

``softmax(q k' / sqrt(size of a head) + mask) v`` for each head. Ordinary modules save the probabilities, their dropout
mask and the dropped probabilities for the backward pass: ``3 heads length`` numbers per token beside q, k and v. Here
none of them is saved; recomputing them costs two small products of a layer's twelve or more, and an exponential.
"""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .dropout import drawn_again, drop_, dropped, generator_state
from .execution import autocast_to, portions
from .layout import AttentionLayout

__all__ = ["RecomputedAttention", "attend"]


def _heads(x: Tensor, heads: int) -> Tensor:
    """``[rows, length, hidden]`` to ``[rows, heads, length, size]``."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _portion(mask: Optional[Tensor], rows: slice) -> Optional[Tensor]:
    """The mask of these rows; a mask of a single row serves all."""
    return mask if mask is None or mask.shape[0] == 1 else mask[rows]


def _probabilities(q: Tensor, k: Tensor, mask: Optional[Tensor]) -> Tensor:
    """``[rows, heads, length, length]``, in float32 at least."""
    scores = torch.matmul(q, k.transpose(-1, -2))
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    scores.mul_(q.shape[-1] ** -0.5)
    if mask is not None and mask.dtype == torch.bool:
        scores.masked_fill_(mask.logical_not(), torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores.add_(mask)
    return torch.softmax(scores, -1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Optional[Tensor], heads: int, p: float, rows: Optional[int]
    ) -> Tensor:
        ctx.heads, ctx.p, ctx.rows = heads, p, rows
        ctx.state = generator_state(q) if p else None
        y = torch.empty_like(v)
        with autocast_to(q, None):  # cast once, not at each product
            for part in portions(q, rows):
                chances = _probabilities(_heads(q[part], heads), _heads(k[part], heads), _portion(mask, part))
                if p:
                    drop_(chances, dropped(chances, p), p)
                _heads(y[part], heads).copy_(torch.matmul(chances.to(v.dtype), _heads(v[part], heads)))
                del chances
        ctx.save_for_backward(q, k, v, mask)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        q, k, v, mask = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        with autocast_to(q, None):  # cast once, not at each product
            if ctx.p:
                with drawn_again(q, ctx.state):
                    _attention_gradients(ctx, g, q, k, v, mask, (dq, dk, dv))
            else:
                _attention_gradients(ctx, g, q, k, v, mask, (dq, dk, dv))
        return dq, dk, dv, None, None, None, None


def _attention_gradients(
    ctx: Any, g: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Optional[Tensor], out: Tuple[Tensor, Tensor, Tensor]
) -> None:
    """Fill ``out`` with the gradients of q, k and v; portions in the order of the forward pass, for their masks."""
    for part in portions(q, ctx.rows):
        queries, keys, values, above = (_heads(x[part], ctx.heads) for x in (q, k, v, g))
        dq, dk, dv = (_heads(x[part], ctx.heads) for x in out)
        chances = _probabilities(queries, keys, _portion(mask, part))
        # of the dropped probabilities P, then of the probabilities, then of the scores: P (dP - sum over keys of P dP)
        inner = torch.matmul(above, values.transpose(-1, -2)).to(chances.dtype)
        thinned = chances
        if ctx.p:
            gone = dropped(chances, ctx.p)
            drop_(inner, gone, ctx.p)
            thinned = drop_(chances.clone(), gone, ctx.p)
            del gone
        dv.copy_(torch.matmul(thinned.to(g.dtype).transpose(-1, -2), above))
        del thinned
        inner.mul_(chances)
        inner.sub_(chances.mul_(inner.sum(-1, keepdim=True))).mul_(queries.shape[-1] ** -0.5)
        del chances
        inner = inner.to(queries.dtype)
        dq.copy_(torch.matmul(inner, keys))
        dk.copy_(torch.matmul(inner.transpose(-1, -2), queries))
        del inner


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Optional[Tensor],
    heads: int,
    dropout: float = 0.0,
    rows: Optional[int] = None,
) -> Tensor:
    """Return the attention of every head; ``[rows, length, hidden]`` each.

    Args:
        mask: added to the scores, or boolean with True where attended; broadcast to ``[rows, heads, length, length]``.
        dropout: probability of dropping an attention probability.
        rows: sequences computed together; None selects by length.
    """
    return _Attention.apply(  # type: ignore[no-any-return, no-untyped-call]
        q.contiguous(), k.contiguous(), v.contiguous(), mask, heads, dropout, rows
    )


class RecomputedAttention(nn.Module):
    """Replaces a model's self-attention, with its submodules under their names.

    It accepts the arguments of all supported versions of transformers: hidden states first (or as ``hidden_states`` or
    ``query``), the mask second (or as ``attention_mask`` or ``mask``), and returns ``(context, None)``.
    """

    def __init__(self, original: nn.Module, layout: AttentionLayout, rows: Optional[int]) -> None:
        super().__init__()
        self.layout, self.rows, self.shell = layout, rows, (original,)
        for name, child in original.named_children():
            self.add_module(name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Tuple[Tensor, None]:
        """Map ``[rows, length, hidden]`` to the same shape, as the first of a pair."""
        hidden = args[0] if args else kwargs.get("hidden_states", kwargs.get("query"))
        mask = kwargs.get("attention_mask", kwargs.get("mask", args[1] if len(args) > 1 else None))
        layout = self.layout
        q, k, v = (getattr(self, name)(hidden) for name in (layout.query, layout.key, layout.value))
        dropout = getattr(self, layout.dropout).p if self.training else 0.0
        context = attend(q, k, v, _as_scores(mask), layout.heads, dropout, self.rows)
        if layout.output is not None:
            context = getattr(self, layout.output)(context)
        return context, None

    def release(self) -> nn.Module:
        """Return the replaced module."""
        return self.shell[0]


def _as_scores(mask: Optional[Tensor]) -> Optional[Tensor]:
    """A mask that broadcasts over scores; in a mask of one value per token 0 is padding."""
    if mask is not None and mask.dim() == 2:
        return mask.ne(0)[:, None, None, :]
    return mask
