"""Checks of a user's own rows: labels of one form, and training rows that can be learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from farsearch.errors import DataError
from farsearch.far.display import shown
from farsearch.runtime.records import Record, RowProblem
from farsearch.tasks.data import Examples, TaskSpec
from farsearch.tasks.schema import check_label

__all__ = ["check_answers", "with_consistent_labels"]


def with_consistent_labels(
    records: Sequence[Record], spec: TaskSpec, inferred: bool, skip: list[str] | None
) -> Iterator[Record]:
    """Yield the records whose label has the form of the first one's.

    Args:
        inferred: whether the labels were inferred from the rows.
        skip: collects the messages of other records, which are left out; None raises the first.

    Raises:
        RowProblem: for the first such record, without ``skip``.
    """
    first = next((cells[spec.label] for _, cells in records if cells.get(spec.label) is not None), None)
    for where, cells in records:
        labelled = spec.label in cells and not spec.label_columns
        problem = check_label(spec, cells[spec.label], inferred, first) if labelled else ""
        if not problem:
            yield where, cells
        elif skip is None:
            raise RowProblem(f"{where}: {problem}")
        else:
            skip.append(f"{where}: {problem}")


def check_answers(train: Examples, spec: TaskSpec, name: str, parts: int) -> None:
    """Raise for training rows with nothing to learn.

    Args:
        name: name of the file, for messages.
        parts: number of parts of the data, each of which needs a row of each class.

    Raises:
        DataError: for constant answers, and for classes that have too few rows.
    """
    if spec.kind == "classification":
        _check_classes(train, spec, name, parts)
        return
    answers = set(train.answers)
    if len({tag for tags in answers for tag in tags} if spec.kind == "token-classification" else answers) == 1:
        raise DataError(f"{name}: {spec.label} is the same in all {len(train)} rows; add rows with other values")


def _check_classes(train: Examples, spec: TaskSpec, name: str, parts: int) -> None:
    answers = Counter(train.answers)
    if len(answers) == 1:
        raise DataError(
            f"{name}: all {len(train)} rows are of class {shown(spec.labels[train.answers[0]])}; give "
            "rows of at least 2"
        )
    missing = [label for i, label in enumerate(spec.labels) if i not in answers]
    if missing:
        raise DataError(
            f"{name} has no row of class {shown(missing[0])}; add rows of it, or leave it out of the labels"
        )
    if len(train) >= 20 and len(answers) > len(train) / 2:
        raise DataError(
            f"{name}: {len(answers)} different labels in {len(train)} rows are no classes; name another "
            "--label-column, or the --kind"
        )
    rarest, rows = min(answers.items(), key=lambda item: item[1])
    if rows < parts:
        raise DataError(
            f"{name}: class {shown(spec.labels[rarest])} has {rows} row{'s' * (rows != 1)}; it needs "
            f"{parts} at least, "
            "one for each part of the data: add rows of it, or leave it out"
        )
