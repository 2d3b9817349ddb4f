"""Operations to time: the products and element-wise operations of a training step."""

from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["BY_NUMPY", "CASES", "Call", "MakeTensors", "cases", "make_call", "most_elements"]

MakeTensors = Callable[..., List[Tensor]]
"""Returns tensors of the given shapes."""
Call = Callable[[], Any]
_TOKENS = (32, 128, 512, 1024, 2048)
_WIDTHS = ((384, 1536), (768, 3072))
"""Hidden and feed-forward width of MiniLM, and of DistilBERT and BERT-base."""
_ATTENTION = ((12, 32, 32), (48, 32, 32), (192, 32, 64), (48, 64, 64), (96, 128, 32), (96, 128, 64), (48, 256, 64))
"""Rows times heads, tokens, and head size."""
_STREAMS = (1 << 13, 1 << 16, 1 << 19, 1 << 21, 1 << 23, 3 << 23)
"""Elements; the largest is the word embeddings of DistilBERT and BERT-base."""
_COLUMNS = 512


def _gemm_nt(tensors: MakeTensors, t: int, k: int, n: int) -> Call:
    x, w, b = tensors((t, k), (n, k), (n,))
    return lambda: torch.addmm(b, x, w.t())


def _gemm_nn(tensors: MakeTensors, t: int, k: int, n: int) -> Call:
    g, w = tensors((t, n), (n, k))
    return lambda: torch.mm(g, w)


def _gemm_tn(tensors: MakeTensors, t: int, k: int, n: int) -> Call:
    g, x = tensors((t, n), (t, k))
    return lambda: torch.mm(g.t(), x)


def _bmm_nt(tensors: MakeTensors, b: int, length: int, h: int) -> Call:
    q, k = tensors((b, length, h), (b, length, h))
    return lambda: torch.bmm(q, k.transpose(1, 2))


def _bmm_nn(tensors: MakeTensors, b: int, length: int, h: int) -> Call:
    p, v = tensors((b, length, length), (b, length, h))
    return lambda: torch.bmm(p, v)


def _bmm_tn(tensors: MakeTensors, b: int, length: int, h: int) -> Call:
    p, g = tensors((b, length, length), (b, length, h))
    return lambda: torch.bmm(p.transpose(1, 2), g)


def _add(tensors: MakeTensors, n: int) -> Call:
    x, y = tensors((n,), (n,))
    return lambda: x + y


def _scale(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n,))
    return lambda: x * 0.5


def _add_in_place(tensors: MakeTensors, n: int) -> Call:
    x, y = tensors((n,), (n,))
    return lambda: x.add_(y, alpha=1e-9)


def _fill_masked(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n,))
    mask = torch.zeros(n, dtype=torch.bool, device=x.device)
    return lambda: x.masked_fill_(mask, 0.0)


def _clone(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n,))
    return lambda: x.clone()


def _split_heads(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n // _COLUMNS // 16, 16, 8, _COLUMNS // 8))
    heads = x.transpose(1, 2)
    return lambda: heads.clone(memory_format=torch.contiguous_format)


def _zeros(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n,))
    return lambda: torch.zeros_like(x)


def _gelu(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n,))
    return lambda: F.gelu(x)


def _gelu_backward(tensors: MakeTensors, n: int) -> Call:
    g, x = tensors((n,), (n,))
    return lambda: torch.ops.aten.gelu_backward(g, x)


