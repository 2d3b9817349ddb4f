"""Times of operations, overheads, and training steps under sustained load."""

import itertools
import math
import random
import time
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

import torch
from torch import Tensor, nn

from .cases import Call, cases, make_call
from .workloads import WORKLOADS, tiny_step, workload

__all__ = ["Pool", "median", "overheads", "sustained_load", "timed_cases"]

_LEAST_S = 2e-3
"""Shorter calls are repeated up to this time, so that the clock's resolution does not matter."""
_OPERANDS = 16
"""Sets of operands of a product, used in turn."""
_ROUNDS = 9
"""Most rounds of all cases."""


class Pool:
    """Operands for all cases, views of one tensor, so that preparing a case allocates nothing."""

    def __init__(self, device: torch.device, elements: int) -> None:
        self._numbers = torch.rand(elements, device=device)
        self._next = 0

    def __call__(self, *shapes: Tuple[int, ...]) -> List[Tensor]:
        """Return tensors of the given shapes."""
        sizes = [_size(shape) for shape in shapes]
        room, needed = self._numbers.numel(), sum(sizes)
        if needed > room:
            raise MemoryError("{} elements requested, {} available".format(needed, room))
        start = self._next if self._next + needed <= room else 0
        self._next = start + needed
        parts = torch.split(self._numbers[start : self._next], sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes)]

    def calls(self, case: Tuple[str, Tuple[int, ...]]) -> Call:
        """Return a case's call. Operands of products change from call to call: in a step, weights come from memory.

        The operands of element-wise operations were just written by the preceding operation.
        """
        first = make_call(case[0], case[1], self)
        if case[0][:4] not in ("gemm", "bmm_"):
            return first
        turns = itertools.cycle([first] + [make_call(case[0], case[1], self) for _ in range(_OPERANDS - 1)])
        return lambda: next(turns)()


def _size(shape: Iterable[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_call(call: Call, device: torch.device, repeats: int) -> float:
    """Return the seconds of one call, mean over ``repeats`` in a row."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def median(values: Sequence[float]) -> float:
    """Return the median."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def timed_cases(
    group: str, device: torch.device, pool: Pool, seconds: float, report: Callable[[str], None]
) -> List[Dict[str, Any]]:
    """Return the median seconds of each case that this torch supports, that fits, and for which the time suffices.

    Cases are timed in rounds, so that a disturbance does not affect a single case; the order is shuffled, so that small
    and large cases are timed even if the time ends early.
    """
    order = cases(group)
    random.Random(0).shuffle(order)
    times: Dict[Tuple[str, Tuple[int, ...]], List[float]] = {}
    repeats: Dict[Tuple[str, Tuple[int, ...]], int] = {}
    left_out = set()
    end = time.perf_counter() + seconds
    for turn in range(_ROUNDS):
        report("{}, round {} of at most {}".format(group, turn + 1, _ROUNDS))
        for case in order:
            if time.perf_counter() >= end and times:
                return _samples(times)
            if case in left_out:
                continue
            try:
                call = pool.calls(case)
                if case not in times:
                    call()
                    once = time_call(call, device, 1)
                    # a case of more than a tenth of the time is for a faster machine
                    if once > seconds / 10 and times:
                        left_out.add(case)
                        continue
                    repeats[case] = max(1, min(200, int(math.ceil(_LEAST_S / max(once, 1e-9)))))
                    times[case] = []
            except (AttributeError, RuntimeError, MemoryError, TypeError):
                # an operation that this torch lacks, or not enough memory
                left_out.add(case)
                continue
            times[case].append(time_call(call, device, repeats[case]))
    return _samples(times)


def _samples(times: Dict[Tuple[str, Tuple[int, ...]], List[float]]) -> List[Dict[str, Any]]:
    return [
        {"case": name, "dims": list(dims), "seconds": median(values), "rounds": len(values)}
        for (name, dims), values in sorted(times.items())
        if values
    ]


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
    for _, call, _ in calls:
        for _ in range(5):
            call()
    times: Dict[str, List[float]] = {name: [] for name, _, _ in calls}
    end = time.perf_counter() + seconds
    while len(times["operation"]) < 5 or time.perf_counter() < end:
        for name, call, repeats in calls:
            times[name].append(time_call(call, device, repeats))
    medians = {name: median(values) for name, values in times.items()}
    medians["optimizer_call"] /= len(optimizers)
    return medians


def sustained_load(device: torch.device, seconds: float, report: Callable[[str], None]) -> Dict[str, Any]:
    """Return the times of training steps, run in turn until the time is over: sustained load with its heat."""
    steps: Dict[str, Call] = {}
    times: Dict[str, List[Tuple[float, float]]] = {}
    start = time.perf_counter()
    for name in WORKLOADS:
        try:
            step = workload(name, device)
            step()
            if time_call(step, device, 1) > seconds / 12 and steps:
                continue
        except RuntimeError:  # not enough memory
            continue
        steps[name], times[name] = step, []
    reported = start
    while steps and (time.perf_counter() - start < seconds or len(next(iter(times.values()))) < 3):
        for name, step in steps.items():
            taken = time_call(step, device, 1)
            times[name].append((time.perf_counter() - start, taken))
        if time.perf_counter() - reported > 10:
            reported = time.perf_counter()
            report("sustained load, {:.0f} of {:.0f} s".format(reported - start, seconds))
    return {name: _summary(values) for name, values in times.items()}


def _summary(values: List[Tuple[float, float]]) -> Dict[str, float]:
    """Median seconds of a step: overall, in the first third and in the last."""
    third = max(1, len(values) // 3)
    seconds = [taken for _, taken in values]
    return {
        "seconds": median(seconds), "first": median(seconds[:third]), "last": median(seconds[-third:]),
        "steps": len(values),
    }  # fmt: skip
