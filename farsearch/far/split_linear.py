"""A linear map of an attention whose heads are part learners and part frozen.

The maps to queries, keys and values have rows of each head, the map of the output columns. A map's weight is joined
from the two parts in the original order of the heads, so the attention between them is that of the unsplit model, its
dropout masks included. With r for the share of learners a map takes ``2 + r`` products instead of 3. It saves for the
backward pass its input if it has rows of learners, and the learners' channels of its input if it has their columns.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .execution import autocast_to, compute_dtype, gradient_scale
from .layout import HeadMap
from .merged_state import load_merged, save_merged

__all__ = ["Places", "SplitLinear", "places_of"]

Ranges = Tuple[Tuple[int, int], ...]


class Places(NamedTuple):
    """Ranges ``(start, stop)`` of a map's rows or columns that belong to learners, and those of frozen heads.

    A part holds its ranges one after another. ``dim`` is 0 for rows, 1 for columns.
    """

    learners: Ranges
    frozen: Ranges
    dim: int

    def join(self, learned: Tensor, frozen: Tensor) -> Tensor:
        """Return both parts in the order of the whole. Biases have only one dimension, of the rows."""
        pieces: List[Tensor] = []
        at = [0, 0]
        for (start, stop), part in sorted([(each, 0) for each in self.learners] + [(each, 1) for each in self.frozen]):
            pieces.append((learned, frozen)[part].narrow(self.dim, at[part], stop - start))
            at[part] += stop - start
        return torch.cat(pieces, self.dim)


def taken(whole: Tensor, ranges: Ranges, dim: int) -> Tensor:
    """Return a copy of the ranges of ``whole``, one after another."""
    if not ranges:
        return whole.narrow(dim, 0, 0)
    return torch.cat([whole.narrow(dim, start, stop - start) for start, stop in ranges], dim)


def places_of(shape: Sequence[int], heads: int, learners: Sequence[int], head_map: HeadMap) -> Places:
    """Return the places of the heads in a weight of this shape.

    Args:
        heads: of the attention.
        learners: indices of its trained heads.
    """
    size = shape[head_map.dim] // (heads * head_map.times)
    parts: Tuple[List[Tuple[int, int]], List[Tuple[int, int]]] = ([], [])
    for i in range(heads * head_map.times):
        ranges = parts[0] if i % heads in learners else parts[1]
        start = ranges.pop()[0] if ranges and ranges[-1][1] == i * size else i * size
        ranges.append((start, (i + 1) * size))
    return Places(tuple(parts[0]), tuple(parts[1]), head_map.dim)


class _SplitLinear(torch.autograd.Function):
    """``x W' + b`` with a weight of two parts, of which one is trained."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        learned: Tensor,
        learned_bias: Optional[Tensor],
        frozen: Tensor,
        bias: Optional[Tensor],
        places: Places,
    ) -> Tensor:
        ctx.places, ctx.scale, dtype = places, gradient_scale(x, learned), compute_dtype(x)
        with autocast_to(x, None):  # cast once, not at each product
            here = x.to(dtype)
            if learned_bias is not None and bias is not None:
                bias = places.join(learned_bias, bias)
            weight = places.join(learned.to(dtype), frozen.to(dtype))
            y = F.linear(here, weight, None if bias is None else bias.to(dtype))
            del weight
            saved = None
            if ctx.needs_input_grad[1]:
                saved = taken(here, places.learners, here.dim() - 1) if places.dim else x
        ctx.save_for_backward(saved, learned, frozen)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        saved, learned, frozen = ctx.saved_tensors
        places, dx, dw, db = ctx.places, None, None, None
        with autocast_to(g, None):  # cast once, not at each product
            flat = g.reshape(-1, g.shape[-1])
            if ctx.needs_input_grad[0]:
                dx = (flat @ places.join(learned.to(g.dtype), frozen.to(g.dtype))).view(g.shape[:-1] + (-1,))
            if ctx.needs_input_grad[1]:
                own = flat if places.dim else taken(flat, places.learners, 1)
                dw = own.t() @ saved.reshape(-1, saved.shape[-1]).to(g.dtype)
                db = own.sum(0) if ctx.needs_input_grad[2] else None
            if ctx.scale != 1.0:
                dw, db = (None if each is None else each.float().div_(ctx.scale) for each in (dw, db))
        return dx, dw, db, None, None, None


