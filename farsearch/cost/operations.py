"""One operation of a training step: its kind, its work, and the bytes that it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from farsearch.devices.rates import HALF_PRODUCTS, PRODUCTS, STREAMS

__all__ = ["CATEGORIES", "FEATURES", "OPERATION_KINDS", "VIEWS", "Operation", "describe", "tensors_in"]

OPERATION_KINDS = (*PRODUCTS, *STREAMS, *HALF_PRODUCTS)
"""Kinds of operations; all but the last have their own rate on a calibrated device."""
_HALF = {torch.bfloat16: "bfloat16_", torch.float16: "float16_"}
"""Beginning of the kinds of products by the type of their factors."""

CATEGORIES = ("gemm", "bmm", "stream", "optimizer")
"""Categories in reports: products, batched products of the attention, everything else, the optimizer's step."""

FEATURES = ("flops", "left", "right", "out", "matrices")
"""Numbers on which the time of an operation depends."""

VIEWS = {
    "view", "_unsafe_view", "t", "transpose", "expand", "detach", "slice", "select", "unsqueeze", "squeeze", "permute",
    "alias", "device", "empty_like", "empty", "new_empty", "as_strided", "split", "_local_scalar_dense", "reshape",
    "unbind",
}  # fmt: skip
"""Operations that move no data."""

_LEFT = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}
"""Matrix products, with the position of the left factor among their arguments."""

_ATTENTIONS = {
    "_scaled_dot_product_efficient_attention": ((0,), (1, 2), 2),
    "_scaled_dot_product_efficient_attention_backward": ((0, 1), (2, 3), 5),
    "_scaled_dot_product_flash_attention_for_cpu": ((0,), (1, 2), 2),
    "_scaled_dot_product_flash_attention_for_cpu_backward": ((0, 1), (2, 3), 5),
}
"""Attention in one kernel: positions of arguments shaped like queries and like keys, and the number of products: scores
and context; in the backward pass scores, and the gradients of probabilities, queries, keys and values."""

_STREAMS = {
    "masked": ("masked_fill", "masked_fill_", "where"),
    "copy": ("copy_", "clone", "_to_copy", "cat", "stack", "contiguous"),
    "fill": ("fill_", "zero_", "zeros", "zeros_like", "ones", "ones_like", "full", "full_like", "new_zeros"),
    "activation": ("gelu", "gelu_backward", "tanh", "erf", "exp", "silu", "silu_backward", "sigmoid", "tanh_backward"),
    "softmax": ("_softmax", "_softmax_backward_data", "_log_softmax", "_log_softmax_backward_data"),
    "norm": ("native_layer_norm", "native_layer_norm_backward"),
    "random": ("random_",),
    "bernoulli": ("bernoulli_", "bernoulli", "native_dropout"),
    "reduction": ("sum", "mean", "all", "any", "amax", "amin"),
    "gather": ("embedding", "index", "embedding_dense_backward", "gather", "index_select"),
    "fused": ("_fused_adamw_", "_fused_adam_", "_fused_sgd_"),
}
_KIND_OF = {name: kind for kind, names in _STREAMS.items() for name in names}


@dataclass(frozen=True)
class Operation:
    """One kernel.

    Attributes:
        kind: one of ``OPERATION_KINDS``.
        category: one of ``CATEGORIES``.
        flops: floating-point operations; a product ``[m, k] @ [k, n]`` counts 2 m n k.
        left, right, out: bytes of a product's factors and of its result; another operation has all bytes that it reads
            in ``left``.
        matrices: of a batched product; otherwise 1.
    """

    kind: str
    category: str
    flops: int
    left: int
    right: int
    out: int
    matrices: int

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.left + self.right + self.out


def tensors_in(tree: Any) -> list[Tensor]:
    """Return all tensors of nested arguments, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, tuple | list):
        return []
    return [tensor for branch in tree for tensor in tensors_in(branch)]


def describe(name: str, args: Any, inputs: list[Tensor], outputs: list[Tensor], stepping: bool = False) -> Operation:
    """Return the operation of torch's dispatcher called ``name``; ``stepping``: it belongs to an optimizer's step."""
    plain = name.rstrip("_")
    out = _nbytes(outputs)
    if plain in _LEFT:
        left, right = args[_LEFT[plain] : _LEFT[plain] + 2]
        shape = "gemm" if left.dim() == 2 else "bmm"
        form = "tn" if _transposed(left) else "nt" if _transposed(right) else "nn"
        work = 2 * outputs[0].numel() * left.shape[-1]
        matrices = 1 if left.dim() == 2 else left.shape[0]
        kind = f"{_HALF.get(left.dtype, '')}{shape}_{form}"
        return Operation(kind, shape, work, _nbytes([left]), _nbytes([right]), out, matrices)
    if name in _ATTENTIONS:
        queries, keys, products = _ATTENTIONS[name]
        rows, heads, length, size = args[queries[0]].shape
        work = 2 * products * rows * heads * length * args[keys[0]].shape[2] * size
        left, right = (_nbytes([args[i] for i in positions]) for positions in (queries, keys))
        return Operation("bmm_nt", "bmm", work, left, right, out, rows * heads)
    plain = plain.replace("_foreach_", "", 1)
    kind = _KIND_OF.get(name) or _KIND_OF.get(plain) or ("in_place" if name.endswith("_") else "arithmetic")
    # only the rows that are read, not the whole table
    left = out if name in ("embedding", "index") else _nbytes(inputs)
    category = "optimizer" if stepping else "stream"
    # one operation on many tensors counts the elements of all
    work = sum(tensor.numel() for tensor in outputs) if name.startswith("_foreach") else outputs[0].numel()
    return Operation(kind, category, work, left, 0, out, 1)


def _transposed(x: Tensor) -> bool:
    return x.stride(-1) != 1 and x.stride(-2) == 1


def _nbytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
