"""SQuAD's JSON: the fields that are read, and the questions that are skipped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.runtime.records import RowProblem
from farsearch.runtime.squad import parse_squad

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    str.strip
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Strategy: files of arbitrary texts, with their expected questions and answers."""
    texts, answers, data = [], [], []
    for _ in range(draw(st.integers(1, 3))):
        paragraphs = []
        for _ in range(draw(st.integers(1, 3))):
            context, qas = draw(TEXT), []
            for _ in range(draw(st.integers(1, 3))):
                spans = draw(st.lists(st.tuples(st.integers(0, 29), st.integers(1, 30)), max_size=3))
                found = [(context[at : at + size], at) for at, size in spans if context[at : at + size].strip()]
                question = draw(TEXT)
                qa: dict[str, Any] = {
                    "question": question,
                    "answers": [{"text": t, "answer_start": at} for t, at in found],
                }
                qas.append(qa if found else {**qa, "is_impossible": True})
                texts.append((question, context))
                answers.append(tuple(found))
            paragraphs.append({"context": context, "qas": qas})
        data.append({"paragraphs": paragraphs})
    return {"data": data}, texts, answers


@given(documents(), st.booleans())
def test_questions_are_read_in_file_order(
    document: tuple[dict[str, Any], list[Any], list[Any]], ascii_only: bool
) -> None:
    """Each question has its context and all its answers, whatever the texts are."""
    data, texts, answers = document
    rows = parse_squad(json.dumps(data, ensure_ascii=ascii_only).encode(), "mine.json")
    assert (list(rows.texts), list(rows.answers)) == (texts, answers)


def test_positions_count_characters_and_not_bytes() -> None:
    """As Python does: an emoji counts as one, and so does a combining accent."""
    context = "😀 e\u0301té à Köln"
    data = [
        {
            "paragraphs": [
                {"context": context, "qas": [{"question": "où?", "answers": [{"text": "Köln", "answer_start": 9}]}]}
            ]
        }
    ]
    rows = parse_squad(json.dumps({"data": data}).encode(), "mine.json")
    assert rows.answers == ((("Köln", 9),),)


def test_unused_fields_are_not_validated() -> None:
    """Titles, ids, versions and plausible answers may have any value."""
    plausible = [{"text": "nowhere", "answer_start": 500}]
    qa = {"question": "where?", "id": 3, "is_impossible": True, "answers": [], "plausible_answers": plausible}
    data = {"version": 2, "data": [{"title": None, "paragraphs": [{"context": "Anna came.", "qas": [qa]}]}]}
    assert parse_squad(json.dumps(data).encode(), "mine.json").answers == ((),)


def broken() -> bytes:
    """Two valid questions among an invalid article, paragraph, question and answer."""
    good = {"question": "who?", "answers": [{"text": "Anna", "answer_start": 0}]}
    wrong = {"question": "who?", "answers": [{"text": "Anna", "answer_start": 1}]}
    paragraphs = [
        {"context": "Anna came.", "qas": [good, {"question": ""}, wrong]},
        {"qas": [good]},
        {"context": "Anna went.", "qas": [good]},
    ]
    return json.dumps({"data": ["x", {"paragraphs": paragraphs}]}).encode()


def test_skip_drops_no_more_than_the_invalid_parts() -> None:
    """Each violation is reported by its path, and drops only the part that contains it."""
    skip: list[str] = []
    rows = parse_squad(broken(), "mine.json", skip)
    assert rows.texts == (("who?", "Anna came."), ("who?", "Anna went."))
    assert [message.partition(" ")[2].partition(" ")[0].rstrip(":") for message in skip] == [
        "data[0]",
        "data[1].paragraphs[0].qas[1].question",
        "data[1].paragraphs[0].qas[2].answers[0]",
        "data[1].paragraphs[1]",
    ]


def test_without_skip_the_first_violation_is_raised() -> None:
    """The message is the first that ``skip`` would have collected."""
    skip: list[str] = []
    parse_squad(broken(), "mine.json", skip)
    with pytest.raises(RowProblem) as caught:
        parse_squad(broken(), "mine.json")
    assert str(caught.value) == skip[0]


def test_a_file_without_valid_questions_is_refused() -> None:
    """With ``skip`` too, and with the reason of the first skipped question."""
    with pytest.raises(
        RowProblem, match=r"^mine\.json has no questions; the first was left out for this: mine\.json data"
    ):
        parse_squad(b'{"data": [1]}', "mine.json", [])


def test_invalid_json_is_refused_with_skip_too() -> None:
    with pytest.raises(RowProblem, match="line 1: it is not JSON"):
        parse_squad(b"who?", "mine.json", [])


@pytest.mark.parametrize("digits", [5_000, 1])
def test_very_large_numbers_give_one_line(digits: int) -> None:
    """Numbers that Python refuses to parse, or that are beyond the end of any context."""
    qa = {"question": "who?", "answers": [{"text": "Anna", "answer_start": 12345}]}
    data = json.dumps({"data": [{"paragraphs": [{"context": "Anna came.", "qas": [qa]}]}]})
    text = data.replace("12345", "9" * digits)
    with pytest.raises(RowProblem) as caught:
        parse_squad(text.encode(), "mine.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
