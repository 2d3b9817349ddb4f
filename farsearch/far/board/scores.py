"""The tasks' metrics, in plain Python: a board need not have more."""

import math
from typing import Dict, Sequence, Tuple

__all__ = ["score"]


def score(metric: str, predictions: Sequence[int], labels: Sequence[int]) -> float:
    """``accuracy`` from 0 to 1, or ``matthews_correlation`` from -1 to 1, 0 where a class is never seen or predicted.

    Raises:
        KeyError: for a metric that is none of these.
    """
    table: Dict[Tuple[int, int], int] = {}
    for pair in zip(labels, predictions):
        table[pair] = table.get(pair, 0) + 1
    return _METRICS[metric](table)


def _accuracy(table: Dict[Tuple[int, int], int]) -> float:
    return sum(count for (truth, guess), count in table.items() if truth == guess) / float(sum(table.values()))


def _matthews(table: Dict[Tuple[int, int], int]) -> float:
    tp, tn, fp, fn = (table.get(cell, 0) for cell in ((1, 1), (0, 0), (0, 1), (1, 0)))
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(margins) if margins else 0.0


_METRICS = {"accuracy": _accuracy, "matthews_correlation": _matthews}