class SplitLinear(nn.Module):
    """A linear map with the rows or columns of the heads in ``learners`` trained, and the other ones frozen.

    The bias of a map of columns, which belongs to no head, is frozen. In a state dict, read or written, the module has
    the weight and bias of the map before the split.

    Args:
        linear: the map, with or without bias.
        heads: of the attention.
        learners: indices of its trained heads.
        head_map: where the map has the heads.
    """

    def __init__(self, linear: nn.Linear, heads: int, learners: Sequence[int], head_map: HeadMap) -> None:
        super().__init__()
        self.learners, self.heads = sorted(set(learners)), heads
        self.places = places_of(linear.weight.shape, heads, self.learners, head_map)
        rows = head_map.dim == 0
        with torch.no_grad():
            self.learner_weight = nn.Parameter(taken(linear.weight, self.places.learners, head_map.dim))
            self.learner_bias = self.bias = None  # type: Any
            if linear.bias is not None and rows:
                self.learner_bias = nn.Parameter(taken(linear.bias, self.places.learners, 0))
            self.frozen_weight = nn.Parameter(taken(linear.weight, self.places.frozen, head_map.dim), False)
            if linear.bias is not None:
                bias = taken(linear.bias, self.places.frozen, 0) if rows else linear.bias.detach()
                self.bias = nn.Parameter(bias, False)
        linear.weight = linear.bias = None  # type: ignore[assignment]
        # in a tuple, so that it is no submodule
        self.shell = (linear,)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        return _SplitLinear.apply(  # type: ignore[no-any-return, no-untyped-call]
            x, self.learner_weight, self.learner_bias, self.frozen_weight, self.bias, self.places
        )

    def extra_repr(self) -> str:
        """Return the two counts, for torch's ``repr``."""
        return "learners={}, frozen={}".format(len(self.learners), self.heads - len(self.learners))

    def release(self) -> nn.Linear:
        """Return the original map with the weights of this one."""
        (linear,) = self.shell
        for name, value in self.whole().items():
            setattr(linear, name, nn.Parameter(value))
        return linear

    def whole(self) -> Dict[str, Tensor]:
        """Return the weight, and bias if any, in the original order of the heads, detached."""
        with torch.no_grad():
            frozen = self.frozen_weight.to(self.learner_weight.dtype)
            values = {"weight": self.places.join(self.learner_weight, frozen)}
            if self.bias is not None:
                joined = self.learner_bias is not None
                values["bias"] = self.places.join(self.learner_bias, self.bias) if joined else self.bias.detach()
        return values

    def put(self, name: str, value: Tensor) -> None:
        """Copy ``weight`` or ``bias``, in the shape of ``whole``, into learners and frozen heads."""
        places = self.places
        with torch.no_grad():
            if name == "weight":
                self.learner_weight.copy_(taken(value, places.learners, places.dim))
                self.frozen_weight.copy_(taken(value, places.frozen, places.dim))
            elif self.learner_bias is None:
                self.bias.copy_(value)
            else:
                self.learner_bias.copy_(taken(value, places.learners, 0))
                self.bias.copy_(taken(value, places.frozen, 0))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        save_merged(self.whole(), destination, prefix)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: List[str],
        unexpected_keys: List[str], error_msgs: List[str],
    ) -> None:  # fmt: skip
        load_merged(self.whole(), self.put, state_dict, prefix, strict, missing_keys, unexpected_keys, error_msgs)
