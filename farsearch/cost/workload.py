"""The batches of a training, by the length that each is padded to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from farsearch.far.batches import phase_batches

__all__ = ["Epochs", "Workload"]

Epochs = float | None
"""The length of a phase in epochs; None for a single step at full length."""


@dataclass(frozen=True, eq=False)
class Workload:
    """The rows that a model is trained on.

    Attributes:
        batch_size: rows of an optimizer step.
        max_length: tokens of the longest row, at which peak memory is predicted.
        lengths: tokens of each training row; None for a phase of a single step at ``max_length``.
        seed: of the order of the batches.
        device_samples: rows that the device trains on; None for as many as ``lengths``.
    """

    batch_size: int
    max_length: int
    lengths: tuple[int, ...] | None = None
    seed: int = 0
    device_samples: int | None = None

    def steps(self, epochs: Epochs) -> Mapping[int, float]:
        """Return the number of steps of a phase by the length that their batch is padded to."""
        if epochs is None or self.lengths is None:
            return {self.max_length: 1.0}
        lengths = [min(length, self.max_length) for length in self.lengths]
        scale = 1.0 if self.device_samples is None else self.device_samples / len(lengths)
        batches = phase_batches(lengths, self.batch_size, epochs, self.seed)
        counts = Counter(max(lengths[row] for row in batch) for batch in batches)
        return {length: count * scale for length, count in counts.items()}
