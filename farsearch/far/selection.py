"""Selection of the learning neurons and heads: their scores after priming, and the top ones.

The unit of a feed-forward block is the hidden neuron j: row j of the first weight, entry j of its bias and column j of
the second weight; of a gated block, both rows that make the neuron. The unit of an attention is the head: its rows of
the maps to queries, keys and values with their biases, and its columns of the output's map. The score of a unit is the
L1 norm of the change of these by priming (Vucetic et al. 2022, arXiv 2205.01541, with the hidden neuron as the node).
"""

from typing import Dict, List, Optional, Sequence

import torch
from torch import Tensor

from .layout import ModelLayout

__all__ = [
    "head_counts",
    "head_scores",
    "learner_count",
    "learner_counts",
    "neuron_scores",
    "overlap",
    "random_learners",
    "top_learners",
]


def learner_count(width: int, frozen_fraction: float) -> int:
    """Return the number of learners among ``width`` hidden neurons: ``round(width * (1 - frozen_fraction))``."""
    return int(round(width * (1.0 - frozen_fraction)))


def learner_counts(width: int, frozen_fractions: Sequence[float], bottom_layers: int = 0) -> List[Optional[int]]:
    """Return the number of learners per block of each layer; None if its blocks are not split.

    These are layers of the wholly frozen bottom, and layers whose fraction freezes no neuron.
    """
    counts: List[Optional[int]] = []
    for i, fraction in enumerate(frozen_fractions):
        count = learner_count(width, fraction)
        counts.append(None if i < bottom_layers or count == width else count)
    return counts


def head_counts(heads: int, frozen_heads: Sequence[float], layers: int) -> List[Optional[int]]:
    """Return the number of trained heads of each layer; None if its attention is not split.

    Args:
        heads: of a layer.
        frozen_heads: share of frozen heads of each layer; empty if none is frozen by itself.
        layers: of the model.

    Raises:
        ValueError: for shares of a model without heads that can be frozen one by one.
    """
    if frozen_heads and not heads:
        raise ValueError("the model has no heads that can be frozen one by one")
    counts = [learner_count(heads, fraction) for fraction in frozen_heads or (0.0,) * layers]
    return [None if count == heads else count for count in counts]


def neuron_scores(layout: ModelLayout, before: Dict[str, Tensor], after: Dict[str, Tensor]) -> List[Tensor]:
    """Return the L1 change of each hidden neuron between two states of a model.

    Returns:
        One float64 tensor ``[width]`` per block, from the bottom. Sums are taken in float64, so that the order of the
        neurons does not depend on the order of summation.
    """
    scores = []
    for block in layout.blocks:
        down = block.down + ".weight"
        change = (after[down].double() - before[down].double()).abs().sum(0)
        for name in (block.up + ".weight", block.up + ".bias"):
            if name in before:
                # a gated block has two rows per neuron
                moved = (after[name].double() - before[name].double()).abs()
                change += moved.reshape(moved.shape[0], -1).sum(1).view(-1, change.shape[0]).sum(0)
        scores.append(change.cpu())
    return scores


def head_scores(layout: ModelLayout, before: Dict[str, Tensor], after: Dict[str, Tensor]) -> List[Tensor]:
    """Return the L1 change of each head between two states of a model: one float64 tensor ``[heads]`` per layer."""
    scores = []
    for layer in layout.layers:
        change = torch.zeros(layer.heads, dtype=torch.float64)
        for each in layer.head_maps:
            # the output's bias belongs to no head
            for name in [each.path + ".weight"] + ([] if each.dim else [each.path + ".bias"]):
                if name in before:
                    moved = (after[name].double() - before[name].double()).abs().transpose(0, each.dim)
                    by_row = moved.reshape(moved.shape[0], -1).sum(1)
                    change += by_row.view(each.times, layer.heads, -1).sum(2).sum(0).cpu()
        scores.append(change)
    return scores


def top_learners(scores: Tensor, count: int) -> List[int]:
    """Return the indices of the ``count`` highest scores, ascending. Of equal scores the lower index is first."""
    order = torch.sort(scores, descending=True, stable=True)[1].tolist()
    return sorted(order[:count])


def random_learners(width: int, count: int, seed: int) -> List[int]:
    """Return the indices of ``count`` units drawn by ``seed``, ascending: the baseline of the scores."""
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(width, generator=generator).tolist()[:count])


def overlap(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> Optional[float]:
    """Return the share of common learners of two selections, mean over blocks with learners; None without any."""
    shares = [len(set(a) & set(b)) / float(len(a)) for a, b in zip(first, second) if len(a)]
    return sum(shares) / len(shares) if shares else None
