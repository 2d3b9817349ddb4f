"""A task: the columns of its rows, the kind of its answers, and its metric."""

from typing import Any, Dict, NamedTuple, Optional, Tuple

from ..far.display import shown

__all__ = ["KINDS", "Rows", "Task"]

KINDS = ("classification", "multi-label", "regression", "token-classification", "question-answering")
"""Kinds of answer: one class of several, any number of labels, a number, a tag for each word, or the part of a context
that answers a question."""


class Task(NamedTuple):
    """A task.

    ``labels`` are the names of classes, labels or tags, in the order of their ids; empty for the other kinds. ``texts``
    names the columns of a row's texts: one, two of a pair, question and context, or the words. ``label`` names the
    column of labels; with ``label_columns`` each of ``labels`` is a column of 0 and 1 instead. ``columns`` are
    those of the task's own files where these have no header. ``unanswerable``: a question may have no answer in its
    context. ``positive`` is the label of the class that F1 is of; None for the second class. ``label_separator``
    is between the labels of a cell; None for ``|``. ``decimal_comma``: numbers in cells may be written as 0,5.
    ``separator`` is the name of the one between the columns of the task's own files; None if they are no tables.
    """

    name: str
    kind: str
    labels: Tuple[str, ...]
    metric: str
    texts: Tuple[str, ...]
    label: str
    columns: Optional[Tuple[str, ...]] = None
    unanswerable: bool = False
    positive: Optional[str] = None
    label_separator: Optional[str] = None
    decimal_comma: bool = False
    label_columns: bool = False
    separator: Optional[str] = None

    @property
    def row_columns(self) -> Tuple[str, ...]:
        """The columns that a row must have."""
        return self.texts + (self.labels if self.label_columns else (self.label,))

    @property
    def positive_id(self) -> int:
        """The id of the class that F1 is of."""
        return 1 if self.positive is None else self.labels.index(self.positive)

    def to_dict(self) -> Dict[str, Any]:
        """The task as JSON types, without a ``separator`` that is None: bundles from before it stay the same."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in self._asdict().items()}
        if self.separator is None:
            del values["separator"]
        return values

    @classmethod
    def from_dict(cls, data: Dict[str, Any]) -> "Task":
        """The task that ``to_dict`` wrote. An unknown or missing key raises TypeError, an unknown kind ValueError."""
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}  # type: Any
        task = cls(**values)
        if task.kind not in KINDS:
            raise ValueError("the kind of task {} is none of {}".format(shown(task.kind), ", ".join(KINDS)))
        return task


class Rows(NamedTuple):
    """Rows of a task in the order of their file.

    ``texts`` of each row: one, two of a pair, question and context, or all its words. ``answers`` has the
    target of each, by the kind of the task:

    - classification: class id
    - multi-label: label ids, ascending
    - regression: a float
    - token-classification: a tag id for each word
    - question-answering: (text, first character) of each right answer; none for a question that has no answer
    """

    texts: Tuple[Tuple[str, ...], ...]
    answers: Tuple[Any, ...]
