"""Validation of rows from the hub; errors give the task, split and row."""

from __future__ import annotations

import re
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, List, Value

from farsearch.errors import DataError
from farsearch.tasks.from_hub import read_split
from farsearch.tasks.official import OFFICIAL

SST2 = {"sentence": Value("string"), "label": ClassLabel(names=["negative", "positive"])}
STSB = {"sentence1": Value("string"), "sentence2": Value("string"), "label": Value("float32")}
QQP = {
    "question1": Value("string"),
    "question2": Value("string"),
    "label": ClassLabel(names=["not_duplicate", "duplicate"]),
}
ANSWERS = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
SQUAD = {"context": Value("string"), "question": Value("string"), "answers": ANSWERS}


def split_of(features: dict[str, Any], *rows: tuple[Any, ...]) -> datasets.Dataset:
    """An in-memory split: cells of each row, in the order of the features."""
    columns = {name: [row[i] for row in rows] for i, name in enumerate(features)}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def answers(*found: tuple[str | None, int | None]) -> dict[str, list[Any]]:
    """Answers in the hub's format: texts and start positions."""
    return {"text": [text for text, _ in found], "answer_start": [start for _, start in found]}


def test_hub_rows_equal_those_of_the_official_files() -> None:
    """32-bit scores round to the file's decimals; repeated answers are all retained."""
    scores = split_of(STSB, ("a", "b", 3.8), ("c", "d", 0.0), ("e", "f", 5.0))
    assert read_split(scores, OFFICIAL["stsb"], "train")[0].answers == (3.8, 0.0, 5.0)
    questions = split_of(SQUAD, ("Anna came.", "who?", answers(("Anna", 0), ("Anna", 0))), ("No.", "why?", answers()))
    examples, left_out = read_split(questions, OFFICIAL["squad_v2"], "train")
    assert examples.texts == (("who?", "Anna came."), ("why?", "No."))
    assert examples.answers == ((("Anna", 0), ("Anna", 0)), ())
    assert left_out == 0


def test_qqp_questions_without_text_are_skipped_and_counted() -> None:
    """The official files have two of them."""
    part = split_of(QQP, ("a", "b", 1), ("c", " ", 0), ("", "e", 0))
    examples, left_out = read_split(part, OFFICIAL["qqp"], "train")
    assert (examples.texts, examples.answers, left_out) == ((("a", "b"),), (1,), 2)


@pytest.mark.parametrize(
    ("task", "features", "good", "bad", "rule"),
    [
        ("sst2", SST2, ("good", 1), ("bad", -1), "the label -1 is unknown; labels of sst2 are 0 (negative), 1 (pos"),
        ("sst2", SST2, ("good", 1), ("bad", None), "the label None is unknown; labels of sst2 are 0 (negative)"),
        ("sst2", {**SST2, "label": Value("int64")}, ("good", 1), ("bad", 2), "the label 2 is unknown; labels of sst2"),
        ("sst2", {**SST2, "label": Value("float64")}, ("good", 1.0), ("bad", 0.5), "the label 0.5 is unknown; labels"),
        ("sst2", SST2, ("good", 1), (None, 0), "the sentence is missing; each row needs a text"),
        ("sst2", SST2, ("good", 1), (" ", 0), "the sentence is empty; each row needs a text"),
        ("sst2", SST2, ("good", 1), ("a\0b", 0), "the sentence holds a NUL character"),
        ("stsb", STSB, ("a", "b", 1.0), ("c", "d", float("nan")), "the score nan is not from 0 to 5"),
        ("stsb", STSB, ("a", "b", 1.0), ("c", "d", float("inf")), "the score inf is not from 0 to 5"),
        ("stsb", STSB, ("a", "b", 1.0), ("c", "d", -1.0), "the score -1.0 is not from 0 to 5"),
        ("stsb", STSB, ("a", "b", 1.0), ("c", "d", None), "the label None is no finite number"),
        (
            "stsb",
            {**STSB, "label": Value("string")},
            ("a", "b", "1.0"),
            ("c", "d", "high"),
            "the label 'high' is no fi",
        ),
        ("qqp", QQP, ("a", "b", 1), ("c", None, 0), "the question2 is missing; each row needs a text"),
    ],
)
def test_invalid_rows_are_reported(
    task: str, features: dict[str, Any], good: tuple[Any, ...], bad: tuple[Any, ...], rule: str
) -> None:
    """The message has the task, split, row number, rule and an alternative to pass."""
    with pytest.raises(DataError) as caught:
        read_split(split_of(features, good, bad), OFFICIAL[task], "validation")
    message = str(caught.value)
    assert message.startswith(f"the data of task '{task}' on the hub breaks its format: validation row 1 (from 0): ")
    assert rule in message
    assert message.endswith("; or pass `data_dir` FOLDER with its files")
    assert "\n" not in message


def test_a_column_of_another_type_is_reported() -> None:
    """Numbers instead of texts."""
    part = split_of({**SST2, "sentence": Value("int64")}, (7, 1))
    with pytest.raises(DataError, match=r"train row 0 \(from 0\): the sentence is 7; it must be a text"):
        read_split(part, OFFICIAL["sst2"], "train")


@pytest.mark.parametrize(
    ("task", "row", "rule"),
    [
        (
            "squad",
            ("Anna came.", "who?", answers(("Anna", 1))),
            ".answers[0]: the context has 'nna ' at character 1, not the answer 'Anna'; correct answer_start",
        ),
        (
            "squad",
            ("Anna came.", "who?", answers(("Anna", 0), ("Bert", 0))),
            ".answers[1]: the context has 'Anna' at character 0, not the answer 'Bert'",
        ),
        ("squad", ("Anna came.", "who?", answers(("Anna", None))), ".answers[0].answer_start is None; it must be a"),
        ("squad", ("Anna came.", "who?", answers(("Anna", -10))), ".answers[0].answer_start is -10; it must be a"),
        ("squad", ("Anna came.", "who?", answers((None, 0))), ".answers[0].text is None; it must be a text"),
        ("squad", ("Anna came.", "who?", {"text": ["Anna"], "answer_start": []}), ".answers[0].answer_start is None"),
        ("squad", ("Anna came.", "who?", answers()), " has no answer; give it one"),
        ("squad_v2", (None, "who?", answers()), ".context is None; it must be a text"),
        ("squad_v2", ("Anna came.", None, answers()), ".question is None; it must be a text"),
        ("squad_v2", ("Anna came.", " ", answers()), ".question is empty; give it a text"),
    ],
)
def test_invalid_answers_are_reported(task: str, row: tuple[Any, ...], rule: str) -> None:
    """An answer outside its context would train a wrong span; only SQuAD 2.0 has unanswerable questions."""
    part = split_of(SQUAD, ("Anna came.", "who?", answers(("Anna", 0))), row)
    start = re.escape(f"the data of task {task!r} on the hub breaks its format: train row 1 (from 0){rule}")
    with pytest.raises(DataError, match=start):
        read_split(part, OFFICIAL[task], "train")


def test_answers_of_another_type_are_reported() -> None:
    """A text instead of texts and starts."""
    part = split_of({**SQUAD, "answers": Value("string")}, ("Anna came.", "who?", "Anna"))
    with pytest.raises(DataError, match=r"train row 0 \(from 0\)\.answers is 'Anna'; it must be a list"):
        read_split(part, OFFICIAL["squad"], "train")
