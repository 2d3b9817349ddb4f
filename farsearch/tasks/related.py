"""Which texts of a file are parts of one another, so that rows that tell about each other stay on one side of a split.

Texts are compared word by word, case and spacing aside; a part is a contiguous run, equality included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Relations", "Texts", "Words", "words_of"]

Words = tuple[str, ...]

_KEY = 3
"""Words that a text is looked up by. Few texts share so long a start, so few slices are made for each place."""

_COMMON_SHARE, _COMMON_ROWS = 0.05, 10
"""A text that is in more than this share of the rows, and in more than so many, tells nothing about any of them."""


def words_of(text: str) -> Words:
    """What a text is compared by."""
    return tuple(text.lower().split())


@dataclass(frozen=True)
class Texts:
    """The distinct texts of a file as tuples of words, found as parts of one another by their first words."""

    rows: Mapping[Words, Sequence[int]]
    lengths: Mapping[Words, Sequence[int]]

    @classmethod
    def of(cls, texts: Sequence[Collection[str]]) -> Texts:
        """The texts of these rows, each with one or more."""
        rows: dict[Words, list[int]] = defaultdict(list)
        for i, row in enumerate(texts):
            for words in {words_of(text): None for text in row}:
                rows[words].append(i)
        lengths: dict[Words, set[int]] = defaultdict(set)
        for words in rows:
            lengths[words[:_KEY]].add(len(words))
        return cls(rows, {key: sorted(found) for key, found in lengths.items()})

    def parts(self, words: Words, shortest: int = 1) -> Iterator[Words]:
        """The texts that are contiguous parts of ``words``, itself among them, some more than once.

        Args:
            shortest: words of the shortest part that is looked for.
        """
        for start in range(len(words)):
            for size in range(min(shortest, _KEY), _KEY + 1):
                for length in self.lengths.get(words[start : start + size], ()):
                    part = words[start : start + length]
                    if part in self.rows:
                        yield part

    def maximal(self) -> list[int]:
        """The first row of each text that is no part of a longer one, in order of the file."""
        inside: set[Words] = set()
        found = []
        for words in sorted(self.rows, key=len, reverse=True):
            # What is inside a text that is inside another needs no look: it was found as part of the outermost.
            if words not in inside:
                found.append(self.rows[words][0])
                inside.update(part for part in self.parts(words) if len(part) < len(words))
        return sorted(found)


@dataclass(frozen=True)
class Relations:
    """Rows that share a text: the same, or one within the other.

    Texts under three words are within others by chance: these count only where they are the same. Common texts, as a
    question that is asked of every row, count not at all.

    Attributes:
        texts: of each row, without those that are common; where all are, the row as a whole.
        rows: of each text.
        near: texts within a text or around it.
    """

    texts: Sequence[Collection[Words]]
    rows: Mapping[Words, Sequence[int]]
    near: Mapping[Words, Collection[Words]]

    @classmethod
    def of(cls, texts: Sequence[Collection[str]], *, common: bool) -> Relations:
        """The relations between these rows.

        Args:
            common: whether there are texts that count for nothing because they are in so many rows.
        """
        all_texts = Texts.of(texts)
        bound = max(_COMMON_SHARE * len(texts), _COMMON_ROWS) if common else len(texts)
        telling = {words for words, found in all_texts.rows.items() if len(found) <= bound}
        near: dict[Words, set[Words]] = defaultdict(set)
        for words in telling:
            for part in all_texts.parts(words, shortest=_KEY):
                if len(part) < len(words) and part in telling:
                    near[words].add(part)
                    near[part].add(words)
        of_row: list[Collection[Words]] = []
        rows: dict[Words, Sequence[int]] = {words: all_texts.rows[words] for words in telling}
        wholes: dict[Words, list[int]] = defaultdict(list)
        for i, row in enumerate(texts):
            kept = {words: None for words in map(words_of, row) if words in telling}
            whole = ("\n".join(" ".join(words_of(text)) for text in row),)  # no text has a line feed in a word
            of_row.append(tuple(kept) or (whole,))
            if not kept:
                wholes[whole].append(i)
        return cls(of_row, {**rows, **wholes}, near)

    def around(self, row: int) -> Iterator[Words]:
        """The texts of a row and those that are near them; their rows are related to it."""
        for words in self.texts[row]:
            yield words
            yield from sorted(self.near.get(words, ()))
