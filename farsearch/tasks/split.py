"""Training sample and validation rows out of one training file, so that no text tells about another.

Most rows of SST-2's training file are phrases of the same sentences. A validation sentence whose phrases were trained
on measures memory, so no text may contain another across the split: word by word, case and spacing aside, as a
contiguous run, equality included. Of pairs this holds for each text, and of questions for their contexts.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from farsearch.errors import BadInput
from farsearch.tasks.data import Examples, Kind
from farsearch.tasks.overlap import Relations, Shared, Texts, Words, words_of

__all__ = ["Split", "draw_training", "split_examples"]

_SHARE = 0.2
"""Share of the rows for validation where the training sample leaves fewer."""

_QUANTILES = 10
"""Strata of numbers."""


@dataclass(frozen=True)
class Split:
    """Two sets of row numbers, each in the order in which it was drawn: a prefix is a smaller stratified draw."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


def _compared(examples: Examples, kind: Kind) -> list[tuple[Words, ...]]:
    """The texts of each row that tell about other rows: a context, whatever is asked of it, or a sentence of words."""
    if kind == "token-classification":
        return [(words_of(" ".join(words)),) for words in examples.texts]
    first = 1 if kind == "question-answering" else 0
    known = {text: words_of(text) for row in examples.texts for text in row[first:]}
    return [tuple(known[text] for text in row[first:]) for row in examples.texts]


def _shares_texts(examples: Examples, kind: Kind) -> bool:
    """Whether a text is in many rows by design, as in pairs and contexts."""
    if kind == "token-classification":
        return False
    return len(examples.texts[0]) > 1 if examples.texts else False


