"""The training loop, its schedule, and prediction.

Priming, the FAR phase, ``finetune`` and the board use the same loop.
"""

import math
from typing import Any, Callable, Dict, Optional, Sequence

import torch
from torch import Tensor, nn

from .batches import sorted_batches
from .features import Batch, Features, batch_of
from .loss import mean_loss
from .optimizer import BackwardOptimizer, Optimizer
from .schedule import Rate

__all__ = ["predict", "train", "train_step"]


def train_step(
    model: nn.Module, optimizer: Optimizer, batch: Batch, micro_batch_size: Optional[int] = None,
    clip_norm: Optional[float] = None,
) -> Tensor:  # fmt: skip
    """Run one optimizer step on one batch.

    With ``micro_batch_size`` the gradients of parts of the rows are accumulated. Gradients are dropped at the end, so
    that none is held while the next step's activations grow.

    Args:
        clip_norm: the gradients of all parameters, taken as one vector, are scaled to at most this norm (Pascanu et
            al., On the difficulty of training recurrent neural networks, ICML 2013).

    Returns:
        The mean loss of the batch, a detached scalar.

    Raises:
        ValueError: for micro-batches or a norm with an optimizer that steps in the backward pass: it would step before
            all gradients are complete.
    """
    if isinstance(optimizer, BackwardOptimizer) and (micro_batch_size is not None or clip_norm is not None):
        raise ValueError("micro-batches and the norm of gradients need an optimizer that steps at the end")
    size, whole = len(batch.weights), float(sum(batch.weights))
    step = size if micro_batch_size is None else min(micro_batch_size, size)
    total: Optional[Tensor] = None
    for start in range(0, size, step):
        part = batch.part(slice(start, start + step))
        if not sum(part.weights):
            continue  # the mean of no values is NaN
        loss = mean_loss(model, part) * (sum(part.weights) / whole)
        del part
        loss.backward()
        total = loss.detach() if total is None else total + loss.detach()
        del loss
    if clip_norm is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    assert total is not None, "no row of the batch has a target"
    return total


def train(
    model: nn.Module,
    features: Features,
    batches: Sequence[Sequence[int]],
    optimizer: Optimizer,
    rate: Rate,
    pad_id: int,
    seed: int,
    micro_batch_size: Optional[int] = None,
    on_step: Optional[Callable[[int, float], None]] = None,
    first_step: int = 0,
    clip_norm: Optional[float] = None,
) -> None:
    """Train over ``batches`` (rows of ``features``) in order.

    Args:
        rate: learning rate of each step.
        pad_id: token id of the padding.
        seed: dropout of step i is drawn by ``seed + i``, so that a phase can be resumed.
        on_step: called after each step with its number and loss; it may raise to stop.
        first_step: steps already done; ``batches`` are those that remain.
        clip_norm: as in ``train_step``.

    Raises:
        FloatingPointError: if the loss of a step is not finite.
    """
    device = next(model.parameters()).device
    model.train()
    for step, rows in enumerate(batches, first_step):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        torch.manual_seed(seed + step)
        batch = batch_of(features.take(rows), pad_id, device)
        loss = float(train_step(model, optimizer, batch, micro_batch_size, clip_norm))
        if not math.isfinite(loss):
            raise FloatingPointError("the loss of step {} is {}".format(step, loss))
        if on_step is not None:
            on_step(step, loss)


def predict(model: nn.Module, features: Features, pad_id: int, batch_size: int = 32) -> Tensor:
    """Return logits in the order of ``features``, on the CPU. Rows of similar length are batched.

    Returns:
        ``[rows, outputs]``; for token classification ``[tokens of all rows, outputs]``, row after row without padding;
        for question answering with two outputs, for the first and the last token.
    """
    device = next(model.parameters()).device
    lengths = features.lengths
    by_row: Dict[int, Tensor] = {}
    model.eval()
    with torch.no_grad():
        for rows in sorted_batches(lengths, batch_size):
            logits = _logits(model(**batch_of(features.take(rows), pad_id, device, learn=False).inputs)).float().cpu()
            for row, values in zip(rows, logits):
                by_row[row] = values[: lengths[row]] if values.dim() == 2 else values[None]
    return torch.cat([by_row[row] for row in range(len(lengths))])


def _logits(output: Any) -> Tensor:
    """``[rows, outputs]`` or ``[rows, length, outputs]`` of any of transformers' heads."""
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits], -1)
    logits: Tensor = output.logits
    return logits
