"""Custom files of every kind, from a search of three trials to a bundle that is fine-tuned on them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score

from farsearch.bundle.read import finetune, read_bundle
from farsearch.bundle.write import write_bundle
from farsearch.records import flat
from farsearch.runtime.scores import METRICS
from farsearch.tasks.description import OwnData
from farsearch.tasks.spec import study_task
from tests.journey import chdir
from tests.tasks.searches import search_task

_WHO = ("anna", "bert", "carl", "dora", "emil", "frida", "georg", "hanna", "ivo", "jana", "karl", "lena")
_TOPICS = ("food", "price", "room")


def _who(i: int) -> str:
    return f"{_WHO[i % 12]} {i}"


def _several(i: int) -> dict[str, Any]:
    topics = [topic for bit, topic in enumerate(_TOPICS) if i >> bit & 1]
    return {"text": f"{_who(i)} wrote of {' and '.join(topics) or 'nothing'}", "topics": topics}


def _stars(i: int) -> dict[str, Any]:
    return {"text": f"{_who(i)} was {'very ' * (i % 5)}happy", "stars": 0.5 + i % 5}


def _tagged(i: int) -> dict[str, Any]:
    away = ["went", "to", "paris"] if i % 2 else ["stayed"]
    return {
        "tokens": [_WHO[i % 12], str(i), *away, "today"],
        "tags": ["B-PER", "I-PER", *(["O", "O", "B-LOC"] if i % 2 else ["O"]), "O"],
    }


def _asked(i: int) -> dict[str, Any]:
    context = f"It was late. {_who(i)} went home."
    return {"question": f"who went home on day {i}", "context": context, "answer": _who(i) if i % 4 else ""}


def _same(i: int) -> dict[str, Any]:
    word = "cold" if i % 2 else "warm"
    return {"a": f"{_who(i)} is {word}", "b": f"it is cold for {_who(i)}", "same": "yes" if i % 2 else "no"}


ROWS: dict[str, tuple[Callable[[int], dict[str, Any]], str, str]] = {
    "multi-label": (_several, "topics.jsonl", "topics"),
    "regression": (_stars, "stars.csv", "stars"),
    "token-classification": (_tagged, "names.jsonl", "tags"),
    "question-answering": (_asked, "asked.csv", "answer"),
    "classification": (_same, "pairs.csv", "same"),
}
"""What a row is, the file, and the column of what is learned."""


def write_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a table with commas, or JSON lines, by the file's suffix."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.mark.parametrize("kind", ROWS)
def test_custom_data_of_each_kind_is_searched_and_fine_tuned(kind: str, tiny_bert: Path, tmp_path: Path) -> None:
    """Only file and columns are given: kind, labels and metric are inferred, a validation set is held out.

    The bundle's FAR phase then runs on the same file.
    """
    row, name, label = ROWS[kind]
    path = write_file(tmp_path / name, [row(i) for i in range(64)])
    texts = tuple(column for column in row(0) if column != label)
    said = OwnData(name="mine", train=str(path), text_columns=texts, label_column=label)
    if kind == "question-answering":
        said = OwnData.from_dict({**said.to_dict(), "kind": kind})  # its table could be read as text pairs
    with chdir(tmp_path):
        found = search_task(tmp_path, tiny_bert, task="mine", own=said.to_dict())
    spec = found.bench.data.spec
    assert (spec.kind, spec.label) == (kind, label)
    assert kind in METRICS[spec.metric].kinds
    assert [flat(trial).state for trial in found.snapshot.trials] == ["complete"] * 3
    assert all(flat(trial).metric is not None and flat(trial).dev_metric is not None for trial in found.snapshot.trials)
    out = tmp_path / "bundle"
    write_bundle(found.snapshot, found.snapshot.front[0], found.search.folder, out, "a test", home=tmp_path / "home")
    bundle = read_bundle(out)
    assert bundle.task == spec.task
    tuned = finetune(bundle, path, path, tmp_path / "tuned", epochs=1.0)
    assert tuned.metric is not None
    assert tuned.steps == -(-len(bundle_rows(found.bench)) // 8)


def _rare(i: int) -> dict[str, Any]:
    fraud = i % 4 == 0
    return {"text": f"{_who(i)} {'lied' if fraud else 'paid'} on day {i}", "label": "fraud" if fraud else "legit"}


def test_the_positive_class_is_stored_in_study_and_bundle(tiny_bert: Path, tmp_path: Path) -> None:
    """F1 is that of the rarest class, the first alphabetically, in the search and in the bundle's fine-tuning."""
    path = write_file(tmp_path / "mails.csv", [_rare(i) for i in range(64)])
    said = OwnData(name="mine", train=str(path), metric="f1")
    with chdir(tmp_path):
        found = search_task(tmp_path, tiny_bert, trials=1, task="mine", own=said.to_dict())
    assert found.snapshot.settings.job.positive == "fraud"
    assert study_task(found.snapshot.meta, "mine").positive == "fraud"
    (trial,) = found.snapshot.complete
    out = tmp_path / "bundle"
    write_bundle(found.snapshot, trial, found.search.folder, out, "a test", home=tmp_path / "home")
    bundle = read_bundle(out)
    assert (bundle.task.positive, bundle.task.positive_id) == ("fraud", 0)
    tuned = finetune(bundle, path, path, tmp_path / "tuned", epochs=1.0)
    assert tuned.metric is not None
    assert tuned.constant is not None
    said_fraud, true_fraud = (tuned.metric.evidence[:, i] == 1 for i in (0, 1))
    assert true_fraud.sum() == 16  # class 1 of the evidence is the positive class
    assert tuned.metric.value == pytest.approx(f1_score(true_fraud, said_fraud, zero_division=0))
    assert tuned.constant.answer == "fraud"
    assert tuned.constant.value == pytest.approx(2 * 16 / (16 + 64))


def bundle_rows(bench: Any) -> list[Any]:
    """Return as many rows as the whole file has: one window each."""
    rows = [*bench.data.train.texts, *bench.data.dev.texts]
    assert len(rows) == 64
    return rows
