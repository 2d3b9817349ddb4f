"""Draw validation rows within a budget of rows that are withheld from training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from farsearch.tasks.overlap import Relations, Shared, Texts, Words

__all__ = ["ValidationDraw", "draw_sharing_texts", "draw_whole_texts", "least_group"]


@dataclass
class ValidationDraw:
    """Validation rows, and all rows that are withheld from training.

    Attributes:
        left: number of rows of each stratum that are not withheld.
    """

    validation: list[int]
    withheld: set[int]
    left: Counter[int]

    def take(self, row: int, related: Collection[int], strata: Sequence[int]) -> None:
        """Add a validation row, and withhold its related rows."""
        self.validation.append(row)
        self.withheld.update(related)
        self.left.subtract(strata[i] for i in related)

    def spares(self, related: Collection[int], strata: Sequence[int]) -> bool:
        """Return whether training keeps a row of each stratum without the related rows."""
        return all(self.left[stratum] > count for stratum, count in Counter(strata[i] for i in related).items())


def draw_whole_texts(
    texts: Texts, words: Sequence[Sequence[Words]], order: Sequence[int], strata: Sequence[int], budget: int,
    size: int, stop: bool,
) -> ValidationDraw:  # fmt: skip
    """Draw validation rows of texts that are no part of another, in ``order``, and withhold every row within one.

    Args:
        words: texts of each row, as words.
        budget: maximum number of withheld rows.
        size: maximum number of validation rows.
        stop: stop before the last row of a stratum; false continues with other strata.
    """
    drawn = ValidationDraw([], set(), Counter(strata))
    for row in order:
        related = {i for part in texts.parts(words[row][0]) for i in texts.rows[part]} - drawn.withheld
        if len(drawn.validation) == size or len(drawn.withheld) + len(related) > budget:
            break
        if drawn.spares(related, strata):
            drawn.take(row, related, strata)
        elif stop:
            break
    return drawn


def draw_sharing_texts(
    relations: Relations, distinct: Sequence[Any], order: Sequence[int], strata: Sequence[int], budget: int, size: int
) -> ValidationDraw:
    """Draw validation rows that may share texts, in ``order``; related rows are withheld or validated on too.

    A row that would exceed the budget is skipped. Rows that are withheld already can still be validated on.

    Args:
        distinct: key of each row; rows with the same key are duplicates.
        budget, size: as in ``draw_whole_texts``.
    """
    drawn = ValidationDraw([], set(), Counter(strata))
    closed: set[Shared] = set()  # of which all rows are withheld
    seen: set[Any] = set()
    for row in order:
        room = budget - len(drawn.withheld)
        if len(drawn.validation) == size:
            break
        if distinct[row] in seen or (room == 0 and row not in drawn.withheld):
            continue
        around = [shared for shared in relations.around(row) if shared not in closed]
        related = _new_rows(relations, around, drawn.withheld, room)
        if related is None or not drawn.spares(related, strata):
            continue
        drawn.take(row, related, strata)
        closed.update(around)
        seen.add(distinct[row])
    return drawn


def _new_rows(
    relations: Relations, around: Iterable[Shared], withheld: Collection[int], room: int
) -> Collection[int] | None:
    """The rows of ``around`` that are not withheld yet; None if they exceed ``room``."""
    rows: set[int] = set()
    for shared in around:
        for row in relations.rows[shared]:
            if row not in withheld:
                rows.add(row)
                if len(rows) > room:
                    return None
    return rows


def least_group(relations: Relations, order: Sequence[int]) -> int:
    """Return the number of rows that the cheapest validation row withholds, among the first 1000 of ``order``."""
    return min(len({i for shared in relations.around(row) for i in relations.rows[shared]}) for row in order[:1000])
