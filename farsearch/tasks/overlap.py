"""Texts of a file that contain one another, so that related rows stay on one side of a split.

Texts are compared word by word, ignoring case and spacing; a part is a contiguous run, equality included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Relations", "Shared", "Texts", "Words", "words_of"]

Words = tuple[str, ...]
Shared = Words | tuple[Words, ...]
"""The key of a relation between rows: a text, or all texts of a row."""

_KEY = 3
"""Words of the key by which texts are indexed. Few texts share so long a start, so few slices are compared."""

_COMMON_SHARE, _COMMON_ROWS = 0.05, 10
"""A text in more than this share of the rows, and in more than this number, relates no rows."""


def words_of(text: str) -> Words:
    """Return the words of a text in lower case."""
    return tuple(text.lower().split())


@dataclass(frozen=True)
class Texts:
    """The distinct texts of a file as tuples of words, indexed by their first words."""

    rows: Mapping[Words, Sequence[int]]
    lengths: Mapping[Words, Sequence[int]]

    @classmethod
    def of(cls, texts: Sequence[Collection[Words]]) -> Texts:
        """Index the texts of rows, each with one or more."""
        rows: dict[Words, list[int]] = defaultdict(list)
        for i, row in enumerate(texts):
            for words in dict.fromkeys(row):
                rows[words].append(i)
        lengths: dict[Words, set[int]] = defaultdict(set)
        for words in rows:
            lengths[words[:_KEY]].add(len(words))
        return cls(rows, {key: sorted(counts) for key, counts in lengths.items()})

    def parts(self, words: Words, shortest: int = 1) -> Iterator[Words]:
        """Yield the texts that are contiguous parts of ``words``, itself included, possibly repeated.

        Args:
            shortest: minimum number of words of a part.
        """
        for start in range(len(words)):
            for size in range(min(shortest, _KEY), _KEY + 1):
                for length in self.lengths.get(words[start : start + size], ()):
                    if start + length > len(words):
                        break  # lengths are sorted
                    part = words[start : start + length]
                    if part in self.rows:
                        yield part

    def maximal(self) -> list[int]:
        """Return the first row of each text that is no part of a longer one, in order of the file."""
        inside: set[Words] = set()
        firsts = []
        for words in sorted(self.rows, key=len, reverse=True):
            # parts of a contained text were found as parts of the outermost one
            if words not in inside:
                firsts.append(self.rows[words][0])
                inside.update(part for part in self.parts(words) if len(part) < len(words))
        return sorted(firsts)


class Relations:
    """Relations between rows that share a text: equal texts, or one that contains the other.

    Texts under three words are contained in others by chance: only equality relates them. Common texts, as a question
    that every row asks, relate no rows; a row of common texts alone is related to its duplicates.

    Attributes:
        rows: rows by the texts that they share.
    """

    def __init__(self, words: Sequence[tuple[Words, ...]], *, common: bool) -> None:
        """Index the rows; containment is computed on demand.

        Args:
            words: the texts of each row.
            common: whether texts in very many rows relate no rows.
        """
        bound = max(_COMMON_SHARE * len(words), _COMMON_ROWS) if common else len(words)
        self._words, self._texts = words, Texts.of(words)
        self.rows: dict[Shared, Sequence[int]] = {
            text: rows for text, rows in self._texts.rows.items() if len(rows) <= bound
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
        """Return the keys in ``rows`` of texts that a row shares with others."""
        texts = [text for text in self._words[row] if text in self.rows]
        return [*texts, *(other for text in texts for other in self._near_to(text))] or [self._words[row]]

    def _near_to(self, text: Words) -> Sequence[Words]:
        """The texts that this one contains, and those that contain it."""
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
