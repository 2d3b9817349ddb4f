"""Sentences as CoNLL's files have them: a word and its tag a line, and a blank line after each sentence."""

import re
from typing import Iterator, List, Tuple

from ..display import shown
from .content import lines_of
from .tables import Line

__all__ = ["COLUMNS", "are_sentences", "sentence_lines", "sentence_note"]

COLUMNS = ["tokens", "tags"]
"""What the columns of a sentence are called: all its words, and all their tags."""

_TAG = re.compile(r"O|[BIESLU]-\S+")
_DOCUMENT = "-DOCSTART-"
_MOST = 0.9
"""Lines are words with tags where so many of them are; the others are then bad lines."""

_SAMPLE = 20000
"""Characters by which it is found what a file is."""


def are_sentences(text: str) -> bool:
    """Whether a text is sentences: lines that end in an IOB tag, with a blank line or a document's mark between."""
    lines = [line for _, line in lines_of(text[:_SAMPLE])][: -1 if len(text) > _SAMPLE else None]
    apart = any(not line.strip() or line.startswith(_DOCUMENT) for line in lines)
    words = [line for line in lines if line.strip() and not line.startswith((_DOCUMENT, "#"))]
    tagged = sum(len(line.split()) > 1 and bool(_TAG.fullmatch(line.split()[-1])) for line in words)
    return apart and bool(words) and tagged >= _MOST * len(words)


def sentence_note(text: str) -> str:
    """Which column is taken for the words and which for the tags, where there are others; else empty."""
    width, word, _ = _layout(text)
    if width <= len(COLUMNS):
        return ""
    return "{} columns a line: the {} is taken for the word, the last for its tag".format(
        width, ("first", "second, after a number,")[word]
    )


def _layout(text: str) -> Tuple[int, int, bool]:
    """Columns of a line, the place of the word among them, and whether tabs are between; by the first sentence."""
    first: List[str] = []
    for _, line in lines_of(text[:_SAMPLE]):
        if not line.strip() and first:
            break
        if line.strip() and not line.startswith(_DOCUMENT) and not _is_comment(line, not first):
            first.append(line)
    tabs = bool(first) and "\t" in first[0]
    rows = [_fields(line, tabs) for line in first]
    numbered = bool(rows) and len(rows[0]) > len(COLUMNS) and all(
        row[0] == str(number) for number, row in enumerate(rows, 1)
    )  # fmt: skip
    return (len(rows[0]) if rows else 0), int(numbered), tabs


def _fields(line: str, tabs: bool) -> List[str]:
    # a space that does not break is part of a word
    return line.split("\t") if tabs else [field for field in line.split(" ") if field]


def _is_comment(line: str, at_start: bool) -> bool:
    """Whether a line before a sentence is a comment; a word may begin with ``#`` too, and has a tag."""
    return at_start and line.startswith("#") and not _TAG.fullmatch(line.split()[-1])


def sentence_lines(text: str) -> Iterator[Line]:
    """The sentences of a text; the cells of each are its words and its tags."""
    width, word, tabs = _layout(text)
    cells: List[List[str]] = [[], []]
    lines: List[str] = []
    start, problem = 0, ""
    for number, line in lines_of(text):
        if not line.strip() or line.startswith(_DOCUMENT):
            if lines:
                yield Line("line {}".format(start), cells, " ".join(lines), problem)
            cells, lines, problem = [[], []], [], ""
            continue
        if _is_comment(line, not lines):
            continue
        start = start if lines else number
        lines.append(line)
        fields = _fields(line, tabs)
        if len(fields) != width:
            problem = problem or _wrong_width(number, line, len(fields), width, tabs)
            continue
        cells[0].append(fields[word])
        cells[1].append(fields[-1])
    if lines:
        yield Line("line {}".format(start), cells, " ".join(lines), problem)


def _wrong_width(number: int, line: str, found: int, width: int, tabs: bool) -> str:
    return "line {}, {}, has {} column{}; a line has {}, with {} between: add what is missing".format(
        number, shown(line), found, "s" * (found != 1), width, "one tab" if tabs else "spaces"
    )
