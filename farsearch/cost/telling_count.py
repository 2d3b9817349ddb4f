"""A number of learners by which a size of a traced step shows that it depends on the learners."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from farsearch.far.ffn import padding

__all__ = ["TellingCount"]


class _Sized(Protocol):
    """A tensor, or the end of one, by the sign of its bytes."""

    @property
    def bytes(self) -> int: ...

    @property
    def shape(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class TellingCount:
    """Learners ``k`` of a layer of ``width`` neurons, such that ``k`` and the frozen part have primes of their own.

    Attributes:
        frozen: neurons of the frozen part, with its zero padding.
        of_learners, of_frozen: primes that divide ``learners`` and ``frozen``, and no other size of the step.
    """

    width: int
    learners: int
    frozen: int
    of_learners: int
    of_frozen: int

    @classmethod
    def choose(cls, width: int, others: Collection[int]) -> TellingCount:
        """Return the count whose smaller prime is the largest.

        Args:
            others: all other sizes of the step's tensors, but for their products and quotients.
        """
        found = []
        for k in range(2, width - 1):
            frozen = width - k + padding(width, k)
            primes = _largest_prime(k), _largest_prime(frozen)
            own = all(size % prime for size in (width, *filter(None, others)) for prime in primes)
            if own and k % primes[1] and frozen % primes[0]:
                found.append(cls(width, k, frozen, *primes))
        assert found, f"no number of {width} learners is told apart from other sizes"
        return max(found, key=lambda each: min(each.of_learners, each.of_frozen))

    def bytes_with(self, learners: int, tensor: _Sized) -> int:
        """Return the bytes of a tensor of a step with this count, in a step with ``learners`` and without padding."""
        size = tensor.bytes
        for dimension in tensor.shape:
            if dimension and dimension % self.of_learners == 0:
                size = size // self.learners * learners
            elif dimension and dimension % self.of_frozen == 0:
                size = size // self.frozen * (self.width - learners)
        return size


def _largest_prime(number: int) -> int:
    largest, factor = 1, 2
    while factor * factor <= number:
        while number % factor == 0:
            largest, number = factor, number // factor
        factor += 1
    return max(largest, number)
