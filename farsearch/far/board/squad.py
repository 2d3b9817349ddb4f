"""SQuAD's JSON files, version 1.1 and 2.0, read strictly.

Where a line is not known, a message names the place in the file: ``dev-v2.0.json data[3].paragraphs[0].qas[1]``.
"""

import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..display import shown
from .records import RowProblem, check_characters, json_reason
from .task import Rows

__all__ = ["parse_squad", "question_of", "squad_rows", "text_of"]

_Answers = Tuple[Tuple[str, int], ...]


def parse_squad(data: bytes, name: str, skip: Optional[List[str]] = None) -> Rows:
    """The questions of a file's content, in order: ``squad_rows`` of its document.

    Raises:
        RowProblem: as ``squad_rows``, and for a file that is no JSON.
    """
    return squad_rows(_document(data, name), name, skip)


def squad_rows(document: Any, name: str, skip: Optional[List[str]] = None) -> Rows:
    """The questions of a document, in order.

    Texts are (question, context), answers (text, first character) of each right one in the order of the file, and none
    of a question that is marked as impossible; ``plausible_answers`` are not read.

    Args:
        name: what messages call the file.
        skip: gets the messages of questions that break the format, which are left out, and of paragraphs whose
            questions can't be found; None: the first of them is raised.

    Raises:
        RowProblem: as ``skip`` says, and for a document that is not SQuAD's or is left without questions.
    """
    texts: List[Tuple[str, ...]] = []
    answers: List[_Answers] = []
    for where, article in _items(document, "data", name, name + " "):
        for at, paragraph in _tried(skip, _items, article, "paragraphs", where, where + ".") or ():
            context, questions = _tried(skip, _paragraph, paragraph, at) or ("", ())
            for place, question in questions:
                row = _tried(skip, question_of, question, context, place)
                if row is not None:
                    texts.append((row[0], context))
                    answers.append(row[1])
    if not texts:
        cause = "; the first was left out for this: {}".format(skip[0]) if skip else "; give it at least one"
        raise RowProblem("{} has no questions{}".format(name, cause))
    return Rows(tuple(texts), tuple(answers))


def _document(data: bytes, name: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RowProblem(
            "{} line {}: byte {:#04x} is not UTF-8; save the file as UTF-8".format(name, line, data[error.start])
        ) from error
    except json.JSONDecodeError as error:
        raise RowProblem(
            "{} line {}: it is not JSON: {} at column {}; take the file as it was downloaded".format(
                name, error.lineno, error.msg, error.colno
            )
        ) from error
    except (ValueError, RecursionError) as error:
        # a number of too many digits, or lists within lists beyond any file of questions
        raise RowProblem(
            "{}: it is not SQuAD's JSON: {}; take the file as it was downloaded".format(name, json_reason(error))
        ) from error


def _tried(skip: Optional[List[str]], read: Callable[..., Any], *arguments: Any) -> Any:
    """What ``read`` gives, or None where it raised and ``skip`` took the message."""
    try:
        return read(*arguments)
    except RowProblem as error:
        if skip is None:
            raise
        skip.append(str(error))
        return None


def _cell(table: Any, key: str, place: str) -> Any:
    if not isinstance(table, dict):
        raise RowProblem("{} is {}; it must be an object with {!r}".format(place, shown(table), key))
    if key not in table:
        raise RowProblem("{} lacks the key {!r}; add it, as SQuAD's files have it".format(place, key))
    return table[key]


def _items(table: Any, key: str, place: str, before: str) -> List[Tuple[str, Any]]:
    """The items of a list with their places, which begin with ``before``."""
    found = _cell(table, key, place)
    if not isinstance(found, list):
        raise RowProblem("{}{} is {}; it must be a list".format(before, key, shown(found)))
    return [("{}{}[{}]".format(before, key, i), item) for i, item in enumerate(found)]


def text_of(table: Any, key: str, place: str) -> str:
    """The text under a key; RowProblem where it is missing, empty or of another type."""
    found = _cell(table, key, place)
    if not isinstance(found, str):
        raise RowProblem("{}.{} is {}; it must be a text".format(place, key, shown(found)))
    if not found.strip():
        raise RowProblem("{}.{} is empty; give it a text".format(place, key))
    check_characters(found, "{}.{}".format(place, key))
    return found


def _paragraph(paragraph: Any, place: str) -> Tuple[str, List[Tuple[str, Any]]]:
    return text_of(paragraph, "context", place), _items(paragraph, "qas", place, place + ".")


def question_of(question: Any, context: str, place: str) -> Tuple[str, _Answers]:
    """The text and the answers of one of SQuAD's questions.

    Args:
        place: what messages call it.

    Raises:
        RowProblem: for a key that is missing or of another type, and for an answer that its context does not have.
    """
    text = text_of(question, "question", place)
    impossible = question.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise RowProblem("{}.is_impossible is {}; it must be true or false".format(place, shown(impossible)))
    answers = tuple(_answer(answer, context, at) for at, answer in _items(question, "answers", place, place + "."))
    if answers and impossible:
        raise RowProblem(
            "{} is_impossible and has the answer {}; remove one of both".format(place, shown(answers[0][0]))
        )
    if not answers and not impossible:
        raise RowProblem("{} has no answer; give it one, or say 'is_impossible': true".format(place))
    return text, answers


def _answer(answer: Dict[str, Any], context: str, place: str) -> Tuple[str, int]:
    text, start = text_of(answer, "text", place), _cell(answer, "answer_start", place)
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise RowProblem(
            "{}.answer_start is {}; it must be a character of the context, from 0".format(place, shown(start))
        )
    there = context[start : start + len(text)]
    if there != text:
        raise RowProblem(
            "{}: the context has {} at character {}, not the answer {}; correct answer_start".format(
                place, shown(there), start, shown(text)
            )
        )
    return text, start
