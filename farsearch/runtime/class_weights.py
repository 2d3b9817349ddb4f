"""Weights of the classes in the mean loss, so that a rare class counts as much as a common one."""

from typing import Sequence, Tuple

from ..far.features import Features

__all__ = ["balanced_weights", "with_balanced_classes"]


def balanced_weights(targets: Sequence[int], classes: int) -> Tuple[float, ...]:
    """Return n / (k n_c) for each class c, of n rows, k classes that occur, and n_c rows of the class.

    That is ``compute_class_weight("balanced", ...)`` of scikit-learn, after King and Zeng, Logistic Regression in Rare
    Events Data, Political Analysis 9 (2001). The mean over the rows is 1. A class without a row has weight 1.

    Args:
        targets: the class of each row.
        classes: number of classes of the task.
    """
    counts = [0] * classes
    for target in targets:
        counts[target] += 1
    present = sum(count > 0 for count in counts)
    return tuple(len(targets) / float(present * count) if count else 1.0 for count in counts)


def with_balanced_classes(features: Features, classes: int) -> Features:
    """Return rows to train on whose classes have ``balanced_weights``, those of these rows."""
    return features._replace(class_weights=balanced_weights(features.targets, classes))
