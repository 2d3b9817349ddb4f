"""Entities of a tag sequence, by the rules of seqeval's default mode and of CoNLL's script."""

from typing import Sequence, Set, Tuple

__all__ = ["count_entities", "entities"]

_OUTSIDE = ("O", ".")


def entities(tags: Sequence[str]) -> Set[Tuple[str, int, int]]:
    """Return the entities of a row as (type, first word, last word).

    The first letter of a tag is the position in an entity: ``B`` begin, ``I`` inside, ``E`` end, ``S`` single word,
    ``O`` outside; any other letter is read as ``I``. The rest, without one dash, is the type; ``_`` if it is empty.
    No sequence is malformed: an ``I`` or ``E`` that continues no entity of its type begins one, and an entity ends
    where another begins. This covers IOB1, IOB2 and IOBES.
    """
    spans, first = set(), 0
    before, type_before = "O", "_"
    for i, tag in enumerate(list(tags) + ["O"]):
        place, type_ = tag[:1], tag[1:].split("-", 1)[-1] or "_"
        if _ends(before, place, type_before != type_):
            spans.add((type_before, first, i - 1))
        if _begins(before, place, type_before != type_):
            first = i
        before, type_before = place, type_
    return spans


def _ends(before: str, place: str, other: bool) -> bool:
    """Whether an entity ends before this word; ``other``: the previous word has another type."""
    if before in ("E", "S") or (before in ("B", "I") and place in ("B", "S", "O")):
        return True
    return other and before not in _OUTSIDE


def _begins(before: str, place: str, other: bool) -> bool:
    """Whether an entity begins with this word."""
    if place in ("B", "S") or (place in ("I", "E") and before in ("O", "E", "S")):
        return True
    return other and place not in _OUTSIDE


def count_entities(predicted: Sequence[str], true: Sequence[str]) -> Tuple[float, float, float]:
    """Return the numbers of correct (same type and words), predicted and true entities of a row.

    Raises:
        ValueError: when the numbers of tags differ.
    """
    if len(predicted) != len(true):
        raise ValueError("{} predicted tags for {} words".format(len(predicted), len(true)))
    of_prediction, of_truth = entities(predicted), entities(true)
    return float(len(of_prediction & of_truth)), float(len(of_prediction)), float(len(of_truth))