def _strata(answers: Sequence[Any], kind: Kind) -> Sequence[int]:
    """What the draws are stratified by.

    The class; the rarest label or tag of a row; the tenth of the rows that a number is in; whether a question has an
    answer.
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


def _draw_order(rows: Iterable[int], strata: Sequence[int], seed: str, first: Collection[int] = ()) -> list[int]:
    """All ``rows`` in a seeded order of which every prefix is stratified.

    Within a stratum, rows of ``first`` come first. Of each stratum, a prefix holds its share of the rows within one
    row, and at least one row where the prefix is as long as there are strata.
    """
    shuffler = random.Random(seed)
    by_stratum: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_stratum[strata[row]].append(row)
    placed = []
    for stratum in sorted(by_stratum):
        members = by_stratum[stratum]
        shuffler.shuffle(members)
        members.sort(key=lambda row: row not in first)
        placed += [((k + 0.5) / len(members) if k else 0.0, stratum, row) for k, row in enumerate(members)]
    return [row for _, _, row in sorted(placed)]


def _check(examples: Examples, train_samples: int | None, kind: Kind) -> None:
    rows = len(examples)
    classes = len(set(examples.answers)) if kind == "classification" else min(rows, 2)
    if classes < 2:
        lacks = f"{classes} class{'' if classes else 'es'}" if kind == "classification" else f"{rows} rows"
        raise BadInput(f"the training file has {lacks}; give one with at least 2")
    if train_samples is None:
        return
    if train_samples > rows:
        raise BadInput(
            f"{train_samples} training samples are more than the {rows} rows of the training file; ask for fewer"
        )
    if train_samples < classes and kind == "classification":
        raise BadInput(
            f"{train_samples} training samples are too few for {classes} classes; ask for at least {classes}"
        )
    if train_samples < 1:
        raise BadInput(f"{train_samples} training samples are too few; ask for at least 1")


def _withheld_at_most(rows: int, at_least: int, train_samples: int | None) -> int:
    unused = 0 if train_samples is None else rows - train_samples
    return max(unused, round(_SHARE * rows), at_least)


@dataclass
class _Drawn:
    """Validation rows, and all rows that training must do without.

    Attributes:
        left: rows of each stratum that are not withheld.
    """

    validation: list[int]
    withheld: set[int]
    left: Counter[int]

    def take(self, row: int, related: Collection[int], strata: Sequence[int]) -> None:
        """Validate on ``row``, and withhold what is related to it."""
        self.validation.append(row)
        self.withheld.update(related)
        self.left.subtract(strata[i] for i in related)

    def spares(self, related: Collection[int], strata: Sequence[int]) -> bool:
        """Whether each stratum would keep a row."""
        return all(self.left[stratum] > count for stratum, count in Counter(strata[i] for i in related).items())


def _draw_whole(
    texts: Texts, words: Sequence[Sequence[Words]], order: Sequence[int], strata: Sequence[int], budget: int,
    size: int, stop: bool,
) -> _Drawn:  # fmt: skip
    """Validation rows of whole texts, in ``order``, with every row that is part of one withheld.

    Args:
        stop: at the last row of a stratum; false goes on with other strata.
    """
    drawn = _Drawn([], set(), Counter(strata))
    for row in order:
        related = {i for part in texts.parts(words[row][0]) for i in texts.rows[part]} - drawn.withheld
        if len(drawn.validation) == size or len(drawn.withheld) + len(related) > budget:
            break
        if drawn.spares(related, strata):
            drawn.take(row, related, strata)
        elif stop:
            break
    return drawn


def _draw_sharing(
    relations: Relations, distinct: Sequence[Any], order: Sequence[int], strata: Sequence[int], budget: int, size: int
) -> _Drawn:
    """Validation rows of which some share texts, in ``order``: what is related to one is withheld or validated on too.

    Where a row would withhold too many others the next are tried, and those go in that withhold no more.

    Args:
        distinct: rows of which this is the same are the same.
    """
    drawn = _Drawn([], set(), Counter(strata))
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
    """The rows of ``around`` that are not withheld yet; None where they are more than there is room for."""
    found: set[int] = set()
    for shared in around:
        for row in relations.rows[shared]:
            if row not in withheld:
                found.add(row)
                if len(found) > room:
                    return None
    return found


def _least_group(relations: Relations, order: Sequence[int]) -> int:
    """Rows that the cheapest validation row withholds, as far as a look at some tells."""
    return min(len({i for shared in relations.around(row) for i in relations.rows[shared]}) for row in order[:1000])


def split_examples(
    examples: Examples, train_samples: int | None, seed: int, max_validation: int = 1024,
    kind: Kind = "classification",
) -> Split:  # fmt: skip
    """Draw the validation rows, and from what has nothing to do with them the training sample.

    Validation rows are distinct texts that are no part of another text of the file, as those of SST-2's official
    development set are. With its validation row, every row that equals it or is part of it is withheld from training.
    So many rows are withheld as the training sample leaves unused, or 20 % of the file where that is more, until
    there are ``max_validation`` validation rows, and never the last row of a class. The training sample takes whole
    texts first, those that are no part of another: a phrase adds little to its sentence (docs/log.md has what that is
    worth on SST-2). Both draws are stratified by class, and a smaller ``train_samples`` draws a prefix of a larger
    one's rows where the validation rows are the same.

    Of pairs, and of questions by their contexts, any row may be validated on: with it every row is withheld from
    training that shares a text with it, as ``Relations`` has it. Rows that are withheld already come in too, so
    validation is no smaller for it. Instead of the class, draws are stratified by what ``_strata`` says.

    Args:
        examples: the whole training file.
        train_samples: rows to train on; None for all. Where fewer are left, the sample is all of them: at least 80 %
            of the file.
        seed: of both draws.
        kind: of their task.

    Raises:
        BadInput: for a ``train_samples`` that the file can't give, and where a part would lack a class.
    """
    _check(examples, train_samples, kind)
    strata, compared = _strata(examples.answers, kind), _compared(examples, kind)
    budget = _withheld_at_most(len(examples), len(set(strata)) if kind == "classification" else 1, train_samples)
    maximal: Collection[int] = ()
    if _shares_texts(examples, kind):
        drawn = _split_sharing(examples, kind, compared, strata, budget, max_validation, f"validation {seed}")
    else:
        texts = Texts.of(compared)
        maximal = texts.maximal()
        order = _draw_order(maximal, strata, f"validation {seed}")
        drawn = _draw_whole(texts, compared, order, strata, budget, max_validation, kind == "classification")
    _check_drawn(drawn, strata, kind)
    # No row left contains a validation text: those are parts of no other text, or what contains them is withheld.
    pool = [row for row in range(len(examples)) if row not in drawn.withheld]
    train = _draw_order(pool, strata, f"train {seed}", first=set(maximal))[:train_samples]
    return Split(tuple(train), tuple(drawn.validation))


def _split_sharing(
    examples: Examples, kind: Kind, compared: Sequence[tuple[Words, ...]], strata: Sequence[int], budget: int,
    size: int, seed: str,
) -> _Drawn:  # fmt: skip
    relations = Relations(compared, common=kind != "question-answering")
    # the same question of the same context is one
    distinct = [(words_of(row[0]), *words) for row, words in zip(examples.texts, compared, strict=True)]
    order = _draw_order(range(len(examples)), strata, seed)
    drawn = _draw_sharing(relations, distinct, order, strata, budget, size)
    if drawn.validation:
        return drawn
    # a few large contexts: training must do without one of them, however large
    return _draw_sharing(relations, distinct, order, strata, _least_group(relations, order), size)


def _check_drawn(drawn: _Drawn, strata: Sequence[int], kind: Kind) -> None:
    missing = sorted(set(strata) - {strata[row] for row in drawn.validation}) if kind == "classification" else []
    if missing:
        raise BadInput(
            f"the training file leaves no validation row of class {missing[0]}; it needs texts of every class that are "
            "no part of one another: give a file with more of them"
        )
    if not drawn.validation:
        raise BadInput(
            "the training file leaves no validation row: all its rows share texts with one another; give a file with "
            "more different texts"
        )


def draw_training(examples: Examples, train_samples: int, seed: int, kind: Kind = "classification") -> tuple[int, ...]:
    """Rows to train on where nothing is held out, stratified and in the order of ``split_examples``.

    Args:
        train_samples: at most as many as there are.
        kind: of their task.
    """
    maximal: Collection[int] = ()
    if train_samples < len(examples) and not _shares_texts(examples, kind):
        maximal = set(Texts.of(_compared(examples, kind)).maximal())
    strata = _strata(examples.answers, kind)
    return tuple(_draw_order(range(len(examples)), strata, f"train {seed}", maximal)[:train_samples])
