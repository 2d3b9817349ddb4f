"""The mean loss of a batch: the model's own, or one in which the classes have weights."""

from typing import Any, Callable

from torch import Tensor
from torch.nn.functional import cross_entropy

from .features import Batch

__all__ = ["mean_loss"]


def mean_loss(model: Callable[..., Any], batch: Batch) -> Tensor:
    """Return the mean loss of the rows, a scalar.

    With class weights w it is sum(w_i l_i) / sum(w_i) over the rows i, l the cross entropy and w_i the weight of the
    row's class. So the loss of a batch is that of its parts, each times its share of the sum of the weights.
    """
    if batch.class_weights is None:
        loss: Tensor = model(**batch.inputs).loss
        return loss
    inputs = dict(batch.inputs)
    targets = inputs.pop("labels")
    return cross_entropy(model(**inputs).logits, targets, batch.class_weights)
