"""The entities that tags of words name, found as seqeval's default mode and CoNLL's script find them."""

from typing import Sequence, Set, Tuple

__all__ = ["count_entities", "entities"]

_OUTSIDE = ("O", ".")


def entities(tags: Sequence[str]) -> Set[Tuple[str, int, int]]:
    """Entities of a row as (type, first word, last word).

    The first letter of a tag says where in an entity a word stands: ``B`` begins one, ``I`` is inside, ``E`` its end,
    ``S`` one of a single word, ``O`` outside of all. What follows, less one dash, is the type; of a bare letter ``_``.
    Nothing is malformed: an entity begins at an ``I`` or ``E`` too where none of that type goes on, and ends wherever
    another begins. So neither IOB1 nor IOB2 nor IOBES need be named, and any other letter is read as an ``I``.
    """
    found, first = set(), 0
    before, type_before = "O", "_"
    for i, tag in enumerate(list(tags) + ["O"]):
        place, type_ = tag[:1], tag[1:].split("-", 1)[-1] or "_"
        if _ends(before, place, type_before != type_):
            found.add((type_before, first, i - 1))
        if _begins(before, place, type_before != type_):
            first = i
        before, type_before = place, type_
    return found


def _ends(before: str, place: str, other: bool) -> bool:
    """Whether an entity ends before this word; ``other``: the word before was of another type."""
    if before in ("E", "S") or (before in ("B", "I") and place in ("B", "S", "O")):
        return True
    return other and before not in _OUTSIDE


def _begins(before: str, place: str, other: bool) -> bool:
    """Whether an entity begins with this word."""
    if place in ("B", "S") or (place in ("I", "E") and before in ("O", "E", "S")):
        return True
    return other and place not in _OUTSIDE


def count_entities(predicted: Sequence[str], true: Sequence[str]) -> Tuple[float, float, float]:
    """How many entities of a row are right (same type, same words), predicted, true.

    Raises:
        ValueError: where the tags are not as many.
    """
    if len(predicted) != len(true):
        raise ValueError("{} predicted tags for {} words".format(len(predicted), len(true)))
    said, right = entities(predicted), entities(true)
    return float(len(said & right)), float(len(said)), float(len(right))
