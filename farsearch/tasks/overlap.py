"""Which texts of a file are parts of one another, so that rows that tell about each other stay on one side of a split.

Texts are compared word by word, case and spacing aside; a part is a contiguous run, equality included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Relations", "Shared", "Texts", "Words", "words_of"]

Words = tuple[str, ...]
Shared = Words | tuple[Words, ...]
"""What makes rows related: a text, or all that they have."""

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
    def of(cls, texts: Sequence[Collection[Words]]) -> Texts:
        """The texts of these rows, each with one or more."""
        rows: dict[Words, list[int]] = defaultdict(list)
        for i, row in enumerate(texts):
            for words in dict.fromkeys(row):
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
                    if start + length > len(words):
                        break  # they are in order
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


class Relations:
    """Rows that share a text: the same, or one within the other.

    Texts under three words are within others by chance: these count only where they are the same. Common texts, as a
    question that is asked of every row, count not at all; a row of nothing else is related to the same rows alone.

    Attributes:
        rows: by what they share.
    """

    def __init__(self, words: Sequence[tuple[Words, ...]], *, common: bool) -> None:
        """Look at all rows once; what is within what is looked up when it is asked for.

        Args:
            words: the texts of each row.
            common: whether there are texts that count for nothing because they are in so many rows.
        """
        bound = max(_COMMON_SHARE * len(words), _COMMON_ROWS) if common else len(words)
        self._words, self._texts = words, Texts.of(words)
        self.rows: dict[Shared, Sequence[int]] = {
            text: found for text, found in self._texts.rows.items() if len(found) <= bound
        }
        self._near: dict[Words, Sequence[Words]] = {}
        self._with_word: dict[str, list[Words]] = defaultdict(list)
        for text in self._texts.rows:
            for word in set(text) if text in self.rows else ():
                self._with_word[word].append(text)
        alone: dict[Shared, list[int]] = defaultdict(list)
        for i, row in enumerate(words):
            if not any(text in self.rows for text in row):
                alone[row].append(i)
        self.rows.update(alone)

    def around(self, row: int) -> list[Shared]:
        """What a row shares with others: the keys of its relations in ``rows``."""
        texts = [text for text in self._words[row] if text in self.rows]
        return [*texts, *(other for text in texts for other in self._near_to(text))] or [self._words[row]]

    def _near_to(self, text: Words) -> Sequence[Words]:
        """The texts within this one, and those that it is within."""
        if text not in self._near:
            within = {part for part in self._texts.parts(text, shortest=_KEY) if part != text and part in self.rows}
            rarest = min((self._with_word[word] for word in text), key=len, default=[])
            around = [other for other in rarest if len(other) > len(text) >= _KEY and _holds(other, text)]
            self._near[text] = [*sorted(within), *around]
        return self._near[text]


def _holds(text: Words, part: Words) -> bool:
    return any(
        text[start] == part[0] and text[start : start + len(part)] == part for start in range(len(text) - len(part) + 1)
    )
