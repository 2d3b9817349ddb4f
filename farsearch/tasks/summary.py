"""A summary of a task's rows in at most three lines, in which wrong inferences are visible."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from farsearch.far.display import shown_text
from farsearch.json_records import Record
from farsearch.tasks.data import Examples, Kind, TaskData, TaskSpec

__all__ = ["Tokens", "Understood", "token_counts", "understand"]

_WIDTH = 100
"""Characters of a line."""
_NAME = 24
"""Characters of a name in a line."""
_COUNTED = 100
"""Maximum number of labels with counts."""
_SAMPLE = 4096
"""Rows whose tokens are counted, spread over the training file."""

_NEXT = "[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
"""A continuation byte of UTF-8, decoded as Latin-1 or Windows-1252."""
_MOJIBAKE = re.compile(f"[ÂÃ]{_NEXT}|â€{_NEXT}|(?:[ÐÑ]{_NEXT}){{2}}")
"""UTF-8 decoded as Latin-1 or Windows-1252: ``Ã©`` for ``é``, ``â€™`` for an apostrophe, Cyrillic as ``Ð¿Ñ€``."""


@dataclass(frozen=True)
class Tokens(Record):
    """Token statistics of the rows.

    Attributes:
        max_length: tokens at which rows are truncated.
        cut: share of the rows that are longer.
        unknown: share of unknown tokens.
    """

    max_length: int
    cut: float
    unknown: float

    @property
    def text(self) -> str:
        """The statistics as a text."""
        return (
            f"{100 * self.cut:.1f} % of rows cut at {self.max_length} tokens, {100 * self.unknown:.1f} % unknown tokens"
        )


@dataclass(frozen=True)
class Understood(Record):
    """Summary of a task's rows, as farsearch understands them.

    Attributes:
        train_rows, dev_rows: numbers of rows.
        texts, label, unused: columns; ``unused`` as of ``columns.unused_columns``.
        counts: rows by class or label, words by tag, for the 100 most frequent in descending order; empty for other
            kinds.
        labels: number of labels.
        whole: total of which ``counts`` are parts, in rows or words.
        low, high: range of numbers; None for other kinds.
        positive: positive class; None if the metric has none.
        replaced: rows with U+FFFD, which replaces undecodable bytes.
        mojibake: rows with UTF-8 that was decoded as another encoding.
        tokens: None without a model.
    """

    name: str
    kind: Kind
    metric: str
    train_rows: int
    dev_rows: int
    texts: tuple[str, ...]
    label: str
    unused: tuple[str, ...]
    counts: Mapping[str, int]
    labels: int
    whole: int
    low: float | None
    high: float | None
    positive: str | None
    replaced: int
    mojibake: int
    tokens: Tokens | None = None

    def lines(self) -> list[str]:
        """Return at most three lines of at most 100 characters: columns, labels, and suspicious texts."""
        lines = [self._columns(), self._learned(), self._texts()]
        return [shown_text(line, _WIDTH - 1) for line in lines if line]

    def _columns(self) -> str:
        texts = " + ".join(map(_short, self.texts))
        what = f"{self.train_rows:,} training and {self.dev_rows:,} development rows; "
        what += f"text: {texts}; label: {_short(self.label)}"
        if not self.unused:
            return what
        what += "; unused: "
        return what + _listed(list(map(_short, self.unused)), _WIDTH - 1 - len(what), len(self.unused))

    def _learned(self) -> str:
        positive = f" of {_short(self.positive)}" if self.positive is not None else ""
        what = f"{self.kind}, {self.metric}{positive}"
        if self.low is not None and self.high is not None:
            return f"{what}; numbers from {self.low:g} to {self.high:g}"
        if not self.counts:
            return what
        parts = [f"{_short(name)} {count:,}" for name, count in self.counts.items()]
        parts[0] += f" ({100 * next(iter(self.counts.values())) / self.whole:.1f} %)"
        noun = {"classification": "classes", "token-classification": "tags"}.get(self.kind, "labels")
        what += f"; {self.labels} {noun}: "
        return what + _listed(parts, _WIDTH - 1 - len(what), self.labels)

    def _texts(self) -> str:
        notes = [] if self.tokens is None else [self.tokens.text]
        if self.replaced:
            notes.append(f"{self.replaced:,} row{'s' * (self.replaced != 1)} with U+FFFD (lost letters)")
        if self.mojibake:
            notes.append(f"{self.mojibake:,} with letters as Ã© (wrong encoding)")
        return ", ".join(notes)


def _short(name: str) -> str:
    return shown_text(name, _NAME)


def _listed(parts: Sequence[str], room: int, count: int) -> str:
    """As many of the parts as fit, or the ``count`` of all if none fits."""
    text = parts[0]
    if len(text) > room - (len(f", … ({count - 1} more)") if count > 1 else 0):
        return str(count)
    for i, part in enumerate(parts[1:], 1):
        more = f", … ({count - i} more)"
        if len(text) + len(part) + 2 + (len(more) if i < count - 1 else 0) > room:
            return text + more
        text += f", {part}"
    return text


def understand(data: TaskData) -> Understood:
    """Summarise the rows of a task, without a model."""
    spec, parts = data.spec, (data.train, data.dev)
    answers = [answer for part in parts for answer in part.answers]
    texts = ["\n".join(row) for part in parts for row in part.texts]
    counts = _counts(spec, answers)
    words = spec.kind == "token-classification"
    numbers = answers if spec.kind == "regression" else []
    return Understood(
        name=spec.name, kind=spec.kind, metric=spec.metric, train_rows=len(data.train), dev_rows=len(data.dev),
        texts=spec.texts, label=_label(spec), unused=data.unused, counts=counts, labels=len(spec.labels),
        whole=sum(map(len, answers)) if words else len(answers), low=min(numbers, default=None),
        high=max(numbers, default=None), positive=spec.positive_label,
        replaced=sum("\N{REPLACEMENT CHARACTER}" in text for text in texts),
        mojibake=sum(not text.isascii() and _MOJIBAKE.search(text) is not None for text in texts),
    )  # fmt: skip


def _label(spec: TaskSpec) -> str:
    """The column of the label, or those of 0 and 1."""
    return " + ".join(spec.labels) if spec.label_columns else spec.label


def _counts(spec: TaskSpec, answers: Sequence[Any]) -> dict[str, int]:
    if spec.kind not in ("classification", "multi-label", "token-classification"):
        return {}
    ids: Iterable[int] = answers if spec.kind == "classification" else (i for answer in answers for i in answer)
    counts = Counter(ids)
    ordered = sorted(range(len(spec.labels)), key=lambda i: (-counts[i], i))
    return {spec.labels[i]: counts[i] for i in ordered[:_COUNTED]}


def token_counts(tokenizer: Any, examples: Examples, kind: Kind, max_length: int) -> Tokens:
    """Count the tokens of at most 4,096 rows, spread over all.

    Args:
        tokenizer: a fast tokenizer of transformers.
        max_length: tokens at which rows are truncated, special ones included; contexts of questions are not.
    """
    rows = examples.texts[:: -(-len(examples) // _SAMPLE)]
    words = kind == "token-classification"
    columns = [[list(row) for row in rows]] if words else [list(column) for column in zip(*rows, strict=True)]
    ids = tokenizer(*columns, is_split_into_words=words, return_attention_mask=False, verbose=False)["input_ids"]
    cut = 0 if kind == "question-answering" else sum(len(row) > max_length for row in ids)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    counts = Counter(token for row in ids for token in row if token not in special)
    return Tokens(max_length, cut / len(ids), counts[tokenizer.unk_token_id] / max(counts.total(), 1))
