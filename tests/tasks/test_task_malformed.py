"""Malformed official files: each error gives the file, the line, the rule and a fix, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from farsearch.errors import DataError
from farsearch.tasks.load import load_task
from tests.journey import call
from tests.tasks.layouts import write_task

SST2 = b"sentence\tlabel\n"
MRPC = b"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
STSB = b"index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
STSB_ROW = b"0\tg\tf\t2012\t1\tnone\tnone\ta\tb\t"
QQP = b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
MNLI = b"index\tpromptID\tpairID\tgenre\tp1\tp2\tp3\tp4\tsentence1\tsentence2\tlabel1\tgold_label\n"
MNLI_ROW = b"0\t1\t2\tg\tp\tp\tp\tp\ta\tb\t"
QNLI = b"index\tquestion\tsentence\tlabel\n"
RTE = b"index\tsentence1\tsentence2\tlabel\n"

TABLES: list[tuple[str, bytes, str]] = [
    ("sst2", b"", "train.tsv line 1: the header is nothing; it must name .*sentence<TAB>label"),
    ("sst2", b"a film\t1\n", "train.tsv line 1: the header is 'a film\\t1'.*it must name .*sentence<TAB>label"),
    ("sst2", b"sentence,label\na,1\n", "train.tsv line 1: the header is 'sentence,label'.*it must name "),
    ("sst2", b"sentence\tlable\na\t1\n", "line 1: the header is 'sentence\\tlable'.*did you mean 'lable'"),
    ("sst2", b"label\tlabel\tsentence\n", "train.tsv line 1: the header has 'label' twice; name each column once"),
    ("sst2", SST2, "train.tsv has no rows; give it at least one of each class"),
    ("sst2", SST2 + b"a\t1\nb\n", "train.tsv line 3: 'b' has 1 column; a row has 2 (sentence, label) with one tab"),
    ("sst2", SST2 + b"a\tb\t1\n", "train.tsv line 2: 'a\\tb\\t1' has 3 columns; a row has 2"),
    ("sst2", SST2 + b"a\t1\n\nb\t0\n", "train.tsv line 3: the line is empty; each line is a row: remove it"),
    ("sst2", SST2 + b"a\t1\n \t0\n", "train.tsv line 3: the sentence is empty; each row needs a text: add it"),
    ("sst2", SST2 + b"a\t2\n", "line 2: the label '2' is unknown; labels of sst2 are 0 (negative), 1 (positive)"),
    ("sst2", SST2 + b"a\t-1\n", "train.tsv line 2: the label '-1' is unknown"),
    ("sst2", SST2 + "a\t²\n".encode(), "train.tsv line 2: the label '²' is unknown"),
    ("sst2", SST2 + b"a\tgood\n", "train.tsv line 2: the label 'good' is unknown"),
    ("sst2", b"sentence\tlabel\r\na\t1\r\nb\t\r\n", "train.tsv line 3: the label '' is unknown"),
    ("sst2", SST2 + b"a\t1\nb\xe9\t0\n", "train.tsv line 3: byte 0xe9 is not UTF-8; save the file as UTF-8"),
    ("sst2", SST2 + b"a\t1\nb\x00\t0\n", "train.tsv line 3: there is a NUL byte, which no text has: remove it"),
    ("sst2", SST2.decode().encode("utf-16"), "train.tsv line 1: the file is UTF-16; save it as UTF-8"),
    ("sst2", b"sentence\tlabel\ra\t1\r", "train.tsv line 1: its lines end in CR alone; save it with LF or CRLF"),
    ("sst2", SST2 + b"a\t1\nb\t1\n", "train.tsv has no row of class 'negative'; training needs every class: add rows"),
    ("sst2", b"gj04\t1\t\ta\n", "train.tsv line 1: the header is 'gj04\\t1\\t\\ta'.*it must name "),
    ("cola", b"gj04\t1\t\ta\ngj04\t1\ta\n", "train.tsv line 2: 'gj04\\t1\\ta' has 3 columns; a row has 4"),
    ("cola", b"gj04\t1\t\ta\ngj04\tyes\t\tb\n", "train.tsv line 2: the label 'yes' is unknown"),
    ("cola", b"gj04\t1\t\t\n", "train.tsv line 1: the sentence is empty"),
    ("cola", SST2, "train.tsv line 1: 'sentence\\tlabel' has 2 columns; a row has 4 (source, label, author's mark,"),
    ("mrpc", RTE, "train.tsv line 1: the header is 'index\\tsentence1.*'#1 String'.*it must name "),
    ("mrpc", MRPC + b"1\t2\t3\ta\n", "train.tsv line 2: '1\\t2\\t3\\ta' has 4 columns; a row has 5 (Quality, #1 ID"),
    ("mrpc", MRPC + b"a\t2\t3\tb\t1\n", "train.tsv line 2: the label 'a' is unknown; labels of mrpc are 0 (not_equiva"),
    ("mrpc", MRPC + b"1\t2\t3\ta\t\n", "train.tsv line 2: the #2 String is empty; each row needs a text"),
    ("stsb", STSB + STSB_ROW + b"5.001\n", "train.tsv line 2: the score '5.001' is not from 0 to 5; correct it"),
    ("stsb", STSB + STSB_ROW + b"3\n" + STSB_ROW + b"-0.1\n", "train.tsv line 3: the score '-0.1' is not from 0 to 5"),
    ("stsb", STSB + STSB_ROW + b"nan\n", "train.tsv line 2: the score 'nan' is not from 0 to 5"),
    ("stsb", STSB + STSB_ROW + b"\n", "train.tsv line 2: the label '' is no finite number; write it as 3.5"),
    ("stsb", STSB + STSB_ROW + b"3,5\n", "train.tsv line 2: the label '3,5' is no finite number; write it as 3.5"),
    ("stsb", STSB + STSB_ROW[:-1] + b"\n", "train.tsv line 2: '0\\tg\\tf\\t2012.* has 9 columns; a row has 10"),
    ("qqp", b"id\tquestion1\tquestion2\tlabel\n", "train.tsv line 1: .*no column 'is_duplicate'.*it must name "),
    ("qqp", QQP + b"1\t2\t3\ta\tb\tyes\n", "train.tsv line 2: the label 'yes' is unknown; labels of qqp are 0 (not_d"),
    ("qqp", QQP + b"1\t2\t3\ta\tb\n", "train.tsv has no rows; give it at least one of each class"),
    ("qqp", QQP + b"1\t2\t3\t\xff\tb\t1\n", "train.tsv line 2: byte 0xff is not UTF-8"),
    ("qqp", QQP + b"1\t2\t3\t\xff\n", "train.tsv line 2: byte 0xff is not UTF-8"),
    ("mnli", MNLI + MNLI_ROW + b"neutral\t-\n", "train.tsv line 2: the label '-' is unknown; labels of mnli are 0"),
    ("mnli", MNLI + MNLI_ROW[:-1] + b"\n", "train.tsv line 2: '0\\t1\\t2\\tg.* has 10 columns; a row has 12"),
    ("mnli", MNLI + MNLI_ROW + b"\n", "train.tsv line 2: the label '' is unknown"),
    ("mnli", MNLI + MNLI_ROW + b"neutral\tneutral\tneutral\n", "has 13 columns; a row has 12"),
    ("qnli", QNLI + b"0\t\tb\tentailment\n", "train.tsv line 2: the question is empty"),
    ("qnli", QNLI + b"0\ta\tb\tneutral\n", "the label 'neutral' is unknown; labels of qnli are 0 (entailment), 1"),
    ("rte", RTE + b"0\ta\tb\n", "train.tsv line 2: '0\\ta\\tb' has 3 columns; a row has 4 (index, sentence1, "),
    ("rte", RTE + b"0\ta\tb\tentailment\n", "train.tsv has no row of class 'not_entailment'"),
    ("wnli", RTE + b"0\ta\tb\t2\n", "train.tsv line 2: the label '2' is unknown; labels of wnli are 0 (not_entail"),
]  # fmt: skip


def numbered(cases: list[Any]) -> list[str]:
    """Short ids of cases: their index and first text."""
    return [f"{next(part for part in case if isinstance(part, str))[:12]}-{i}" for i, case in enumerate(cases)]


def assert_says(message: str, expected: str) -> None:
    """Assert that the message is one short line matching ``expected``, whose parts ``.*`` separates."""
    at = 0
    for part in expected.split(".*"):
        assert part in message[at:], message
        at = message.index(part, at) + len(part)
    assert "\n" not in message
    assert len(message) < 400


def refused(tmp_path: Path, name: str, file: str, content: bytes) -> str:
    """Return the error message for a task with this content in one of its files."""
    folder = write_task(tmp_path / "given", name, 9)
    (folder / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_task(name, folder)
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(("name", "content", "expected"), TABLES, ids=numbered(TABLES))
def test_malformed_tables_are_reported(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    """One line with the file's name, the line's number, the rule and the fix."""
    assert_says(refused(tmp_path, name, "train.tsv", content), expected)


@pytest.mark.parametrize(
    ("name", "file"),
    [("sst2", "dev.tsv"), ("mnli", "dev_matched.tsv"), ("mnli", "dev_mismatched.tsv"), ("stsb", "dev.tsv")],
)
def test_the_message_names_the_file(tmp_path: Path, name: str, file: str) -> None:
    """Of several development files, the one with the broken row."""
    folder = write_task(tmp_path / "given", name, 9)
    lines = (folder / file).read_bytes().split(b"\n")
    lines[2] = lines[2].rsplit(b"\t", 1)[0] + b"\twrong"
    (folder / file).write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=f"^{file} line 3: the label 'wrong' is "):
        load_task(name, folder)


def test_long_values_are_truncated_in_messages(tmp_path: Path) -> None:
    assert len(refused(tmp_path, "sst2", "train.tsv", b"word " * 10_000)) < 400


def squad(**changes: Any) -> bytes:
    """A file of two questions, with changes to the second."""
    good = {"question": "who?", "id": "1", "answers": [{"text": "Anna", "answer_start": 0}]}
    qas = [good, {**good, "id": "2", **changes}]
    return squad_of([{"context": "Anna came.", "qas": qas}])


def squad_of(paragraphs: Any) -> bytes:
    """A file with these paragraphs."""
    return json.dumps({"version": "1.1", "data": [{"title": "A", "paragraphs": paragraphs}]}).encode()


QA = "train-v1.1.json data[0].paragraphs[0].qas[1]"
QUESTIONS: list[tuple[bytes, str]] = [
    (b"", "train-v1.1.json line 1: it is not JSON: Expecting value at column 1; take the file as it was downloaded"),
    (b'{"data": [\n}', "train-v1.1.json line 2: it is not JSON: "),
    (b'{"data": "\xff"}', "train-v1.1.json line 1: byte 0xff is not UTF-8; save the file as UTF-8"),
    (b"[" * 100_000, "train-v1.1.json: it is not SQuAD's JSON: "),
    (b"[]", "train-v1.1.json is []; it must be an object with 'data'"),
    (b'{"version": "1.1"}', "train-v1.1.json lacks the key 'data'; add it"),
    (b'{"data": {}}', "train-v1.1.json data is {}; it must be a list"),
    (b'{"data": []}', "train-v1.1.json has no questions; give it at least one"),
    (b'{"data": [1]}', "train-v1.1.json data[0] is 1; it must be an object with 'paragraphs'"),
    (b'{"data": [{}]}', "train-v1.1.json data[0] lacks the key 'paragraphs'"),
    (squad_of("x"), "train-v1.1.json data[0].paragraphs is 'x'; it must be a list"),
    (squad_of([{"qas": []}]), "train-v1.1.json data[0].paragraphs[0] lacks the key 'context'"),
    (squad_of([{"context": " ", "qas": []}]), "data[0].paragraphs[0].context is empty; give it a text"),
    (squad_of([{"context": "a"}]), "data[0].paragraphs[0] lacks the key 'qas'"),
    (squad_of([{"context": "a", "qas": ["who?"]}]), "paragraphs[0].qas[0] is 'who?'; it must be an object with"),
    (squad(question=""), QA + ".question is empty; give it a text"),
    (squad(question=None), QA + ".question is None; it must be a text"),
    (squad(question="\udc80"), QA + ".question holds half a character (a lone surrogate): remove it"),
    (squad(question="\0"), QA + ".question holds a NUL character, which no text has: remove it"),
    (squad(answers={}), QA + ".answers is {}; it must be a list"),
    (squad(answers=[]), QA + " has no answer; give it one, or set 'is_impossible': true"),
    (squad(is_impossible=True), QA + " is_impossible and has the answer 'Anna'; remove one of them"),
    (squad(is_impossible="no"), QA + ".is_impossible is 'no'; it must be true or false"),
    (squad(answers=["Anna"]), QA + ".answers[0] is 'Anna'; it must be an object with 'text'"),
    (squad(answers=[{"text": "", "answer_start": 0}]), QA + ".answers[0].text is empty; give it a text"),
    (squad(answers=[{"text": "Anna"}]), QA + ".answers[0] lacks the key 'answer_start'"),
    (squad(answers=[{"text": "Anna", "answer_start": "0"}]), QA + ".answers[0].answer_start is '0'; it must be a char"),
    (squad(answers=[{"text": "Anna", "answer_start": True}]), QA + ".answers[0].answer_start is True; it must be"),
    (squad(answers=[{"text": "came.", "answer_start": -5}]), QA + ".answers[0].answer_start is -5; it must be"),
    (
        squad(answers=[{"text": "Anna", "answer_start": 0}, {"text": "Anna", "answer_start": 1}]),
        QA + ".answers[1]: the context has 'nna ' at character 1, not the answer 'Anna'; correct answer_start",
    ),
    (squad(answers=[{"text": "Anna", "answer_start": 99}]), "the context has '' at character 99, not the answer"),
    (
        squad(answers=[], is_impossible=True),
        "train-v1.1.json: the question 'who?' has no answer, and each of task 'squad' has one; give it one, or choose",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), QUESTIONS, ids=numbered(QUESTIONS))
def test_malformed_question_files_are_reported(tmp_path: Path, content: bytes, expected: str) -> None:
    """By line where it is known, else by the path within the JSON document."""
    assert_says(refused(tmp_path, "squad", "train-v1.1.json", content), expected)


BY_COMMAND = [
    ("mrpc", "train.tsv", *next((data, text) for name, data, text in TABLES if name == "mrpc" and "String is" in text)),
    ("stsb", "dev.tsv", STSB + STSB_ROW + b"9\n", "dev.tsv line 2: the score '9' is not from 0 to 5"),
    ("mnli", "dev_mismatched.tsv", MNLI + MNLI_ROW + b"-\n", "dev_mismatched.tsv line 2: the label '-' is unknown"),
    ("qqp", "train.tsv", QQP + b"1\t2\t3\ta\tb\t7\n", "train.tsv line 2: the label '7' is unknown"),
    ("squad", "dev-v1.1.json", squad(answers=[]), "dev-v1.1.json data[0].paragraphs[0].qas[1] has no answer"),
    ("squad_v2", "train-v2.0.json", b"{", "train-v2.0.json line 1: it is not JSON"),
]


@pytest.mark.parametrize(("name", "file", "content", "expected"), BY_COMMAND, ids=numbered(BY_COMMAND))
def test_the_command_exits_with_2(tmp_path: Path, name: str, file: str, content: bytes, expected: str) -> None:
    """``run`` prints the one line on stderr, without a traceback."""
    folder = write_task(tmp_path / "given", name, 9)
    (folder / file).write_bytes(content)
    done = call(
        tmp_path, "run", "--device", "jetson-nano", "--task", name, "--data-dir", str(folder), "--model", "minilm"
    )
    assert done.code == 2, done.err
    assert done.out == ""
    assert_says(done.err.strip(), expected)
