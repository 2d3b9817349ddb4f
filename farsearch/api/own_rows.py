"""Rows of a user's own file, as far as the cost of training on them depends on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.models.config import load_config
from farsearch.models.count import layer_parameters
from farsearch.models.families import max_length_of
from farsearch.models.heads import Head, head_for
from farsearch.models.source import resolve_model
from farsearch.models.tokenizer import check_words, load_tokenizer
from farsearch.study.sizes import size_of
from farsearch.tasks.custom import load_own
from farsearch.tasks.description import find_own
from farsearch.tasks.encode import default_max_length, encode_examples
from farsearch.tasks.summary import understand

__all__ = ["OwnRows", "read_own_rows"]


@dataclass(frozen=True)
class OwnRows:
    """The training rows of a file on a model.

    Attributes:
        head: of their kind, with an output for each class, label or tag.
        count: number of training rows.
        lengths: tokens of each; a question's long context counts as several.
        batch_size, max_length: as given, or as a search of these rows chooses them.
        understood: rows, columns, kind, labels and tokens in one line.
    """

    head: Head
    count: int
    lengths: tuple[int, ...]
    batch_size: int
    max_length: int
    understood: str

    def features(self, samples: int) -> int:
        """Return how many sequences of tokens so many rows are."""
        return round(samples * len(self.lengths) / self.count)


def read_own_rows(
    train: str,
    model: str,
    given: Mapping[str, Any] | None = None,
    *,
    batch_size: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> OwnRows:
    """Read a file of rows as a search reads it, and count their tokens. Needs the model's tokenizer, but no weights.

    Args:
        train: a file or folder of rows, or a TOML file that describes them.
        given: fields of ``OwnData``, such as ``text_columns``.
        batch_size, max_length: None for what a search chooses by the model's size and the longest text.
        revision: branch, tag or commit of a hub model.
        progress: reports downloads.

    Raises:
        BadInput: for a name that is no file, or values that the model does not support.
        MissingResource: when a file, or the model's tokenizer, can't be read.
        DataError: for invalid rows, and for data that make no task.
    """
    own = find_own(train, given or {})
    if own is None:
        raise BadInput(f"`train` is {shown(train)}, which is no file of rows; name one, such as rows.csv")
    data = load_own(own, lambda line: None)
    source = resolve_model(model, revision=revision, note=progress)
    config = load_config(source, with_known=True)
    tokenizer = load_tokenizer(source, data.spec.kind)
    check_words(tokenizer, data.train.texts, source.name)
    size, limit, task = size_of(layer_parameters(config)), max_length_of(config), data.spec.task
    if max_length is None:
        max_length = default_max_length(tokenizer, data.train, task, min(limit, size.max_length))
    if max_length > limit:
        raise BadInput(f"`max_length` is {max_length}; {model} takes at most {limit} tokens")
    head = head_for(task, config)
    lengths = tuple(encode_examples(tokenizer, data.train, task, max_length, head.segments).lengths)
    batch_size = batch_size or size.batch_size
    words = [*understand(data).lines()[:2], f"{mean(lengths):.1f} tokens a row, cut at {max_length}"]
    understood = f"{data.files['train'][0]}: {'; '.join(words)}; batches of {batch_size}"
    return OwnRows(head, len(data.train), lengths, batch_size, max_length, understood)
