"""Learning rates of the steps of a phase."""

from typing import Callable

__all__ = ["Rate", "constant_rate", "linear_rate"]

Rate = Callable[[int], float]
"""Learning rate of a step, counted from 0."""


def linear_rate(peak: float, steps: int, warmup_share: float = 0.1) -> Rate:
    """Linear warm-up over the first tenth of the steps (at least one), then linear decay that ends above 0."""
    warmup = max(1, int(round(steps * warmup_share)))

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * (steps - step) / max(1, steps - warmup + 1)

    return rate


def constant_rate(peak: float, warmup_steps: int) -> Rate:
    """Linear warm-up over ``warmup_steps``, then constant: a longer phase continues a shorter one."""

    def rate(step: int) -> float:
        return peak * min(1.0, (step + 1.0) / (warmup_steps + 1.0))

    return rate
