"""Times of torch's operations, of its overheads, and of its training steps under sustained load."""

from functools import partial
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from .cases import Call, cases, make_call
from .rounds import OPERANDS, Slices, in_turn, is_product, median, repeated, sustained, time_call, timed_rounds
from .workloads import WORKLOADS, tiny_step, workload

__all__ = ["Pool", "half_speedups", "overheads", "sustained_load", "timed_cases"]

_HALF = ("bfloat16", "float16")
_HALF_PRODUCTS = ((256, 384, 1536), (1024, 384, 1536), (1024, 768, 3072))
"""Tokens, inputs and outputs of products of 16 bits, the smallest first, which takes long where a device has none."""


class Pool:
    """Operands for all cases, views of one tensor, so that preparing a case allocates nothing."""

    def __init__(self, device: torch.device, elements: int) -> None:
        self._numbers = torch.rand(elements, device=device)
        self._slices = Slices(elements)

    def __call__(self, *shapes: Tuple[int, ...]) -> List[Tensor]:
        """Return tensors of the given shapes."""
        places = self._slices.take(shapes)
        return [self._numbers[start:end].view(shape) for (start, end), shape in zip(places, shapes)]

    def calls(self, case: Tuple[str, Tuple[int, ...]]) -> Call:
        """Return a case's call. Operands of products change from call to call: in a step, weights come from memory.

        The operands of element-wise operations were just written by the preceding operation.
        """
        first = make_call(case[0], case[1], self)
        if not is_product(case[0]):
            return first
        return in_turn([first] + [make_call(case[0], case[1], self) for _ in range(OPERANDS - 1)])


def _waiting(device: torch.device) -> Callable[[], None]:
    """What waits for the kernels that a call has started."""
    return lambda: torch.cuda.synchronize(device) if device.type == "cuda" else None


def timed_cases(
    group: str, device: torch.device, pool: Pool, seconds: float, report: Callable[[str], None]
) -> List[Dict[str, Any]]:
    """Return the median seconds of each case that this torch supports, that fits, and for which the time suffices."""
    return timed_rounds(group, cases(group), pool.calls, seconds, report, _waiting(device))


def half_speedups(device: torch.device) -> Dict[str, float]:
    """Return how many times as fast as in float32 products of 16 bits are, by their type.

    A type that this torch lacks here, or in which they are not faster, is left out.
    """
    wait = _waiting(device)
    found: Dict[str, float] = {}
    for name in _HALF:
        try:
            with torch.no_grad():
                found[name] = _speedup(device, getattr(torch, name), wait)
        except RuntimeError:  # this torch has no such product here
            continue
    return {name: ratio for name, ratio in found.items() if ratio > 1.0}


def _speedup(device: torch.device, dtype: torch.dtype, wait: Callable[[], None]) -> float:
    """Median over products of their transpositions, the three of a linear map in a training step."""
    ratios: List[float] = []
    for t, k, n in _HALF_PRODUCTS:
        x, w, g = (torch.rand(shape, device=device) for shape in ((t, k), (n, k), (t, n)))
        for left, right in ((x, w.t()), (g, w), (g.t(), x)):
            pairs = [(left, right), (left.to(dtype), right.to(dtype))]
            for pair in pairs:
                torch.mm(*pair)
            seconds = [[time_call(partial(torch.mm, *pair), 1, wait) for _ in range(7)] for pair in pairs]
            ratios.append(median(seconds[0]) / median(seconds[1]))
            if median(ratios) <= 1.0:
                return median(ratios)
    return median(ratios)


def _optimizers(parameters: Sequence[nn.Parameter]) -> List[torch.optim.Optimizer]:
    """One for each parameter, with its state."""
    optimizers: List[torch.optim.Optimizer] = []
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
        try:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW([parameter], fused=True)
            optimizer.step()
        except (TypeError, RuntimeError):  # torch has no fused kernel here
            optimizer = torch.optim.AdamW([parameter])
            optimizer.step()
        optimizers.append(optimizer)
    return optimizers


def overheads(device: torch.device, seconds: float) -> Dict[str, float]:
    """Return overheads in seconds: of an operation, a tiny training step, an optimizer's call, and making a batch."""
    number = torch.zeros(1, device=device)
    step = tiny_step(device)
    # many, as in a training step: a single one would stay in the processor's caches
    optimizers = _optimizers([nn.Parameter(torch.zeros(8, device=device)) for _ in range(32)])

    def step_all() -> None:
        for optimizer in optimizers:
            optimizer.step()

    rows = [list(range(64 - row)) for row in range(8)]

    def collate() -> None:
        torch.tensor([row + [0] * (64 - len(row)) for row in rows]).to(device)
        torch.tensor([[1] * len(row) + [0] * (64 - len(row)) for row in rows]).to(device)

    calls: List[Tuple[str, Call, int]] = [
        ("operation", lambda: number.add_(1), 200), ("tiny_step", step, 5),
        ("optimizer_call", step_all, 1), ("batch_of_512_tokens", collate, 20),
    ]  # fmt: skip
    medians = repeated(calls, seconds, _waiting(device))
    medians["optimizer_call"] /= len(optimizers)
    return medians


def sustained_load(device: torch.device, seconds: float, report: Callable[[str], None]) -> Dict[str, Any]:
    """Return the times of training steps, run in turn until the time is over: sustained load with its heat."""
    steps = [(name, _maker(name, device)) for name in WORKLOADS]
    return sustained(steps, seconds, report, _waiting(device))


def _maker(name: str, device: torch.device) -> Callable[[], Call]:
    return lambda: workload(name, device)
