"""Divide a training file into a training sample and validation rows without text overlap.

Most rows of SST-2's training file are phrases of the same sentences. Validating on a sentence whose phrases were
trained on measures memorisation, so no text may contain another across the split: word by word, ignoring case and
spacing, as a contiguous run, equality included. This holds for each text of a pair, and for the contexts of questions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from farsearch.errors import BadInput
from farsearch.tasks.data import Examples, Kind
from farsearch.tasks.overlap import Relations, Texts, Words, words_of
from farsearch.tasks.strata import draw_order, strata_of
from farsearch.tasks.validation_draw import ValidationDraw, draw_sharing_texts, draw_whole_texts, least_group

__all__ = ["Split", "draw_training", "split_examples"]

_SHARE = 0.2
"""Minimum share of the rows that may be withheld for validation."""


@dataclass(frozen=True)
class Split:
    """Indices of training and validation rows, each in the order of the draw: a prefix is a smaller stratified draw.

    Attributes:
        withheld: neither, for they share a text with a validation row; in the order of the file.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    withheld: tuple[int, ...] = ()

    def final(self, rows: int) -> tuple[int, ...]:
        """Return the rows of a final model: training and validation rows together.

        Withheld rows are among them unless the training rows are a sample, which leaves further rows unused.

        Args:
            rows: number of rows of the training file.
        """
        held_out = (*self.validation, *self.withheld)
        sampled = len(self.train) + len(held_out) < rows
        return (*self.train, *(self.validation if sampled else held_out))


def _compared(examples: Examples, kind: Kind) -> list[tuple[Words, ...]]:
    """The texts of each row that must not overlap across the split: contexts of questions, else all texts."""
    if kind == "token-classification":
        return [(words_of(" ".join(words)),) for words in examples.texts]
    first = 1 if kind == "question-answering" else 0
    known = {text: words_of(text) for row in examples.texts for text in row[first:]}
    return [tuple(known[text] for text in row[first:]) for row in examples.texts]


def _shares_texts(examples: Examples, kind: Kind) -> bool:
    """Whether texts are in several rows by design, as in pairs and contexts."""
    if kind == "token-classification":
        return False
    return len(examples.texts[0]) > 1 if examples.texts else False


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


def split_examples(
    examples: Examples, train_samples: int | None, seed: int, max_validation: int = 1024,
    kind: Kind = "classification",
) -> Split:  # fmt: skip
    """Draw validation rows, and a training sample from the rows that are unrelated to them.

    Validation rows are distinct texts that are no part of another text of the file, as in SST-2's official development
    set. Rows that equal a validation row or are part of one are withheld from training: at most as many as the training
    sample leaves unused, or 20 % of the file if that is more, and never the last row of a class. The training sample
    takes texts that are no part of another first, because a phrase adds little to its sentence (docs/log.md). Both
    draws are stratified (``strata_of``), and a smaller ``train_samples`` draws a prefix if the validation rows are the
    same.

    Of pairs and questions any row may be a validation row; rows that share a text or context with it (``Relations``)
    are withheld from training, and may be validation rows too.

    Args:
        examples: the whole training file.
        train_samples: rows to train on, or fewer if fewer are left, which are at least 80 % of the file; None for all.
        seed: of both draws.
        kind: kind of the task.

    Raises:
        BadInput: if the file has too few rows, or a part would lack a class.
    """
    _check(examples, train_samples, kind)
    strata, compared = strata_of(examples.answers, kind), _compared(examples, kind)
    budget = _withheld_at_most(len(examples), len(set(strata)) if kind == "classification" else 1, train_samples)
    maximal: Collection[int] = ()
    if _shares_texts(examples, kind):
        drawn = _split_sharing(examples, kind, compared, strata, budget, max_validation, f"validation {seed}")
    else:
        texts = Texts.of(compared)
        maximal = texts.maximal()
        order = draw_order(maximal, strata, f"validation {seed}")
        drawn = draw_whole_texts(texts, compared, order, strata, budget, max_validation, kind == "classification")
    _check_drawn(drawn, strata, kind)
    # no remaining row contains a validation text, which is part of no other text or whose containers are withheld
    pool = [row for row in range(len(examples)) if row not in drawn.withheld]
    train = draw_order(pool, strata, f"train {seed}", first=set(maximal))[:train_samples]
    withheld = drawn.withheld.difference(drawn.validation)
    return Split(tuple(train), tuple(drawn.validation), tuple(sorted(withheld)))


def _split_sharing(
    examples: Examples, kind: Kind, compared: Sequence[tuple[Words, ...]], strata: Sequence[int], budget: int,
    size: int, seed: str,
) -> ValidationDraw:  # fmt: skip
    relations = Relations(compared, common=kind != "question-answering")
    # the same question about the same context is a duplicate
    distinct = [(words_of(row[0]), *words) for row, words in zip(examples.texts, compared, strict=True)]
    order = draw_order(range(len(examples)), strata, seed)
    drawn = draw_sharing_texts(relations, distinct, order, strata, budget, size)
    if drawn.validation:
        return drawn
    # few large contexts: one of them is withheld, however large
    return draw_sharing_texts(relations, distinct, order, strata, least_group(relations, order), size)


def _check_drawn(drawn: ValidationDraw, strata: Sequence[int], kind: Kind) -> None:
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
    """Return training rows when nothing is held out, stratified and in the order of ``split_examples``.

    Args:
        train_samples: number of rows; all if there are fewer.
        kind: kind of the task.
    """
    maximal: Collection[int] = ()
    if train_samples < len(examples) and not _shares_texts(examples, kind):
        maximal = set(Texts.of(_compared(examples, kind)).maximal())
    strata = strata_of(examples.answers, kind)
    return tuple(draw_order(range(len(examples)), strata, f"train {seed}", maximal)[:train_samples])
