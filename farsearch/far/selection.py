"""Selection of the learning neurons: their scores after priming, and the top ones.

The unit is the hidden neuron j of a feed-forward block: row j of the first weight, entry j of its bias and column j of
the second weight; of a gated block, both rows that make the neuron. Its score is the L1 norm of the change of
these by priming (Vucetic et al. 2022, arXiv 2205.01541, with the hidden neuron as the node).
"""

from typing import Dict, List, Optional, Sequence

import torch
from torch import Tensor

from .layout import ModelLayout

__all__ = ["learner_count", "learner_counts", "neuron_scores", "overlap", "random_learners", "top_learners"]


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


def top_learners(scores: Tensor, count: int) -> List[int]:
    """Return the indices of the ``count`` highest scores, ascending. Of equal scores the lower index is first."""
    order = torch.sort(scores, descending=True, stable=True)[1].tolist()
    return sorted(order[:count])


def random_learners(width: int, count: int, seed: int) -> List[int]:
    """Return the indices of ``count`` neurons drawn by ``seed``, ascending: the baseline of the scores."""
    generator = torch.Generator().manual_seed(seed)
    return sorted(torch.randperm(width, generator=generator).tolist()[:count])


def overlap(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> Optional[float]:
    """Return the share of common learners of two selections, mean over blocks with learners; None without any."""
    shares = [len(set(a) & set(b)) / float(len(a)) for a, b in zip(first, second) if len(a)]
    return sum(shares) / len(shares) if shares else None
