"""Rows of a task out of records, strictly: a row that breaks the format is named, never skipped unasked."""

from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from ..display import shown
from .answers import answer_reader, cell_of, items_of
from .records import Record, RowProblem, check_characters, open_source, records_in, records_of
from .sentences import COLUMNS
from .squad import squad_rows
from .task import Rows, Task

__all__ = ["Record", "RowProblem", "Rows", "read_rows", "records_of", "rows_of"]

_Cells = Dict[str, Any]


def read_rows(
    path: str, task: Task, skip: Optional[List[str]] = None, tell: Callable[[str], None] = lambda line: None
) -> Rows:
    """The rows of a file of the user's.

    A table has a header that names the task's columns, or the task's own columns without one. SQuAD's JSON is read for
    a task of questions.

    Args:
        skip: as ``rows_of`` has it.
        tell: told in one line what was found that the file's ending does not say.

    Raises:
        OSError: when it can't be read.
        RowProblem: for the first row that breaks the format, unless ``skip`` takes it, and for a file without rows.
    """
    with open(path, "rb") as file:
        data = file.read()
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    source = open_source(data, name, task.columns, task.row_columns)
    if source.columns == COLUMNS and task.kind == "token-classification":
        source = source._replace(columns=task.row_columns)  # a sentence's columns have no names but ours
    if source.note:
        tell("{}: {}".format(name, source.note))
    if source.squad is None:
        return rows_of(records_in(source, skip), task, name, skip)
    if task.kind != "question-answering":
        raise RowProblem(
            "{} has questions as SQuAD has them; the rows of {} are for {}".format(name, task.name, task.kind)
        )
    return squad_rows(source.squad, name, skip)


def rows_of(records: Iterable[Record], task: Task, name: str, skip: Optional[List[str]] = None) -> Rows:
    """Texts and answers out of the cells of records.

    Args:
        name: what messages call the file.
        skip: gets the messages of rows that break the format, which are left out; None: the first of them is raised.

    Raises:
        RowProblem: as ``skip`` says, and where no row is left.
    """
    texts: List[Tuple[str, ...]] = []
    answers: List[Any] = []
    answer = answer_reader(task)
    for where, cells in records:
        try:
            words = _texts(cells, task)
            answers.append(answer(cells, words))
            texts.append(words)
        except RowProblem as error:
            message = "{}: {}".format(where, error)
            if skip is None:
                raise RowProblem(message) from error
            skip.append(message)
    if not texts and skip:
        raise RowProblem("{} has no row that fits; all were left out, the first for this: {}".format(name, skip[0]))
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
            raise RowProblem("the word {} is none; each is a text that is not empty".format(shown(word)))
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
