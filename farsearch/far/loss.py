"""The mean loss of a batch: the model's own, or one with weights of the classes or smoothed labels."""

from typing import Any, Callable, NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy

from .features import Batch

__all__ = ["PLAIN", "LossForm", "mean_loss"]


class LossForm(NamedTuple):
    """How a loss differs from the model's own.

    ``weighted``: the classes have weights, which follow from the rows. ``smoothing`` is that of the labels.
    """

    weighted: bool = False
    smoothing: float = 0.0


PLAIN = LossForm()


def mean_loss(model: Callable[..., Any], batch: Batch) -> Tensor:
    """Return the mean loss of the rows, a scalar.

    With class weights w it is sum(w_i l_i) / sum(w_i) over the rows i, l the cross entropy and w_i the weight of the
    row's class. So the loss of a batch is that of its parts, each times its share of the sum of the weights. With
    smoothed labels it is torch's, whose smoothed part is divided by the same sum.
    """
    if batch.class_weights is None and not batch.label_smoothing:
        loss: Tensor = model(**batch.inputs).loss
        return loss
    inputs = dict(batch.inputs)
    targets = inputs.pop("labels")
    logits = model(**inputs).logits
    return cross_entropy(logits, targets, batch.class_weights, label_smoothing=batch.label_smoothing)
