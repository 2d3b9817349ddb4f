"""Times of calls, whatever computes them: in rounds, repeated, and under sustained load."""

import itertools
import math
import random
import time
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

__all__ = [
    "OPERANDS",
    "Slices",
    "in_turn",
    "is_product",
    "median",
    "repeated",
    "sustained",
    "time_call",
    "timed_rounds",
]

OPERANDS = 16
"""Sets of operands of a product, used in turn: in a step, weights come from memory."""
_LEAST_S = 2e-3
"""Shorter calls are repeated up to this time, so that the clock's resolution does not matter."""
_ROUNDS = 9
"""Most rounds of all cases."""


def _nothing() -> None:
    """Every call has ended when it returns."""


def is_product(case: str) -> bool:
    """Return whether a case is a product, plain or batched."""
    return case[:4] in ("gemm", "bmm_")


class Slices:
    """Places of operands in one block of numbers, so that preparing a case allocates nothing."""

    def __init__(self, room: int) -> None:
        self._room, self._next = room, 0

    def take(self, shapes: Iterable[Sequence[int]]) -> List[Tuple[int, int]]:
        """Return the first and the last place of each operand; the block is used in a circle.

        Raises:
            MemoryError: if they do not fit.
        """
        sizes = [_size(shape) for shape in shapes]
        if sum(sizes) > self._room:
            raise MemoryError("{} elements requested, {} available".format(sum(sizes), self._room))
        start = self._next if self._next + sum(sizes) <= self._room else 0
        self._next = start + sum(sizes)
        ends = [start + end for end in itertools.accumulate(sizes)]
        return [(end - size, end) for end, size in zip(ends, sizes)]


def _size(shape: Iterable[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def in_turn(calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
    """Return a call that makes one of the calls after another."""
    turns = itertools.cycle(calls)
    return lambda: next(turns)()


def time_call(call: Callable[[], Any], repeats: int, wait: Callable[[], None] = _nothing) -> float:
    """Return the seconds of one call, mean over ``repeats`` in a row; ``wait`` waits for what a call has started."""
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - start) / repeats


def median(values: Sequence[float]) -> float:
    """Return the median."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def timed_rounds(
    group: str,
    cases: Sequence[Tuple[str, Tuple[int, ...]]],
    prepare: Callable[[Tuple[str, Tuple[int, ...]]], Callable[[], Any]],
    seconds: float,
    report: Callable[[str], None],
    wait: Callable[[], None] = _nothing,
) -> List[Dict[str, Any]]:
    """Return the median seconds of each case that can be computed here, and for which the time suffices.

    Cases are timed in rounds, so that a disturbance does not affect a single case; the order is shuffled, so that small
    and large cases are timed even if the time ends early.

    Args:
        cases: names and dimensions.
        prepare: returns the call of a case; it, or the call, fails where the libraries lack it or memory is short.
    """
    order = list(cases)
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
                call = prepare(case)
                if case not in times:
                    call()
                    once = time_call(call, 1, wait)
                    # a case of more than a tenth of the time is for a faster machine
                    if once > seconds / 10 and times:
                        left_out.add(case)
                        continue
                    repeats[case] = max(1, min(200, int(math.ceil(_LEAST_S / max(once, 1e-9)))))
                    times[case] = []
            except (AttributeError, RuntimeError, MemoryError, TypeError, ValueError):
                # an operation that these libraries lack, or not enough memory
                left_out.add(case)
                continue
            times[case].append(time_call(call, repeats[case], wait))
    return _samples(times)


def _samples(times: Dict[Tuple[str, Tuple[int, ...]], List[float]]) -> List[Dict[str, Any]]:
    return [
        {"case": name, "dims": list(dims), "seconds": median(values), "rounds": len(values)}
        for (name, dims), values in sorted(times.items())
        if values
    ]


def repeated(
    calls: Sequence[Tuple[str, Callable[[], Any], int]], seconds: float, wait: Callable[[], None] = _nothing
) -> Dict[str, float]:
    """Return the median seconds of each call by its name; each is made so often in a row, in turn with the others."""
    for _, call, _ in calls:
        for _ in range(5):
            call()
    times: Dict[str, List[float]] = {name: [] for name, _, _ in calls}
    end = time.perf_counter() + seconds
    while len(times[calls[0][0]]) < 5 or time.perf_counter() < end:
        for name, call, repeats in calls:
            times[name].append(time_call(call, repeats, wait))
    return {name: median(values) for name, values in times.items()}


def sustained(
    steps: Sequence[Tuple[str, Callable[[], Callable[[], Any]]]], seconds: float, report: Callable[[str], None],
    wait: Callable[[], None] = _nothing,
) -> Dict[str, Any]:  # fmt: skip
    """Return the times of training steps, run in turn until the time is over: sustained load with its heat.

    Args:
        steps: names, and functions that make a step.
    """
    made: Dict[str, Callable[[], Any]] = {}
    times: Dict[str, List[Tuple[float, float]]] = {}
    start = time.perf_counter()
    for name, make in steps:
        try:
            step = make()
            step()
            if time_call(step, 1, wait) > seconds / 12 and made:
                continue
        except (MemoryError, RuntimeError):  # not enough memory
            continue
        made[name], times[name] = step, []
    reported = start
    while made and (time.perf_counter() - start < seconds or len(next(iter(times.values()))) < 3):
        for name, step in made.items():
            taken = time_call(step, 1, wait)
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
