"""Which hidden neurons learn: their scores after priming, and the choice of the top ones.

The unit is the hidden neuron j of a feed-forward block: row j of the first weight, entry j of its bias and column j of
the second weight; of a gated block, both rows that make the neuron. Its score is the L1 norm of what priming changed in
them (Vucetic et al. 2022, arXiv 2205.01541, with the hidden neuron as the node).
"""

from typing import Dict, List, Optional, Sequence

import torch
from torch import Tensor

from .layout import ModelLayout

__all__ = ["learner_count", "learner_counts", "neuron_scores", "overlap", "random_learners", "top_learners"]


def learner_count(width: int, frozen_fraction: float) -> int:
    """Learners among ``width`` hidden neurons: ``round(width * (1 - frozen_fraction))``."""
    return int(round(width * (1.0 - frozen_fraction)))


def learner_counts(width: int, frozen_fractions: Sequence[float], bottom_layers: int = 0) -> List[Optional[int]]:
    """Learners of each block of a layer, for all layers; None where its blocks are not split.

    That is a layer of the wholly frozen bottom, and one whose fraction freezes no neuron.
    """
    counts: List[Optional[int]] = []
    for i, fraction in enumerate(frozen_fractions):
        count = learner_count(width, fraction)
        counts.append(None if i < bottom_layers or count == width else count)
    return counts


def neuron_scores(layout: ModelLayout, before: Dict[str, Tensor], after: Dict[str, Tensor]) -> List[Tensor]:
    """L1 change of each hidden neuron between two states of a model.

    Returns:
        One float64 tensor ``[width]`` a block, from the bottom. Sums are taken in float64, so that the order of the
        neurons does not depend on the order of summation.
    """
    scores = []
    for block in layout.blocks:
        down = block.down + ".weight"
        change = (after[down].double() - before[down].double()).abs().sum(0)
        for name in (block.up + ".weight", block.up + ".bias"):
            if name in before:
                # a gated block has two rows a neuron
                moved = (after[name].double() - before[name].double()).abs()
                change += moved.reshape(moved.shape[0], -1).sum(1).view(-1, change.shape[0]).sum(0)
        scores.append(change.cpu())
    return scores


def top_learners(scores: Tensor, count: int) -> List[int]:
    """Indices of the ``count`` highest scores, ascending. Of equal scores the lower index wins."""
    order = torch.sort(scores, descending=True, stable=True)[1].tolist()
    return sorted(order[:count])


def random_learners(width: int, count: int, seed: int) -> List[int]:
    """Indices of ``count`` neurons drawn by ``seed``, ascending: the control that scores are compared with."""
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(width, generator=generator).tolist()[:count])


def overlap(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> Optional[float]:
    """Share of learners that two selections have in common, mean over the blocks that have any; None if none has."""
    shares = [len(set(a) & set(b)) / float(len(a)) for a, b in zip(first, second) if len(a)]
    return sum(shares) / len(shares) if shares else None
