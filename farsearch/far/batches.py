"""Batches of rows of similar length, which need little padding.

Pure Python's ``random`` draws the order: it gives the same order on every version of Python and torch.
"""

import math
import random
from typing import List, Sequence

__all__ = ["MOST_EPOCHS", "epoch_batches", "phase_batches", "steps_in"]

MOST_EPOCHS = 10000
"""Passes over the rows: far above any fine-tuning, few enough that the list of a phase's batches fits into memory."""

_WINDOW = 8
"""Batches sorted together: enough that padding is little, few enough that a batch is no sample of one length only
(docs/log.md has what 50 did to accuracy)."""


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int) -> List[List[int]]:
    """One epoch: every row once, in batches of rows of similar length, in random order.

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
    """Optimizer steps of ``epochs`` epochs: at least one, unless there are 0 epochs."""
    if epochs == 0:
        return 0
    return max(1, int(round(math.ceil(rows / float(batch_size)) * epochs)))


def phase_batches(lengths: Sequence[int], batch_size: int, epochs: float, seed: int) -> List[List[int]]:
    """The batches of a whole phase, epoch after epoch, each in an order of its own.

    A longer phase with the same seed starts with the batches of a shorter one.
    """
    steps = steps_in(len(lengths), batch_size, epochs)
    batches: List[List[int]] = []
    epoch = 0
    while len(batches) < steps:
        batches.extend(epoch_batches(lengths, batch_size, seed + 7919 * epoch))
        epoch += 1
    return batches[:steps]
