"""Realistic files of every supported form, each with the expected schema."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Sequence as ListOf

from farsearch.cli.task_options import task_options
from farsearch.tasks import TaskData
from farsearch.tasks.custom import load_own
from farsearch.tasks.description import OwnData

TEXTS = [f'The film, number {i}; it was "{("so dull", "fine")[i % 2]}" | really' for i in range(40)]
LABELS = [("bad", "good")[i % 2] for i in range(40)]
WORDS = [
    ["Ann", f"Lee{i}", "left", "Rome", "today"] if i % 2 else [f"n{i}", "left", "it"][: 1 + i // 4 % 3]
    for i in range(40)
]
TAGS = [["B-PER", "I-PER", "O", "B-LOC", "O"] if i % 2 else ["O"] * len(WORDS[i]) for i in range(40)]
TOXIC = [("0", "1", "0", "1")[i % 4] for i in range(40)]
INSULT = [("0", "0", "1", "1")[i % 4] for i in range(40)]
NAMES = ("good", "bad")
"""Class labels in an order that is not that of the alphabet."""

Content = bytes | Callable[[Path], Path]


def table(columns: Mapping[str, Sequence[Any]], between: str = ",", header: bool = True, end: str = "\n") -> bytes:
    """Write a table with the csv module."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=between, lineterminator=end)
    if header:
        writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue().encode()


def plain(columns: Mapping[str, Sequence[Any]], between: str, header: bool = True) -> bytes:
    """Write a table without quotes."""
    rows = [*([list(columns)] if header else []), *zip(*columns.values(), strict=True)]
    return "".join(between.join(map(str, row)) + "\n" for row in rows).encode()


def objects(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return one object per row."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def lines(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Write one JSON object per line."""
    return "".join(json.dumps(row) + "\n" for row in objects(columns)).encode()


def sentences(between: str, *more: str, head: str = "", before: str = "") -> bytes:
    """CoNLL: one word and tag per line, with ``more`` columns between, and ``head`` before each sentence."""
    text = before
    for words, tags in zip(WORDS, TAGS, strict=True):
        text += head + "".join(between.join([w, *more, t]) + "\n" for w, t in zip(words, tags, strict=True)) + "\n"
    return text.encode()


def numbered_sentences() -> bytes:
    """CoNLL with a number before each word."""
    parts = []
    for words, tags in zip(WORDS, TAGS, strict=True):
        parts += [f"{i}\t{w}\t{t}\n" for i, (w, t) in enumerate(zip(words, tags, strict=True), 1)] + ["\n"]
    return "".join(parts).encode()


def squad() -> bytes:
    """SQuAD JSON: articles, paragraphs and questions."""
    articles = [
        {"title": "", "paragraphs": [{"context": f"In {i} it rained.", "qas": [
            {"id": str(i), "question": "When?", "answers": [{"text": str(i), "answer_start": 3}]}]}]}
        for i in range(40)
    ]  # fmt: skip
    return json.dumps({"version": "1.1", "data": articles}).encode()


def one_column_of_ids() -> Features:
    """A dataset of texts and a class label with names."""
    return Features({"text": Value("string"), "label": ClassLabel(names=list(NAMES))})


def ids() -> dict[str, list[Any]]:
    """Dataset rows with class ids."""
    return {"text": TEXTS, "label": [NAMES.index(label) for label in LABELS]}


def saved(folder: Path) -> Path:
    """A folder written by ``save_to_disk``."""
    Dataset.from_dict(ids(), features=one_column_of_ids()).save_to_disk(folder / "rows")
    return folder / "rows"


def saved_parts(folder: Path) -> Path:
    """A folder written by ``save_to_disk``, with three parts."""
    rows = Dataset.from_dict(ids(), features=one_column_of_ids())
    parts = {"train": rows.select(range(30)), "validation": rows.select(range(30, 40)), "test": rows.select(range(4))}
    DatasetDict(parts).save_to_disk(folder / "rows")
    return folder / "rows"


def parquet_with_names(folder: Path) -> Path:
    """Parquet as written by ``datasets``."""
    Dataset.from_dict(ids(), features=one_column_of_ids()).to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def parquet_of_tags(folder: Path) -> Path:
    """Parquet with tag ids, and the tag names in its metadata, as CoNLL 2003 on the hub."""
    names = ["O", "B-PER", "I-PER", "B-LOC"]
    features = Features({"tokens": ListOf(Value("string")), "ner_tags": ListOf(ClassLabel(names=names))})
    tags = [[names.index(tag) for tag in row] for row in TAGS]
    Dataset.from_dict({"tokens": WORDS, "ner_tags": tags}, features=features).to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def plain_parquet(folder: Path) -> Path:
    """Parquet with plain text labels."""
    pq.write_table(pa.table({"text": TEXTS, "label": LABELS}), folder / "rows.parquet")
    return folder / "rows.parquet"


def classes(folder: Path) -> Path:
    """One folder per class."""
    for i, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True)):
        path = folder / "reviews" / label / f"{i:02}_7.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "reviews"


