"""Read SQuAD's JSON files, version 1.1 and 2.0, strictly.

Messages name the position in the document, as ``dev-v2.0.json data[3].paragraphs[0].qas[1]``.
"""

import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..far.display import shown
from .records import RowProblem, check_characters, json_reason
from .task import Rows

__all__ = ["parse_squad", "question_of", "squad_rows", "text_of"]

_Answers = Tuple[Tuple[str, int], ...]


def parse_squad(data: bytes, name: str, skip: Optional[List[str]] = None) -> Rows:
    """Read the questions of a file's content, in order: ``squad_rows`` of its document.

    Raises:
        RowProblem: as ``squad_rows``, and for a file that is no JSON.
    """
    return squad_rows(_document(data, name), name, skip)


def squad_rows(document: Any, name: str, skip: Optional[List[str]] = None) -> Rows:
    """Return the questions of a document, in order.

    Texts are (question, context); answers are (text, first character) of each true answer in the order of the file,
    none for a question that is marked as impossible. ``plausible_answers`` are ignored.

    Args:
        name: name of the file, for messages.
        skip: collects the messages of invalid questions and paragraphs, which are left out; None raises the first.

    Raises:
        RowProblem: for the first invalid question, without ``skip``, and for a document without valid questions.
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
        # a number of too many digits, or nesting that is too deep
        raise RowProblem(
            "{}: it is not SQuAD's JSON: {}; take the file as it was downloaded".format(name, json_reason(error))
        ) from error


def _tried(skip: Optional[List[str]], read: Callable[..., Any], *arguments: Any) -> Any:
    """The result of ``read``; None if it raised and ``skip`` collected the message."""
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
    """The items of a list with their positions, which begin with ``before``."""
    items = _cell(table, key, place)
    if not isinstance(items, list):
        raise RowProblem("{}{} is {}; it must be a list".format(before, key, shown(items)))
    return [("{}{}[{}]".format(before, key, i), item) for i, item in enumerate(items)]


def text_of(table: Any, key: str, place: str) -> str:
    """Return the text under a key; raise RowProblem if it is missing, empty or of another type."""
    text = _cell(table, key, place)
    if not isinstance(text, str):
        raise RowProblem("{}.{} is {}; it must be a text".format(place, key, shown(text)))
    if not text.strip():
        raise RowProblem("{}.{} is empty; give it a text".format(place, key))
    check_characters(text, "{}.{}".format(place, key))
    return text


def _paragraph(paragraph: Any, place: str) -> Tuple[str, List[Tuple[str, Any]]]:
    return text_of(paragraph, "context", place), _items(paragraph, "qas", place, place + ".")


def question_of(question: Any, context: str, place: str) -> Tuple[str, _Answers]:
    """Return the text and the answers of one of SQuAD's questions.

    Args:
        place: position of the question, for messages.

    Raises:
        RowProblem: for a key that is missing or of another type, and for an answer that is not in its context.
    """
    text = text_of(question, "question", place)
    impossible = question.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise RowProblem("{}.is_impossible is {}; it must be true or false".format(place, shown(impossible)))
    answers = tuple(_answer(answer, context, at) for at, answer in _items(question, "answers", place, place + "."))
    if answers and impossible:
        raise RowProblem(
            "{} is_impossible and has the answer {}; remove one of them".format(place, shown(answers[0][0]))
        )
    if not answers and not impossible:
        raise RowProblem("{} has no answer; give it one, or set 'is_impossible': true".format(place))
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
