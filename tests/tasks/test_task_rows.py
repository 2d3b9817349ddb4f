"""Parsing of tables and JSON lines into records, and of cells by kind of task."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.runtime.records import open_source, records_in
from farsearch.runtime.rows import RowProblem, Rows, read_rows, records_of, rows_of
from farsearch.runtime.task import Task

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TEXTS = CELLS.filter(lambda text: bool(text.strip()))


def task(kind: str, *labels: str, texts: tuple[str, ...] = ("text",)) -> Task:
    """A task with the usual columns."""
    return Task("mine", kind, labels, "any", texts, "label")


def answer_of(of: Task, **cells: Any) -> Any:
    """Parse the label of one row."""
    return rows_of([("here", cells)], of, "file").answers[0]


def problem_of(of: Task, **cells: Any) -> str:
    """Return the error of one row."""
    with pytest.raises(RowProblem, match=r"^here: ") as caught:
        rows_of([("here", cells)], of, "file")
    return str(caught.value)


@given(st.lists(st.tuples(TEXTS, CELLS), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_csv_files_of_the_standard_library_are_read(rows: list[tuple[str, str]], end: str, all_quoted: bool) -> None:
    """Quoted commas, quotes and newlines, with any line end; each row has its first line's number."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL)
    writer.writerow(["text", "label"])
    lines = []
    for row in rows:
        lines.append(out.getvalue().count("\n") + 1)
        writer.writerow(row)
    found = list(records_of(out.getvalue().encode(), "a.csv"))
    assert [(cells["text"], cells["label"]) for _, cells in found] == rows
    assert [where for where, _ in found] == [f"a.csv line {line}" for line in lines]


@given(st.lists(st.dictionaries(CELLS, st.none() | st.booleans() | st.integers() | CELLS, max_size=4), max_size=6))
def test_json_lines_round_trip(rows: list[dict[str, Any]]) -> None:
    """Each line is an object, with its number."""
    data = "".join(json.dumps(row, ensure_ascii=False).replace("\n", "\\n") + "\n" for row in rows).encode()
    assert list(records_of(data, "a.jsonl")) == [(f"a.jsonl line {i}", row) for i, row in enumerate(rows, 1)]


@pytest.mark.parametrize("between", [";", "\t", "|"])
@given(rows=st.lists(st.tuples(TEXTS, CELLS), min_size=1, max_size=5))
def test_the_separator_is_inferred(between: str, rows: list[tuple[str, str]]) -> None:
    """From the columns of the header alone, whatever the cells hold."""
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=between).writerows([("text", "label"), *rows])
    source = open_source(out.getvalue().encode(), "a.csv")
    assert [(cells["text"], cells["label"]) for _, cells in records_in(source)] == rows
    assert source.note == {";": "semicolons", "\t": "tabs", "|": "pipes"}[between] + " between its columns"


def test_sentences_have_the_number_of_their_first_line() -> None:
    """A line of another width fails its sentence; comments and document marks are skipped; ``#`` may be a word."""
    data = b"-DOCSTART- -X- O\n\n# a note\n# NN O\nAnn NNP B-PER\n\nleft O\nRome NNP B-LOC\n\n\nend NN O\n\n"
    skip: list[str] = []
    found = list(records_of(data, "a.conll", skip=skip))
    assert found == [
        ("a.conll line 4", {"tokens": ["#", "Ann"], "tags": ["O", "B-PER"]}),
        ("a.conll line 11", {"tokens": ["end"], "tags": ["O"]}),
    ]
    assert skip == [
        "a.conll line 7: line 7, 'left O', has 2 columns; a line has 3, with spaces between: add what is missing"
    ]


def test_tagged_sentences_are_read_for_a_task_with_list_columns(tmp_path: Path) -> None:
    """A bundle of a search on lists can be fine-tuned on a file with one word and tag per line."""
    path = tmp_path / "mine.conll"
    path.write_text("Ann B-PER\nleft O\n\nRome O\n", encoding="utf-8")
    of = task("token-classification", "O", "B-PER", texts=("words",))
    assert read_rows(str(path), of) == Rows((("Ann", "left"), ("Rome",)), ((1, 0), (0,)))


