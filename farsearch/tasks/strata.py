"""Strata of rows, and seeded orders of which every prefix is stratified."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from farsearch.tasks.data import Kind

__all__ = ["draw_order", "strata_of"]

_QUANTILES = 10
"""Strata of numbers."""


def strata_of(answers: Sequence[Any], kind: Kind) -> Sequence[int]:
    """Return the stratum of each row.

    It is the class; the rarest label or tag of the row; the decile of the number; whether a question has an answer.
    """
    if kind == "regression":
        ranked = sorted(answers)
        edges = [ranked[len(ranked) * i // _QUANTILES] for i in range(1, _QUANTILES)] if ranked else []
        return [bisect_right(edges, answer) for answer in answers]
    if kind == "question-answering":
        return [int(bool(answer)) for answer in answers]
    if kind == "classification":
        return answers
    often = Counter(label for answer in answers for label in set(answer))
    return [min(answer, key=lambda label: (often[label], label), default=-1) for answer in answers]


def draw_order(rows: Iterable[int], strata: Sequence[int], seed: str, first: Collection[int] = ()) -> list[int]:
    """Return ``rows`` in a seeded order of which every prefix is stratified.

    Within a stratum, rows of ``first`` come first. A prefix contains the share of each stratum within one row, and at
    least one row of each if it is as long as there are strata.
    """
    shuffler = random.Random(seed)
    by_stratum: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_stratum[strata[row]].append(row)
    keyed = []
    for stratum in sorted(by_stratum):
        members = by_stratum[stratum]
        shuffler.shuffle(members)
        members.sort(key=lambda row: row not in first)
        keyed += [((k + 0.5) / len(members) if k else 0.0, stratum, row) for k, row in enumerate(members)]
    return [row for _, _, row in sorted(keyed)]
