"""Convert records into rows of a task, strictly: an invalid row is an error unless skipping is requested."""

from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from ..far.display import shown
from .conll import COLUMNS
from .records import SEPARATORS, Record, RowProblem, check_characters, open_source, records_in, records_of
from .squad import squad_rows
from .targets import answer_reader, cell_of, items_of
from .task import Rows, Task

__all__ = ["Record", "RowProblem", "Rows", "read_rows", "records_of", "rows_of"]

_Cells = Dict[str, Any]


def read_rows(
    path: str, task: Task, skip: Optional[List[str]] = None, report: Callable[[str], None] = lambda line: None
) -> Rows:
    """Read a file of rows.

    A table has a header with the task's columns, or no header and the columns of the task's own files. Its separator is
    that of the task's own files if it fits. SQuAD's JSON is read for question answering.

    Args:
        skip: as in ``rows_of``.
        report: called with a line on what only the content shows of the format.

    Raises:
        OSError: when it can't be read.
        RowProblem: for the first invalid row, without ``skip``, and for a file without rows.
    """
    with open(path, "rb") as file:
        data = file.read()
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    expected = next((known for known in SEPARATORS if known.name == task.separator), None)
    source = open_source(data, name, task.columns, task.row_columns, expected=expected)
    if source.columns == COLUMNS and task.kind == "token-classification":
        source = source._replace(columns=task.row_columns)  # CoNLL's columns have no names
    if source.note:
        report("{}: {}".format(name, source.note))
    if source.squad is None:
        return rows_of(records_in(source, skip), task, name, skip)
    if task.kind != "question-answering":
        raise RowProblem(
            "{} has questions as SQuAD has them; the rows of {} are for {}".format(name, task.name, task.kind)
        )
    return squad_rows(source.squad, name, skip)


def rows_of(records: Iterable[Record], task: Task, name: str, skip: Optional[List[str]] = None) -> Rows:
    """Convert the cells of records into texts and answers.

    Args:
        name: name of the file, for messages.
        skip: collects the messages of invalid rows, which are left out; None raises the first.

    Raises:
        RowProblem: for the first invalid row, without ``skip``, and when no row is left.
    """
    texts: List[Tuple[str, ...]] = []
    answers: List[Any] = []
    answer = answer_reader(task)
    for where, cells in records:
        try:
            row_texts = _texts(cells, task)
            answers.append(answer(cells, row_texts))
            texts.append(row_texts)
        except RowProblem as error:
            message = "{}: {}".format(where, error)
            if skip is None:
                raise RowProblem(message) from error
            skip.append(message)
    if not texts and skip:
        raise RowProblem("{} has no valid row; all were left out, the first for this: {}".format(name, skip[0]))
    if not texts:
        each = " of each class" if task.kind == "classification" else ""
        raise RowProblem("{} has no rows; give it at least one{}".format(name, each))
    return Rows(tuple(texts), tuple(answers))


def _texts(cells: _Cells, task: Task) -> Tuple[str, ...]:
    if task.kind != "token-classification":
        return tuple(_text(cell_of(cells, column), column) for column in task.texts)
    words = items_of(cell_of(cells, task.texts[0]), task.texts[0])
    if not words:
        raise RowProblem("the {} is empty; each row needs a word: add it, or remove the line".format(task.texts[0]))
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise RowProblem("the word {} is invalid; each must be a text that is not empty".format(shown(word)))
        check_characters(word, "the " + task.texts[0])
    return tuple(words)


def _text(value: Any, column: str) -> str:
    if value is None:
        raise RowProblem("the {} is missing; each row needs a text: add it, or remove the line".format(column))
    if not isinstance(value, str):
        raise RowProblem("the {} is {}; it must be a text, in quotes".format(column, shown(value)))
    if not value.strip():
        raise RowProblem("the {} is empty; each row needs a text: add it, or remove the line".format(column))
    check_characters(value, "the " + column)
    return value
