"""Batches of rows of similar length, which need little padding.

The order is drawn by Python's ``random``, which gives the same order on every version of Python and torch.
"""

import math
import random
from typing import List, Sequence

__all__ = ["MOST_EPOCHS", "epoch_batches", "phase_batches", "sorted_batches", "steps_in"]

MOST_EPOCHS = 10000
"""Upper limit of epochs: far above any fine-tuning, and the list of a phase's batches still fits into memory."""

_WINDOW = 8
"""Batches sorted together: enough for little padding, few enough that a batch is no sample of a single length
(docs/log.md has the accuracy with 50)."""


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int) -> List[List[int]]:
    """Return one epoch: every row once, in batches of rows of similar length, in random order.

    Rows are shuffled, sorted by length within windows of 8 batches, cut into batches, and the batches are shuffled.
    """
    shuffler = random.Random(seed)
    rows = list(range(len(lengths)))
    shuffler.shuffle(rows)
    window = _WINDOW * batch_size
    batches: List[List[int]] = []
    for start in range(0, len(rows), window):
        part = sorted(rows[start : start + window], key=lambda row: lengths[row])
        batches.extend(part[i : i + batch_size] for i in range(0, len(part), batch_size))
    shuffler.shuffle(batches)
    return batches


def steps_in(rows: int, batch_size: int, epochs: float) -> int:
    """Return the optimizer steps of ``epochs`` epochs: at least one, unless ``epochs`` is 0."""
    if epochs == 0:
        return 0
    return max(1, int(round(math.ceil(rows / float(batch_size)) * epochs)))


def phase_batches(lengths: Sequence[int], batch_size: int, epochs: float, seed: int) -> List[List[int]]:
    """Return the batches of a whole phase, epoch after epoch, each in its own order.

    A longer phase with the same seed starts with the batches of a shorter one.
    """
    steps = steps_in(len(lengths), batch_size, epochs)
    batches: List[List[int]] = []
    epoch = 0
    while len(batches) < steps:
        batches.extend(epoch_batches(lengths, batch_size, seed + 7919 * epoch))
        epoch += 1
    return batches[:steps]


def sorted_batches(lengths: Sequence[int], batch_size: int = 32) -> List[List[int]]:
    """Return every row once, in batches of rows of similar length, from the shortest to the longest."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