def _softmax(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n // _COLUMNS * 4, _COLUMNS // 4))
    return lambda: torch.softmax(x, -1)


def _layer_norm(tensors: MakeTensors, n: int) -> Call:
    x, w, b = tensors((n // _COLUMNS, _COLUMNS), (_COLUMNS,), (_COLUMNS,))
    return lambda: torch.native_layer_norm(x, (_COLUMNS,), w, b, 1e-12)


def _layer_norm_backward(tensors: MakeTensors, n: int) -> Call:
    g, x, w, b = tensors((n // _COLUMNS, _COLUMNS), (n // _COLUMNS, _COLUMNS), (_COLUMNS,), (_COLUMNS,))
    _, mean, rstd = torch.native_layer_norm(x, (_COLUMNS,), w, b, 1e-12)
    want = [True, True, True]
    return lambda: torch.ops.aten.native_layer_norm_backward(g, x, (_COLUMNS,), mean, rstd, w, b, want)


def _random_bits(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n,))
    words = torch.empty(n // 4, dtype=torch.int64, device=x.device)
    return lambda: words.random_(-(2**63), None)


def _bernoulli(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n,))
    return lambda: x.bernoulli_(0.9)


def _sum_rows(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n // _COLUMNS, _COLUMNS))
    return lambda: x.sum(0)


def _sum_columns(tensors: MakeTensors, n: int) -> Call:
    (x,) = tensors((n // _COLUMNS, _COLUMNS))
    return lambda: x.sum(-1)


def _embedding_gradient(tensors: MakeTensors, n: int) -> Call:
    tokens = 256
    (g,) = tensors((tokens, _COLUMNS))
    rows = n // _COLUMNS
    ids = torch.arange(tokens, device=g.device) % rows
    return lambda: torch.ops.aten.embedding_dense_backward(g, ids, rows, -1, False)


def _fused_adamw(tensors: MakeTensors, n: int) -> Call:
    p, g, average, square = tensors((n,), (n,), (n,), (n,))
    count = torch.ones((), device=p.device)
    return lambda: torch._fused_adamw_(
        [p], [g], [average], [square], [], [count],
        lr=1e-9, beta1=0.9, beta2=0.999, weight_decay=0.01, eps=1e-8, amsgrad=False, maximize=False,
    )  # fmt: skip


CASES: Dict[str, Callable[..., Call]] = {
    "gemm_nt": _gemm_nt, "gemm_nn": _gemm_nn, "gemm_tn": _gemm_tn,
    "bmm_nt": _bmm_nt, "bmm_nn": _bmm_nn, "bmm_tn": _bmm_tn,
    "add": _add, "scale": _scale, "add_in_place": _add_in_place, "fill_masked": _fill_masked,
    "clone": _clone, "split_heads": _split_heads, "zeros": _zeros, "gelu": _gelu, "gelu_backward": _gelu_backward,
    "softmax": _softmax, "layer_norm": _layer_norm, "layer_norm_backward": _layer_norm_backward,
    "random_bits": _random_bits, "bernoulli": _bernoulli, "sum_rows": _sum_rows, "sum_columns": _sum_columns,
    "embedding_gradient": _embedding_gradient, "fused_adamw": _fused_adamw,
}  # fmt: skip
"""Each makes a call of one operation from a function that returns operands, and dimensions."""

BY_NUMPY = frozenset({"zeros", "random_bits", "bernoulli", "embedding_gradient", "fused_adamw"})
"""Cases that the engine without torch computes by numpy; it has graphs for the others."""


def cases(group: str) -> List[Tuple[str, Tuple[int, ...]]]:
    """Return names and dimensions of the cases of a group: ``products`` or ``streams``.

    Products are the linear maps of a layer for few and for many tokens, with all neurons, with only the learners, and
    with the frozen neurons.
    """
    if group == "streams":
        return [(name, (n,)) for name in CASES if name[:4] not in ("gemm", "bmm_") for n in _STREAMS]
    products: List[Tuple[str, Tuple[int, ...]]] = []
    for d, ff in _WIDTHS:
        few, tenth, rest = ff // 64, ff // 160 * 16, ff - ff // 160 * 16
        maps = [(d, d), (d, ff), (ff, d), (d, few), (few, d), (d, tenth), (tenth, d), (d, rest), (rest, d)]
        products += [(form, (t, k, n)) for t in _TOKENS for k, n in maps for form in ("gemm_nt", "gemm_nn", "gemm_tn")]
    return products + [(form, dims) for dims in _ATTENTION for form in ("bmm_nt", "bmm_nn", "bmm_tn")]


def make_call(name: str, dims: Sequence[int], tensors: MakeTensors) -> Call:
    """Return the call of a case with operands from ``tensors``."""
    return CASES[name](tensors, *dims)


def most_elements() -> int:
    """Return the number of elements of the operands of the largest streams."""
    return 4 * _STREAMS[-1]