def imdb(folder: Path) -> Path:
    """The layout of aclImdb, with its unlabelled texts and its test set."""
    for part in ("train", "test"):
        classes(folder).rename(folder / part)
        (folder / part / "unsup").mkdir()
        (folder / part / "unsup" / "0_0.txt").write_text("who knows", encoding="utf-8")
        (folder / part / "urls_pos.txt").write_text("http://example.org", encoding="utf-8")
    (folder / "aclImdb").mkdir()
    for part in ("train", "test"):
        (folder / part).rename(folder / "aclImdb" / part)
    return folder / "aclImdb"


def two_files(folder: Path) -> Path:
    """Texts in one file, labels in another."""
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return folder / "texts.txt"


@dataclass(frozen=True)
class Case:
    """A file and its expected schema.

    Attributes:
        options: required options; with ``asked``, the error message suggests them.
        noted: expected output.
        board: whether a board can read the file too.
    """

    name: str
    content: Content
    options: tuple[str, ...] = ()
    kind: str = "classification"
    labels: tuple[str, ...] = ("bad", "good")
    first: tuple[str, ...] = (TEXTS[0],)
    noted: str = ""
    board: bool = True
    asked: bool = True


def tagged(name: str, content: Content, noted: str = "", board: bool = True) -> Case:
    """A case of tagged words, in which the first sentence has no entity."""
    names = ("O", "B-LOC", "B-PER", "I-PER")
    return Case(name, content, (), "token-classification", names, tuple(WORDS[0]), noted, board)


ROWS = {"text": TEXTS, "label": LABELS}
PLAIN = {"text": [f"the film number {i} was {LABELS[i]} to me" for i in range(40)], "label": LABELS}
PLAIN_FIRST = (PLAIN["text"][0],)
PAIRS = {"question": [f"is it {i}" for i in range(40)], "context": [f"it is {i % 20}" for i in range(40)],
         "label": [str(int(i < 20)) for i in range(40)]}  # fmt: skip
MANY = {"comment": TEXTS, "toxic": TOXIC, "insult": INSULT}
SEVERAL = ("--label-column", "toxic", "--label-column", "insult")
NO_HEADER = ("--columns", "text,label")

