"""GLUE and SQuAD in the format of the hub: columns, classes, splits, Parquet files and cards; the rows are invented."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import datasets
import yaml

__all__ = ["NAMES", "Split", "dataset_files", "parquet", "repository_files", "shard_path"]

_ROWS: Mapping[str, int] = {"train": 240}
_DEV_ROWS = 48
_TEST_ROWS = 8

_PEOPLE = ("Ada", "Bela", "Cora", "Dario", "Elif", "Finn", "Greta", "Hugo", "Ines", "Jaro")
_PLACES = ("Aarhus", "Bergen", "Cadiz", "Delft", "Evora", "Faro", "Graz", "Husum")
_THINGS = ("lantern", "kettle", "ladder", "violin", "compass", "blanket", "teapot")
_VERBS = ("mended", "sold", "painted", "lost", "borrowed", "hid")
_GOOD = ("a warm and clever story", "a joy from start to end", "bright, quick and kind", "the best evening in months")
_BAD = ("a dull and noisy mess", "two hours of nothing", "cold, slow and mean", "a waste of a good cast")

_ENTAILMENT = ("entailment", "not_entailment")

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Split:
    """The rows of a split, by column."""

    features: datasets.Features
    columns: Columns


def _events() -> Iterator[tuple[str, str, str, str]]:
    """Distinct combinations of subject, action, object and place."""
    steps = zip(
        itertools.cycle(_PEOPLE),
        itertools.cycle(_VERBS),
        itertools.cycle(_THINGS),
        itertools.cycle(_PLACES),
        strict=False,
    )
    for number, (person, verb, thing, place) in enumerate(steps):
        yield person, verb, f"{thing} number {number}", place


def _sentence(person: str, verb: str, thing: str, place: str) -> str:
    return f"{person} {verb} the {thing} in {place}."


def _single(task: str, count: int, start: int) -> tuple[list[tuple[str, ...]], list[int]]:
    """Single sentences of two classes, which their words determine."""
    texts: list[tuple[str, ...]] = []
    labels = []
    for row, event in enumerate(itertools.islice(_events(), start, start + count)):
        label = row % 2
        if task == "sst2":
            words = (_GOOD if label else _BAD)[row // 2 % 4]
            text = f"{words}, with {event[0]} and a {event[2]}"
        else:
            text = _sentence(*event) if label else f"The {event[2]} {event[0]} in {event[1]} {event[3]} the."
        texts.append((text,))
        labels.append(label)
    return texts, labels


def _pair(classes: int, count: int, start: int) -> tuple[list[tuple[str, ...]], list[int]]:
    """Pairs whose second text repeats, contradicts or is unrelated to the first one, by class."""
    texts: list[tuple[str, ...]] = []
    labels = []
    for row, (person, verb, thing, place) in enumerate(itertools.islice(_events(), start, start + count)):
        label = row % classes
        others = (
            f"In {place}, {person} {verb} the {thing}.",
            f"{person} never saw the {thing} or {place}.",
            f"Nobody {verb} a thing, said the mayor of {_PLACES[row % 5]}.",
        )
        texts.append((_sentence(person, verb, thing, place), others[label]))
        labels.append(label)
    return texts, labels


def _glue_split(task: str, split: str, start: int) -> Split:
    columns, classes = _GLUE[task]
    count = _ROWS.get(split, _TEST_ROWS if split.startswith("test") else _DEV_ROWS)
    if len(columns) == 1:
        texts, labels = _single(task, count, start)
    else:
        texts, labels = _pair(len(classes) or 2, count, start)
    answers: list[Any] = (
        [4.5 - 4.0 * label + row % 5 / 10 for row, label in enumerate(labels)] if not classes else labels
    )
    if split.startswith("test"):
        answers = [-1] * count  # GLUE withholds the labels of its test sets
    label = datasets.ClassLabel(names=list(classes)) if classes else datasets.Value("float32")
    strings = {column: datasets.Value("string") for column in columns}
    features = datasets.Features({**strings, "label": label, "idx": datasets.Value("int32")})
    by_column = {column: [row[i] for row in texts] for i, column in enumerate(columns)}
    return Split(features, {**by_column, "label": answers, "idx": list(range(count))})


_GLUE: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cola": (("sentence",), ("unacceptable", "acceptable")),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "qnli": (("question", "sentence"), _ENTAILMENT),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "rte": (("sentence1", "sentence2"), _ENTAILMENT),
    "sst2": (("sentence",), ("negative", "positive")),
    "stsb": (("sentence1", "sentence2"), ()),
    "wnli": (("sentence1", "sentence2"), ("not_entailment", "entailment")),
}
"""Columns of texts and names of classes; none for scores."""


def _splits(task: str) -> Sequence[str]:
    if task != "mnli":
        return ("train", "validation", "test")
    return ("train", *(f"{part}_{kind}" for part in ("validation", "test") for kind in ("matched", "mismatched")))


def _squad_split(unanswerable: bool, split: str, start: int) -> Split:
    features = datasets.Features(
        {
            **{column: datasets.Value("string") for column in ("id", "title", "context", "question")},
            "answers": {
                "text": datasets.List(datasets.Value("string")),
                "answer_start": datasets.List(datasets.Value("int32")),
            },
        }
    )
    rows: Columns = {column: [] for column in features}
    count = _ROWS.get(split, _DEV_ROWS)
    for number, (person, verb, thing, place) in enumerate(itertools.islice(_events(), start, start + count)):
        context = f"{_sentence(person, verb, thing, place)} The neighbours talked about it for a week."
        questions = ((f"Who {verb} the {thing}?", person), (f"Where was the {thing}?", place), ("Why was it?", None))
        question, answer = questions[number % (3 if unanswerable else 2)]
        several = 1 if split == "train" else 3  # three annotators answered the questions of the development set
        found = {"text": [answer] * several, "answer_start": [context.index(answer)] * several} if answer else None
        row = {"id": f"{split}-{number}", "title": place, "context": context, "question": question}
        for column, value in {**row, "answers": found or {"text": [], "answer_start": []}}.items():
            rows[column].append(value)
    return Split(features, rows)


def _configurations(name: str) -> dict[str, dict[str, Split]]:
    # splits begin at different events, so that they share no rows
    if name == "nyu-mll/glue":
        return {
            task: {split: _glue_split(task, split, 300 * i) for i, split in enumerate(_splits(task))} for task in _GLUE
        }
    unanswerable = name.endswith("_v2")
    configuration = "squad_v2" if unanswerable else "plain_text"
    splits = {split: _squad_split(unanswerable, split, 300 * i) for i, split in enumerate(("train", "validation"))}
    return {configuration: splits}


NAMES = ("nyu-mll/glue", "rajpurkar/squad", "rajpurkar/squad_v2")
"""The data sets of the official tasks on the hub."""


def parquet(split: Split) -> bytes:
    """Return the rows as a Parquet file."""
    buffer = io.BytesIO()
    datasets.Dataset.from_dict(split.columns, features=split.features).to_parquet(buffer)
    return buffer.getvalue()


def shard_path(configuration: str, split: str) -> str:
    """The path of the only file of a split."""
    return f"{configuration}/{split}-00000-of-00001.parquet"


def _described(configuration: str, splits: Mapping[str, Split], sizes: Mapping[str, int]) -> dict[str, Any]:
    first = next(iter(splits.values()))
    counts = [
        {"name": split, "num_bytes": sizes[split], "num_examples": len(next(iter(rows.columns.values())))}
        for split, rows in splits.items()
    ]
    total = sum(sizes.values())
    return {
        "config_name": configuration,
        "features": first.features._to_yaml_list(),
        "splits": counts,
        "download_size": total,
        "dataset_size": total,
    }


def repository_files(name: str, configurations: Mapping[str, Mapping[str, Split]]) -> dict[str, bytes]:
    """The repository of a data set: one Parquet file per split, and a card that lists them."""
    files: dict[str, bytes] = {".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"}
    infos, configs = [], []
    datasets.disable_progress_bars()
    for configuration, splits in configurations.items():
        made = {split: parquet(rows) for split, rows in splits.items()}
        files |= {shard_path(configuration, split): content for split, content in made.items()}
        infos.append(_described(configuration, splits, {split: len(content) for split, content in made.items()}))
        paths = [{"split": split, "path": f"{configuration}/{split}-*"} for split in splits]
        configs.append({"config_name": configuration, "data_files": paths})
    described = infos[0] if len(infos) == 1 else infos
    card = {"language": ["en"], "license": "other", "dataset_info": described, "configs": configs}
    files["README.md"] = f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n# {name}, with invented rows\n".encode()
    return files


@cache
def dataset_files(name: str) -> Mapping[str, bytes]:
    """The repository of one of ``NAMES``."""
    return repository_files(name, _configurations(name))
