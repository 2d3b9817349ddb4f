"""Training sample and validation rows out of one training file, so that no text tells about another.

Most rows of SST-2's training file are phrases of the same sentences. A validation sentence whose phrases were trained
on measures memory, so no text may contain another across the split: word by word, case and spacing aside, as a
contiguous run, equality included.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from farsearch.errors import BadInput
from farsearch.tasks.spec import Examples

__all__ = ["Split", "draw_training", "split_examples"]

_Words = tuple[str, ...]

_KEY = 3
"""Words that a text is looked up by. Few texts share so long a start, so few slices are made for each place."""

_SHARE = 0.2
"""Share of the rows for validation where the training sample leaves fewer."""


def _words(text: str) -> _Words:
    return tuple(text.lower().split())


@dataclass(frozen=True)
class Split:
    """Two sets of row numbers, each in the order in which it was drawn: a prefix is a smaller stratified draw."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


@dataclass(frozen=True)
class _Texts:
    """The distinct texts of a file as tuples of words, found as parts of one another by their first words."""

    rows: Mapping[_Words, Sequence[int]]
    lengths: Mapping[_Words, Sequence[int]]

    @classmethod
    def of(cls, texts: Sequence[str]) -> _Texts:
        rows: dict[_Words, list[int]] = defaultdict(list)
        for i, text in enumerate(texts):
            rows[_words(text)].append(i)
        lengths: dict[_Words, set[int]] = defaultdict(set)
        for words in rows:
            lengths[words[:_KEY]].add(len(words))
        return cls(rows, {key: sorted(found) for key, found in lengths.items()})

    def parts(self, words: _Words) -> Iterator[_Words]:
        """The texts that are contiguous parts of ``words``, itself among them, some more than once."""
        for start in range(len(words)):
            for size in range(1, _KEY + 1):
                for length in self.lengths.get(words[start : start + size], ()):
                    part = words[start : start + length]
                    if part in self.rows:
                        yield part

    def maximal(self) -> list[int]:
        """The first row of each text that is no part of a longer one, in order of the file."""
        inside: set[_Words] = set()
        found = []
        for words in sorted(self.rows, key=len, reverse=True):
            # What is inside a text that is inside another needs no look: it was found as part of the outermost.
            if words not in inside:
                found.append(self.rows[words][0])
                inside.update(part for part in self.parts(words) if len(part) < len(words))
        return sorted(found)


def _draw_order(rows: Sequence[int], labels: Sequence[int], seed: str, first: Collection[int] = ()) -> list[int]:
    """All ``rows`` in a seeded order of which every prefix is stratified.

    Within a class, rows of ``first`` come first. Of each class, a prefix holds its share of the rows within one row,
    and at least one row where the prefix is as long as there are classes.
    """
    shuffler = random.Random(seed)
    by_class: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_class[labels[row]].append(row)
    placed = []
    for label in sorted(by_class):
        members = by_class[label]
        shuffler.shuffle(members)
        members.sort(key=lambda row: row not in first)
        placed += [((k + 0.5) / len(members) if k else 0.0, label, row) for k, row in enumerate(members)]
    return [row for _, _, row in sorted(placed)]


def _check(examples: Examples, train_samples: int | None) -> None:
    rows, classes = len(examples), len(set(examples.labels))
    if classes < 2:
        raise BadInput(f"the training file has {classes} class{'' if classes else 'es'}; give one with at least 2")
    if train_samples is None:
        return
    if train_samples > rows:
        raise BadInput(
            f"{train_samples} training samples are more than the {rows} rows of the training file; ask for fewer"
        )
    if train_samples < classes:
        raise BadInput(
            f"{train_samples} training samples are too few for {classes} classes; ask for at least {classes}"
        )


def _withheld_at_most(rows: int, classes: int, train_samples: int | None) -> int:
    unused = 0 if train_samples is None else rows - train_samples
    return max(unused, round(_SHARE * rows), classes)


def split_examples(examples: Examples, train_samples: int | None, seed: int, max_validation: int = 1024) -> Split:
    """Draw the validation rows, and from what has nothing to do with them the training sample.

    Validation rows are distinct texts that are no part of another text of the file, as those of SST-2's official
    development set are. With its validation row, every row that equals it or is part of it is withheld from training.
    So many rows are withheld as the training sample leaves unused, or 20 % of the file where that is more, until
    there are ``max_validation`` validation rows, and never the last row of a class. The training sample takes whole
    texts first, those that are no part of another: a phrase adds little to its sentence (docs/log.md has what that is
    worth on SST-2). Both draws are stratified by class, and a smaller ``train_samples`` draws a prefix of a larger
    one's rows where the validation rows are the same.

    Args:
        examples: the whole training file.
        train_samples: rows to train on; None for all. Where fewer are left, the sample is all of them: at least 80 %
            of the file.
        seed: of both draws.

    Raises:
        BadInput: for a ``train_samples`` that the file can't give, and where a part would lack a class.
    """
    _check(examples, train_samples)
    texts, labels = _Texts.of(examples.texts), examples.labels
    left = Counter(labels)
    budget = _withheld_at_most(len(examples), len(left), train_samples)
    validation: list[int] = []
    withheld: set[int] = set()
    maximal = texts.maximal()
    for row in _draw_order(maximal, labels, f"validation {seed}"):
        related = {i for part in texts.parts(_words(examples.texts[row])) for i in texts.rows[part]} - withheld
        still_left = left - Counter(labels[i] for i in related)
        if len(validation) == max_validation or len(withheld) + len(related) > budget or len(still_left) < len(left):
            break
        validation.append(row)
        withheld |= related
        left = still_left
    missing = sorted(set(labels) - {labels[row] for row in validation})
    if missing:
        raise BadInput(
            f"the training file leaves no validation row of class {missing[0]}; it needs texts of every class that are "
            "no part of one another: give a file with more of them"
        )
    # No row left contains a validation text: those are parts of no other text.
    pool = [row for row in range(len(examples)) if row not in withheld]
    train = _draw_order(pool, labels, f"train {seed}", first=set(maximal))[:train_samples]
    return Split(tuple(train), tuple(validation))


def draw_training(examples: Examples, train_samples: int, seed: int) -> tuple[int, ...]:
    """Rows to train on where nothing is held out, stratified by class; whole texts first, as ``split_examples``.

    Args:
        train_samples: at most as many as there are.
    """
    maximal = set(_Texts.of(examples.texts).maximal()) if train_samples < len(examples) else set()
    return tuple(_draw_order(range(len(examples)), examples.labels, f"train {seed}", maximal)[:train_samples])
