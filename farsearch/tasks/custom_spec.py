"""The specification of a task of a user's own data: kind, labels, metric and positive class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from farsearch.errors import BadInput, DataError
from farsearch.far.display import shown
from farsearch.runtime.scores import OF_ONE_CLASS
from farsearch.runtime.targets import id_finder
from farsearch.tasks.custom_files import DataFile
from farsearch.tasks.data import Examples, Kind, TaskSpec
from farsearch.tasks.description import OwnData, check_fits
from farsearch.tasks.imbalance import imbalance
from farsearch.tasks.schema import check_kind, find_kind, find_labels

__all__ = ["default_metric", "infer_spec", "positive_class"]

_METRIC_OF: Mapping[Kind, str] = {
    "classification": "accuracy",
    "multi-label": "micro_f1",
    "regression": "pearson_spearman",
    "token-classification": "entity_f1",
    "question-answering": "squad",
}
"""Default metric of each kind."""


def infer_spec(
    own: OwnData, file: DataFile, cells: Sequence[Mapping[str, Any]], texts: tuple[str, ...], label: str
) -> TaskSpec:
    """Return the task of a file's rows, with its kind and labels inferred unless they are given.

    Args:
        cells: cells of the rows by column.
        texts, label: columns of the texts and of the label.

    Raises:
        DataError: for settings that do not fit the file.
        RowProblem: for labels that are ambiguous.
    """
    kind = own.stated_kind or ("question-answering" if file.is_squad else find_kind(cells, texts, label))
    labelled = [row[label] for row in cells if label in row]
    if own.stated_kind is None and own.labels is None:
        check_kind(kind, labelled, file.name)
    if file.is_squad and kind != "question-answering":
        raise DataError(f"{file.name} is SQuAD's JSON, and the kind is {kind}; save it as JSON lines (.jsonl)")
    if kind == "question-answering" and len(texts) != 2:
        raise DataError(f"{file.name}: questions need two text columns, question and context; name both")
    if kind == "token-classification" and len(texts) != 1:
        raise DataError(f"{file.name}: words are in one text column, not in {len(texts)}; name one")
    metric = own.metric or _METRIC_OF[kind]
    check_fits(metric, kind)
    if own.labels and kind in ("regression", "question-answering"):
        raise DataError(f"{file.name}: labels are names of classes, and the kind is {kind}; leave them out")
    labels = own.labels or own.label_columns or _inferred_labels(own, file, kind, labelled, label)
    if metric in OF_ONE_CLASS and len(labels) > 2:
        raise DataError(
            f"{file.name}: the metric {shown(metric)} is of two classes, and there are {len(labels)}; choose macro_f1"
        )
    separator = file.source.separator
    return TaskSpec(
        name=own.name, title=own.title or f"rows of {file.name}", kind=kind, labels=labels, metric=metric, texts=texts,
        label=label, columns=own.columns, licence=own.licence, label_separator=own.label_separator,
        decimal_comma=own.decimal_comma, label_columns=own.label_columns is not None,
        separator=None if separator is None else separator.name,
    )  # fmt: skip


def _inferred_labels(own: OwnData, file: DataFile, kind: Kind, cells: Sequence[Any], label: str) -> tuple[str, ...]:
    """The labels in the rows; those that the file itself lists come first, in its order."""
    labels = find_labels(kind, cells, own.label_separator)
    named = [name for name in file.classes.get(label, ()) if name in labels]
    return (*named, *(name for name in labels if name not in named))


def default_metric(kind: Kind, train: Examples, report: Callable[[str], None]) -> str:
    """Return the metric of a task for which none is named: macro F1 for unequal classes, else that of the kind.

    By accuracy, a model that never answers with a rare class loses almost nothing.
    """
    unequal = imbalance(train.answers, kind)
    if unequal is None:
        return _METRIC_OF[kind]
    report(f"the rarest class has {unequal[0]:,} rows, the commonest {unequal[1]:,}: the metric is macro_f1; --metric "
           "names another")  # fmt: skip
    return "macro_f1"


def positive_class(own: OwnData, spec: TaskSpec, train: Examples, report: Callable[[str], None]) -> str | None:
    """Return the positive class of a metric of one class, by default that with the fewest rows; None for other metrics.

    Raises:
        BadInput: for an unknown class, or a metric without a positive class.
    """
    if spec.metric not in OF_ONE_CLASS:
        if own.positive is not None:
            raise BadInput(
                f"the positive class {shown(own.positive)} is for {' and '.join(OF_ONE_CLASS)}, and the metric is "
                f"{spec.metric}; choose one of them with --metric, or leave it out"
            )
        return None
    if own.positive is not None:
        positive = id_finder(spec.labels)(own.positive)
        if positive is None:
            raise BadInput(
                f"the positive class {shown(own.positive)} is unknown; it must be one of {', '.join(spec.labels)}"
            )
        return spec.labels[positive]
    counts = Counter(train.answers)
    rarest = min(range(len(spec.labels)), key=lambda i: (counts[i], -i))
    why = "which has the fewest rows" if len(set(counts.values())) > 1 else "the second of two with as many rows"
    report(f"{spec.metric} is of class {shown(spec.labels[rarest])}, {why}; --positive names another")
    return spec.labels[rarest]