CASES: dict[str, Case] = {
    "commas in .csv": Case("rows.csv", table(ROWS)),
    "commas in .csv / CRLF and a byte order mark": Case("rows.csv", b"\xef\xbb\xbf" + table(ROWS, end="\r\n")),
    "blank last lines": Case("rows.csv", table(ROWS) + b"\n\n  \n"),
    "blank last lines / JSON": Case("rows.jsonl", lines(ROWS) + b"\n\n"),
    "blank last lines / tabs": Case("rows.tsv", plain(ROWS, "\t") + b"\r\n\n"),
    "semicolons, tabs or pipes in .csv / semicolons": Case(
        "rows.csv", table(ROWS, ";"), noted="rows.csv: semicolons between its columns"
    ),
    "semicolons, tabs or pipes in .csv / tabs": Case(
        "rows.csv", table(ROWS, "\t"), noted="rows.csv: tabs between its columns"
    ),
    "semicolons, tabs or pipes in .csv / pipes": Case(
        "rows.csv", table(ROWS, "|"), noted="rows.csv: pipes between its columns"
    ),
    "tabs in .tsv, .txt / .tsv": Case("rows.tsv", plain(ROWS, "\t")),
    "tabs in .tsv, .txt / .txt": Case("rows.txt", plain(ROWS, "\t")),
    "commas, semicolons or pipes in .tsv, .txt / commas": Case(
        "rows.txt", table(ROWS), noted="rows.txt: commas between its columns"
    ),
    "commas, semicolons or pipes in .tsv, .txt / semicolons": Case(
        "rows.tsv", table(ROWS, ";"), noted="rows.tsv: semicolons between its columns"
    ),
    "two separators that fit alike": Case(
        "rows.csv",
        b"text; a note,label\n"
        + b"".join(b"fine; film %d,%s\n" % (i, label.encode()) for i, label in enumerate(LABELS)),
        ("--separator", "comma", "--text-column", "text; a note"),
        first=("fine; film 0",),
    ),
    "no header / commas": Case("rows.csv", table(ROWS, header=False), NO_HEADER),
    "no header / tabs": Case("rows.tsv", plain(ROWS, "\t", header=False), NO_HEADER),
    "no header / semicolons": Case(
        "rows.csv", table(PLAIN, ";", header=False), NO_HEADER, first=PLAIN_FIRST, noted="semicolons between"
    ),
    "no header / label first": Case(
        "rows.csv",
        table({"label": [str(i % 2 + 1) for i in range(40)], "text": TEXTS}, header=False),
        ("--columns", "label,text"),
        labels=("1", "2"),
    ),
    "no header / a number of the row": Case(
        "rows.csv",
        table({"id": range(40), "text": TEXTS, "label": LABELS}, header=False),
        ("--columns", "column1,text,label"),
    ),
    "columns of other names": Case(
        "rows.csv", table({"body": TEXTS, "folder": LABELS}), ("--text-column", "body", "--label-column", "folder")
    ),
    "packed with gzip, .csv.gz, .jsonl.gz / table": Case("rows.csv.gz", gzip.compress(table(ROWS), mtime=0)),
    "packed with gzip, .csv.gz, .jsonl.gz / JSON lines": Case("rows.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)),
    "JSON lines, .jsonl, .ndjson": Case("rows.jsonl", lines(ROWS)),
    "JSON lines named .json": Case("rows.json", lines(ROWS), noted="rows.json: an object per line"),
    "a list of objects, .json / .json": Case("rows.json", json.dumps(objects(ROWS), indent=1).encode()),
    "a list of objects, .json / .jsonl": Case(
        "rows.jsonl", json.dumps(objects(ROWS)).encode(), noted="a list of objects"
    ),
    "a list of objects under a key, .json / data": Case(
        "rows.json", json.dumps({"v": 1, "data": objects(ROWS)}).encode(), noted="under 'data'"
    ),
    "a list of objects under a key, .json / another": Case(
        "rows.json", json.dumps({"reviews": objects(ROWS)}).encode(), noted="'reviews'"
    ),
    "a list for each column, .json / lists": Case(
        "rows.json", json.dumps(ROWS).encode(), noted="a list for each column"
    ),
    "a list for each column, .json / pandas": Case(
        "rows.json",
        json.dumps({name: {str(i): cell for i, cell in enumerate(column)} for name, column in ROWS.items()}).encode(),
        noted="a list for each column",
    ),
    "SQuAD 1.1 and 2.0, .json": Case(
        "rows.json", squad(), kind="question-answering", labels=(), first=("When?", "In 0 it rained.")
    ),
    "question, context and a label": Case("rows.csv", table(PAIRS), labels=("0", "1"), first=("is it 0", "it is 0")),
    "question, context and an answer": Case(
        "rows.csv",
        table(
            {
                "question": ["when?"] * 40,
                "context": [f"in {i} it was" for i in range(40)],
                "answer": [str(i) for i in range(40)],
            }
        ),
        kind="question-answering",
        labels=(),
        first=("when?", "in 0 it was"),
    ),
    "sentences, .conll, .iob, .bio / tabs": tagged("rows.conll", sentences("\t")),
    "sentences, .conll, .iob, .bio / spaces": tagged("rows.conll", sentences(" ")),
    "sentences in .txt, .tsv / .txt": tagged(
        "rows.txt", sentences(" "), "rows.txt: sentences, a word and its tag per line"
    ),
    "sentences in .txt, .tsv / .tsv": tagged(
        "rows.tsv", sentences("\t"), "rows.tsv: sentences, a word and its tag per line"
    ),
    "sentences with more columns, comments or -DOCSTART- / CoNLL 2003": tagged(
        "rows.txt",
        sentences(" ", "NNP", "I-NP", before="-DOCSTART- -X- -X- O\n\n"),
        "4 columns per line: the first is read as the word, the last as its tag",
    ),
    "sentences with more columns, comments or -DOCSTART- / comments": tagged(
        "rows.conll", sentences("\t", "_", "_", head="# id = 7\n# note\n"), "4 columns"
    ),
    "sentences with more columns, comments or -DOCSTART- / numbers": tagged(
        "rows.conll", numbered_sentences(), "3 columns per line: the second, after a"
    ),
    "words and tags with spaces between, in a table": tagged(
        "rows.csv", table({"tokens": [" ".join(w) for w in WORDS], "tags": [" ".join(t) for t in TAGS]})
    ),
    "words and tags as lists": tagged("rows.jsonl", lines({"tokens": WORDS, "tags": TAGS})),
    "a column of 0 and 1 for each label / table": Case(
        "rows.csv",
        table({"text": TEXTS, "toxic": TOXIC, "insult": INSULT}),
        SEVERAL,
        "multi-label",
        ("toxic", "insult"),
    ),
    "a column of 0 and 1 for each label / JSON": Case(
        "rows.jsonl",
        lines({"text": TEXTS, "toxic": [int(x) for x in TOXIC], "insult": [x == "1" for x in INSULT]}),
        SEVERAL,
        "multi-label",
        ("toxic", "insult"),
    ),
    "Parquet": Case("rows.parquet", plain_parquet, board=False),
    "Parquet with names of classes / classes": Case(
        "rows.parquet", parquet_with_names, labels=NAMES, noted="label has the names of its classes", board=False
    ),
    "Parquet with names of classes / tags": Case(
        "rows.parquet",
        parquet_of_tags,
        (),
        "token-classification",
        ("O", "B-PER", "I-PER", "B-LOC"),
        tuple(WORDS[0]),
        "ner_tags has the names of its classes",
        False,
    ),
    "a folder of Dataset.save_to_disk": Case(
        "rows", saved, labels=NAMES, noted="label has the names of its classes", board=False
    ),
    "a folder of DatasetDict.save_to_disk": Case(
        "rows",
        saved_parts,
        labels=NAMES,
        noted="train is trained on, validation is reported on; not read: test",
        board=False,
    ),
    "a folder of texts for each class": Case(
        "reviews", classes, noted="a folder for each class: bad, good", board=False
    ),
    "the same with train and test, as aclImdb": Case(
        "aclImdb", imdb, noted="unsup has no class and is not read", board=False
    ),
    "texts and labels in two files": Case(
        "texts.txt", two_files, ("--train-labels", "labels.txt"), board=False, asked=False
    ),
}


def made(case: Case, folder: Path) -> Path:
    """Write the file or folder of a case."""
    if callable(case.content):
        return case.content(folder)
    (folder / case.name).write_bytes(case.content)
    return folder / case.name


@click.command()
@task_options
def _data(task: str, own: dict[str, Any]) -> dict[str, Any]:
    """Task options as ``run`` passes them."""
    return own


def loaded(path: Path, options: Sequence[str], told: Callable[[str], None] = lambda line: None) -> TaskData:
    """Load the task that these options describe."""
    words = [str(path.parent / word) if word == "labels.txt" else word for word in options]
    own = _data.main(["--train", str(path), *words], standalone_mode=False)
    return load_own(OwnData.from_dict(own), told)