def test_quotes_in_tab_separated_tables_are_reported() -> None:
    """There they are text; cells quoted by a program need another format."""
    data = b'text\tlabel\n"he said ""no"" to it"\t0\n'
    source = open_source(data, "a.tsv")
    assert [cells["text"] for _, cells in records_in(source)] == ['"he said ""no"" to it"']
    assert "quotes around its cells are read as text" in source.note
    assert [cells["text"] for _, cells in records_of(data, "a.csv")] == ['he said "no" to it']
    assert open_source(b'text\tlabel\n"he" said "no"\t0\n', "a.tsv").note == ""


@given(st.binary(max_size=80), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json", "a.conll", "a.csv.gz"]))
def test_arbitrary_bytes_give_rows_or_a_data_error(data: bytes, name: str) -> None:
    """No content raises another error, and each skipped row has a line number."""
    skip: list[str] = []
    problem = ""
    try:
        list(records_of(data, name, skip=skip))
    except RowProblem as error:
        problem = str(error)
    assert not problem or problem.startswith((f"{name} line ", f"{name} row "))
    assert all(message.startswith((f"{name} line ", f"{name} row ")) for message in skip)


def test_a_bad_row_does_not_affect_the_next() -> None:
    """With ``skip``, each bad row is dropped alone, and messages are in file order."""
    data = b'text,label\nfine,0\nq"x,0\n"open,1\nlast,1\nx,y,z\nlatin \xe9,1\nend,0\n'
    skip: list[str] = []
    rows = rows_of(records_of(data, "a.csv", skip=skip), task("classification", "no", "yes"), "a.csv", skip)
    assert rows == Rows((("fine",), ("last",), ("end",)), (0, 1, 0))
    assert [message.split(":")[0] for message in skip] == [f"a.csv line {line}" for line in (3, 4, 6, 7)]


def test_newlines_within_quotes_count_as_lines() -> None:
    """The row after a text of three lines has the right line number."""
    data = b'text,label\r\n"one\r\ntwo\r\nthree",0\r\nbad,7\r\n'
    with pytest.raises(RowProblem, match=r"^a\.csv line 5: the label '7' is unknown"):
        rows_of(records_of(data, "a.csv"), task("classification", "no", "yes"), "a.csv")


def test_the_header_is_optional(tmp_path: Path) -> None:
    """Without one, the file's columns are the task's; with one, in any order, with additional columns."""
    of = task("classification", "no", "yes")._replace(columns=("id", "label", "text"))
    plain, headed = tmp_path / "plain.tsv", tmp_path / "headed.csv"
    plain.write_text("7\tyes\tfine\n", encoding="utf-8")
    headed.write_text("label,more,text\n1,x,fine\n", encoding="utf-8")
    assert read_rows(str(plain), of) == read_rows(str(headed), of) == Rows((("fine",),), (1,))


@pytest.mark.parametrize(
    ("cell", "answer"),
    [("yes", 1), ("1", 1), (1, 1), (0.0, 0), ("no", 0)],
)
def test_a_class_is_a_name_or_an_id(cell: Any, answer: int) -> None:
    """As text, JSON number, or as the floats of an integer column with missing values."""
    assert answer_of(task("classification", "no", "yes"), text="x", label=cell) == answer


def test_ids_are_refused_where_names_are_numbers() -> None:
    """Of the classes 3 and 5, 0 would only be a guess at the first."""
    of = task("classification", "3", "5")
    assert answer_of(of, text="x", label="5") == 1
    assert "the label '0' is unknown" in problem_of(of, text="x", label="0")


@pytest.mark.parametrize(
    ("cell", "answer"),
    [("b|a", (0, 1)), ("b", (1,)), ("", ()), ('["b"]', (1,)), (["b", 0], (0, 1)), ([], ()), (" a | b ", (0, 1))],
)
def test_several_labels(cell: Any, answer: tuple[int, ...]) -> None:
    """Names separated by |, a JSON list in a cell, a list; none at all is valid."""
    assert answer_of(task("multi-label", "a", "b"), text="x", label=cell) == answer


@pytest.mark.parametrize(("cell", "answer"), [("2.5", 2.5), ("-1", -1.0), ("1e-3", 0.001), (4, 4.0), (".5", 0.5)])
def test_numbers_are_parsed(cell: Any, answer: float) -> None:
    """In the usual notations."""
    assert answer_of(task("regression"), text="x", label=cell) == answer


@pytest.mark.parametrize("cell", ["", "nan", "inf", "1,5", "1_0", " 1", "٣", True, None, float("nan")])
def test_invalid_numbers_are_refused(cell: Any) -> None:
    """Including notations that Python's float accepts."""
    assert "is no finite number" in problem_of(task("regression"), text="x", label=cell)


@pytest.mark.parametrize("cell", ["1e999", "-1e39", 1e300, float("inf"), 10**400])
def test_numbers_too_large_for_32_bits_are_refused(cell: Any) -> None:
    """The loss is computed in 32 bits."""
    assert "is not from -3e38 to 3e38" in problem_of(task("regression"), text="x", label=cell)


@pytest.mark.parametrize(
    ("words", "tags"), [("Ann  left", "B-PER O"), (["Ann", "left"], ["B-PER", "O"]), ('["Ann", "left"]', [1, 0])]
)
def test_words_and_tags(words: Any, tags: Any) -> None:
    """Lists, JSON lists in a cell, or separated by white space."""
    of = task("token-classification", "O", "B-PER")
    assert rows_of([("here", {"text": words, "label": tags})], of, "file") == Rows((("Ann", "left"),), ((1, 0),))


QUESTION = task("question-answering", texts=("question", "context"))


@pytest.mark.parametrize(
    ("cells", "answer"),
    [
        ({"label": "an"}, (("an", 1),)),
        ({"label": "an", "answer_start": "3"}, (("an", 3),)),
        ({"label": "", "answer_start": ""}, ()),
        ({"label": None}, ()),
        ({"label": ["an", "b"]}, (("an", 1), ("b", 0))),
        ({"label": {"text": ["an"], "answer_start": [3]}}, (("an", 3),)),
        ({"label": {"text": [], "answer_start": []}}, ()),
    ],
)
def test_answers(cells: dict[str, Any], answer: tuple[tuple[str, int], ...]) -> None:
    """By their start where it is given, else by first occurrence; several, or none."""
    assert answer_of(QUESTION, question="what?", context="banana", **cells) == answer


@pytest.mark.parametrize(
    ("of", "cells", "problem"),
    [
        (task("classification", "a", "b"), {"label": "a"}, "there is no column 'text' among label"),
        (task("classification", "a", "b"), {"text": 5, "label": "a"}, "the text is 5; it must be a text"),
        (task("classification", "a", "b"), {"text": None, "label": "a"}, "the text is missing"),
        (task("classification", "a", "b"), {"text": "x" * 1_000_001, "label": "a"}, "1,000,001 characters"),
        (task("classification", "a", "b"), {"text": "x\ud800", "label": "a"}, "half a character"),
        (task("classification", "a", "b"), {"text": "x\0", "label": "a"}, "NUL"),
        (task("multi-label", "a", "b"), {"text": "x", "label": "a|a"}, "'a' is repeated"),
        (task("multi-label", "a", "b"), {"text": "x", "label": 3}, "must be a list, or names with |"),
        (task("token-classification", "O"), {"text": "a b", "label": "O"}, "1 tags for 2 words"),
        (task("token-classification", "O"), {"text": ["a", ""], "label": "O O"}, "the word '' is invalid"),
        (task("token-classification", "O"), {"text": "", "label": ""}, "the text is empty"),
        (QUESTION, {"question": "q", "context": "c", "label": "d"}, "the answer 'd' is not in its context"),
        (QUESTION, {"question": "q", "context": "cd", "label": "d", "answer_start": 0}, "has 'c' at character 0"),
        (QUESTION, {"question": "q", "context": "cd", "label": "d", "answer_start": -1}, "answer_start is -1"),
        (QUESTION, {"question": "q", "context": "cd", "label": 5}, "the answer 5 is no text"),
    ],
)
def test_invalid_rows_are_reported(of: Task, cells: dict[str, Any], problem: str) -> None:
    """Each violation of a kind's format gives one line."""
    message = problem_of(of, **cells)
    assert problem in message
    assert "\n" not in message
    assert len(message) < 300


def test_a_file_of_bad_rows_alone_is_refused() -> None:
    """With the first reason, also where bad rows may be skipped."""
    records = [("here", {"text": "", "label": "a"})]
    with pytest.raises(RowProblem, match=r"no valid row; .* here: the text is empty"):
        rows_of(records, task("classification", "a", "b"), "file", [])
