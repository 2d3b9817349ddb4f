"""Rows of token ids as inputs of a model, and batches of them as tensors."""

from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["IGNORED", "Batch", "Features", "Span", "batch_of", "padded_rows"]

IGNORED = -100
"""Target of a token without loss: the index that torch's cross entropy ignores."""


class Span(NamedTuple):
    """First and last token of an answer; both are 0, the first special token, if the row has no answer."""

    start: int
    end: int


class Features(NamedTuple):
    """Rows as inputs of a model.

    ``input_ids`` are not padded and have their special tokens. ``targets`` are of one type: an int (class), a float
    (number), a tuple of floats (1.0 for each label that the row has), a tuple of ints as long as the row (the tag of
    each token, or IGNORED), or a Span. ``segments`` are the token types, which of a pair of texts a token belongs to;
    None for models without token types, and for single texts. ``class_weights`` are those of the classes in the mean
    loss; None for the same weight of all rows. ``label_smoothing`` is the share of a class's target that is spread over
    all classes (Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7).
    """

    input_ids: Sequence[Sequence[int]]
    targets: Sequence[Any]
    segments: Optional[Sequence[Sequence[int]]] = None
    class_weights: Optional[Tuple[float, ...]] = None
    label_smoothing: float = 0.0

    @property
    def lengths(self) -> List[int]:
        """Tokens of each row."""
        return [len(row) for row in self.input_ids]

    def take(self, rows: Sequence[int]) -> "Features":
        """Return the given rows, in that order."""
        segments = None if self.segments is None else [self.segments[row] for row in rows]
        ids, targets = [self.input_ids[row] for row in rows], [self.targets[row] for row in rows]
        return self._replace(input_ids=ids, targets=targets, segments=segments)


class Batch(NamedTuple):
    """Rows as tensors.

    ``inputs`` are a model's arguments, ``[rows, longest]`` and the targets. ``weights`` are those of the rows in the
    mean loss: 1, that of the row's class, or the number of tokens with a tag. ``class_weights``, ``[classes]``, and
    ``label_smoothing`` are as in ``Features``.
    """

    inputs: "Dict[str, Tensor]"
    weights: Tuple[float, ...]
    class_weights: "Optional[Tensor]" = None
    label_smoothing: float = 0.0

    def part(self, rows: slice) -> "Batch":
        """Return a slice of the rows, with the padding of all."""
        inputs = {name: value[rows] for name, value in self.inputs.items()}
        return self._replace(inputs=inputs, weights=self.weights[rows])


def batch_of(features: Features, pad_id: int, device: "Optional[torch.device]" = None, learn: bool = True) -> Batch:
    """Return all rows of ``features`` as tensors, padded on the right.

    Args:
        pad_id: token id of the padding.
        learn: include the targets, without which a model computes no loss.
    """
    import torch

    inputs, weights = padded_rows(features, pad_id, learn)
    given = features.class_weights
    return Batch(
        {name: torch.tensor(value).to(device) for name, value in inputs.items()},
        weights,
        None if given is None else torch.tensor(given).to(device),
        features.label_smoothing,
    )


def padded_rows(features: Features, pad_id: int, learn: bool = True) -> Tuple[Dict[str, List[Any]], Tuple[float, ...]]:
    """Return the inputs and weights of ``batch_of`` as lists, for engines without torch."""
    longest = max(features.lengths)
    inputs = {
        "input_ids": _padded(features.input_ids, longest, pad_id),
        "attention_mask": _padded([[1] * length for length in features.lengths], longest, 0),
    }
    if features.segments is not None:
        inputs["token_type_ids"] = _padded(features.segments, longest, 0)
    weights = (1,) * len(features.input_ids)  # type: Tuple[float, ...]
    if learn:
        targets = features.targets
        if features.class_weights is not None:
            weights = tuple(features.class_weights[target] for target in targets)
        if _is_tags(targets[0]):
            weights = tuple(sum(tag != IGNORED for tag in row) for row in targets)
        inputs.update(_targets(targets, longest))
    return inputs, weights


def _padded(rows: Sequence[Sequence[int]], longest: int, value: int) -> List[Any]:
    return [list(row) + [value] * (longest - len(row)) for row in rows]


def _is_tags(target: Any) -> bool:
    return isinstance(target, tuple) and not isinstance(target, Span) and isinstance(target[0], int)


def _targets(targets: Sequence[Any], longest: int) -> Dict[str, List[Any]]:
    """The targets by the argument names of transformers' models."""
    if isinstance(targets[0], Span):
        starts, ends = zip(*targets)
        return {"start_positions": list(starts), "end_positions": list(ends)}
    if _is_tags(targets[0]):
        return {"labels": _padded(targets, longest, IGNORED)}
    return {"labels": list(targets)}
