"""What calibration times: the operations of a fine-tuning step, at the shapes that occur."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = [
    "Case",
    "Pool",
    "attention_cases",
    "launch_seconds",
    "median_rates",
    "product_cases",
    "stream_cases",
    "traffic",
]

_TOKENS = (256, 1024, 2048)
_WIDTHS = ((384, 1536), (768, 3072))
"""Hidden width and feed-forward width of MiniLM, and of DistilBERT and BERT-base."""
_ATTENTION = ((192, 32, 32), (192, 32, 64), (96, 128, 64), (48, 256, 64))
"""Batch times heads, tokens and columns of a head."""
_STREAMS = ((512, 1536), (2048, 1536), (2048, 3072))
_ROOM = (torch.ops.aten.empty, torch.ops.aten.empty_like)
_LEAST_S = 1e-3
"""A shorter call is repeated until it takes this long, so that the clock does not matter."""


@dataclass(frozen=True)
class Case:
    """One operation at one shape.

    Attributes:
        work: floating-point operations of a call, or bytes that it reads and writes.
        prepare: takes the operands and returns the call.
    """

    label: str
    work: float
    prepare: Callable[[Pool], Callable[[], Any]]


class Pool:
    """Operands for all cases, cut from one tensor, so that preparing a case costs nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        rows, columns = _STREAMS[-1]
        self._numbers = torch.rand(4 * rows * columns, device=device)

    def take(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Tensors of these shapes that share no memory with each other; fp32, uniform in 0 to 1."""
        sizes = [math.prod(shape) for shape in shapes]
        parts = torch.split(self._numbers[: sum(sizes)], sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

    def wait(self) -> None:
        """Return when the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def product_cases() -> list[Case]:
    """Forward, input gradient and weight gradient of the linears (t, k) x (k, n); 2 t k n operations each."""
    sizes = [(t, d, n) for t in _TOKENS for d, ff in _WIDTHS for n in (d, ff)]
    return [case for t, k, n in sizes for case in _linear_cases(t, k, n)]


def _linear_cases(t: int, k: int, n: int) -> list[Case]:
    def forward(pool: Pool) -> Callable[[], Any]:
        x, w, b = pool.take((t, k), (n, k), (n,))
        return lambda: torch.addmm(b, x, w.t())

    def grad_input(pool: Pool) -> Callable[[], Any]:
        g, w = pool.take((t, n), (n, k))
        return lambda: torch.mm(g, w)

    def grad_weight(pool: Pool) -> Callable[[], Any]:
        g, x = pool.take((t, n), (t, k))
        return lambda: torch.mm(g.t(), x)

    forms = {"forward": forward, "dX": grad_input, "dW": grad_weight}
    return [Case(f"{name} {t}x{k}x{n}", 2.0 * t * k * n, prepare) for name, prepare in forms.items()]


def attention_cases() -> list[Case]:
    """Queries by keys (b, l, h) x (b, h, l), and probabilities by values (b, l, l) x (b, l, h); 2 b l l h each."""
    return [case for b, length, h in _ATTENTION for case in _attention_pair(b, length, h)]


def _attention_pair(b: int, length: int, h: int) -> list[Case]:
    def scores(pool: Pool) -> Callable[[], Any]:
        q, k = pool.take((b, length, h), (b, length, h))
        return lambda: torch.bmm(q, k.transpose(1, 2))

    def context(pool: Pool) -> Callable[[], Any]:
        p, v = pool.take((b, length, length), (b, length, h))
        return lambda: torch.bmm(p, v)

    work = 2.0 * b * length * length * h
    shape = f"{b}x{length}x{h}"
    return [Case(f"scores {shape}", work, scores), Case(f"context {shape}", work, context)]


def stream_cases(pool: Pool) -> list[Case]:
    """The element-wise operations of a step; ``work`` is what `traffic` counts for them on the device of ``pool``."""
    forms: dict[str, Callable[[Tensor, Tensor, Tensor], Any]] = {
        "gelu": lambda x, y, z: F.gelu(x),
        "gelu backward": lambda x, y, z: torch.ops.aten.gelu_backward(x, y),
        "layer norm": lambda x, y, z: F.layer_norm(x, x.shape[-1:]),
        "softmax": lambda x, y, z: torch.softmax(x, -1),
        "add": lambda x, y, z: x + y,
        "dropout": lambda x, y, z: F.dropout(x, 0.1, training=True),
        "adamw": _adamw_sweep,
    }
    cases = []
    for rows, columns in _STREAMS:
        for name, operation in forms.items():
            # counted on a few rows: the bytes grow with the rows
            some = 8
            work = traffic(_stream(some, columns, operation)(pool)) * rows / some
            cases.append(Case(f"{name} {rows}x{columns}", work, _stream(rows, columns, operation)))
    return cases


def traffic(call: Callable[[], Any]) -> float:
    """Bytes that ``call`` moves: of each operation that computes, its distinct tensor arguments and its results.

    What an operation changes in place is an argument and a result, so it counts twice.
    """
    counter = _Counter()
    with counter:
        call()
    return counter.bytes


def _stream(
    rows: int, columns: int, operation: Callable[[Tensor, Tensor, Tensor], Any]
) -> Callable[[Pool], Callable[[], Any]]:
    def prepare(pool: Pool) -> Callable[[], Any]:
        x, y, z = pool.take(*[(rows, columns)] * 3)
        return lambda: operation(x, y, z)

    return prepare


def _adamw_sweep(gradient: Tensor, average: Tensor, square: Tensor) -> None:
    # the averages stay within 0 and 1, so that repeating the sweep meets no slow denormal numbers
    average.lerp_(gradient, 0.1)
    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
    torch.addcdiv(average, average, square.sqrt().add_(1e-8), value=-1e-3)


def median_rates(
    cases: Sequence[Case], pool: Pool, seconds: float, overhead_s: float
) -> dict[str, tuple[float, float]]:
    """Median seconds of a call, without ``overhead_s``, and rate in work a second, of each case reached in time.

    Cases are timed in turn, again and again, so that a disturbance does not hit one of them alone; the order is
    shuffled, so that a time which ends early has still seen small and large ones. At least one case is timed.
    """
    order = list(cases)
    random.Random(0).shuffle(order)
    end = time.perf_counter() + seconds
    times: dict[str, list[float]] = {}
    repeats: dict[str, int] = {}
    while True:
        for case in order:
            call = case.prepare(pool)
            if case.label not in times:
                call()
                repeats[case.label] = min(50, math.ceil(_LEAST_S / _seconds(call, pool, 1)))
                times[case.label] = []
            times[case.label].append(_seconds(call, pool, repeats[case.label]))
            if time.perf_counter() >= end:
                work = {case.label: case.work for case in cases}
                medians = {label: statistics.median(values) for label, values in times.items()}
                # a call too short to show beside its launch must not give a rate without bounds
                own = {label: max(median - overhead_s, median / 2) for label, median in medians.items()}
                return {label: (value, work[label] / value) for label, value in own.items()}


def launch_seconds(pool: Pool, seconds: float) -> tuple[float, list[float]]:
    """Seconds of an operation that has nothing to compute.

    Returns:
        The median without autograd, and samples of forward and backward passes of tiny layers, divided by their
        operations without views.
    """
    tiny = torch.zeros(1, device=pool.device)
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8)) for _ in range(8)))

    def step() -> None:
        inputs = torch.ones(4, 8, device=next(layers.parameters()).device)
        layers(inputs).sum().backward()
        layers.zero_grad(set_to_none=True)

    counter = _Counter()
    with counter:
        step()
    layers.to(pool.device)
    for _ in range(5):
        step()
    end = time.perf_counter() + seconds
    plain: list[float] = []
    trained: list[float] = []
    while len(plain) < 3 or time.perf_counter() < end:
        plain.append(_seconds(lambda: tiny.add_(1), pool, 200))
        trained.append(_seconds(step, pool, 5) / counter.count)
    return statistics.median(plain), trained


class _Counter(TorchDispatchMode):
    """Counts the operations that compute, and the bytes of their arguments and results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self.bytes = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # neither views nor what only makes room for a result touch the numbers
        if not func.is_view and func.overloadpacket not in _ROOM:
            self.count += 1
            arguments = {id(item): item for item in tree_leaves((args, kwargs)) if isinstance(item, Tensor)}
            results = [item for item in tree_leaves(result) if isinstance(item, Tensor)]
            self.bytes += sum(item.numel() * item.element_size() for item in (*arguments.values(), *results))
        return result


def _seconds(call: Callable[[], Any], pool: Pool, repeats: int) -> float:
    """Seconds of one call, mean over ``repeats`` in a row."""
    pool.wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    pool.wait()
    return (time.perf_counter() - start) / repeats
