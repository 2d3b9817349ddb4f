"""Sentences in CoNLL's format: a word and its tag per line, and a blank line after each sentence."""

import re
from typing import Iterator, List, Tuple

from ..far.display import shown
from .decoding import lines_of
from .tables import Line

__all__ = ["COLUMNS", "are_sentences", "sentence_lines", "sentence_note"]

COLUMNS = ["tokens", "tags"]
"""Columns of a sentence: its words, and their tags."""

_TAG = re.compile(r"O|[BIESLU]-\S+")
_DOCUMENT = "-DOCSTART-"
_MOST = 0.9
"""Minimum share of lines with a tag for a text to be sentences; the other lines are then errors."""

_SAMPLE = 20000
"""Characters of a file from which its layout is detected."""


def are_sentences(text: str) -> bool:
    """Return whether a text is sentences: lines that end in an IOB tag, with blank lines or document marks between."""
    lines = [line for _, line in lines_of(text[:_SAMPLE])][: -1 if len(text) > _SAMPLE else None]
    apart = any(not line.strip() or line.startswith(_DOCUMENT) for line in lines)
    words = [line for line in lines if line.strip() and not line.startswith((_DOCUMENT, "#"))]
    tagged = sum(len(line.split()) > 1 and bool(_TAG.fullmatch(line.split()[-1])) for line in words)
    return apart and bool(words) and tagged >= _MOST * len(words)


def sentence_note(text: str) -> str:
    """Return which columns are read as words and tags if there are further columns, else an empty text."""
    width, word, _ = _layout(text)
    if width <= len(COLUMNS):
        return ""
    return "{} columns per line: the {} is read as the word, the last as its tag".format(
        width, ("first", "second, after a number,")[word]
    )


def _layout(text: str) -> Tuple[int, int, bool]:
    """Number of columns, index of the word's column, and whether tabs separate them, from the first sentence."""
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
    # a non-breaking space is part of a word
    return line.split("\t") if tabs else [field for field in line.split(" ") if field]


def _is_comment(line: str, at_start: bool) -> bool:
    """Whether a line before a sentence is a comment; a word may begin with ``#`` too, but has a tag."""
    return at_start and line.startswith("#") and not _TAG.fullmatch(line.split()[-1])


def sentence_lines(text: str) -> Iterator[Line]:
    """Yield the sentences of a text; the cells of each are its words and its tags."""
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


def _wrong_width(number: int, line: str, fields: int, width: int, tabs: bool) -> str:
    return "line {}, {}, has {} column{}; a line has {}, with {} between: add what is missing".format(
        number, shown(line), fields, "s" * (fields != 1), width, "one tab" if tabs else "spaces"
    )
