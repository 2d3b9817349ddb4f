"""Rows of the official tasks from the hub, from the cache of a download, and without either."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, List, Value

from tests.hub.dataset_files import Split, repository_files
from tests.hub.server import Hub

LOAD = """
import sys
from farsearch.errors import DataError, MissingResource
from farsearch.tasks.load import load_task
for name in sys.argv[1:]:
    try:
        data = load_task(name)
    except (DataError, MissingResource) as error:
        print("missing:" if isinstance(error, MissingResource) else "wrong:", error)
    else:
        print(data.source, *(f"{part.texts} {part.answers}" for part in (data.train, data.dev)), data.more_dev)
"""

TEXT = Value("string")
ENTAILMENT = ClassLabel(names=["entailment", "not_entailment"])
SQUAD = {
    **dict.fromkeys(("id", "title", "context", "question"), TEXT),
    "answers": {"text": List(TEXT), "answer_start": List(Value("int32"))},
}
ANSWERS = {"text": ["Anna", "Anna Lee"], "answer_start": [0, 0]}
FEATURES: dict[str, dict[str, Any]] = {
    "sst2": {"sentence": TEXT, "label": ClassLabel(names=["negative", "positive"])},
    "stsb": {"sentence1": TEXT, "sentence2": TEXT, "label": Value("float32")},
    "qqp": {"question1": TEXT, "question2": TEXT, "label": ClassLabel(names=["not_duplicate", "duplicate"])},
    "mnli": {
        "premise": TEXT,
        "hypothesis": TEXT,
        "label": ClassLabel(names=["entailment", "neutral", "contradiction"]),
    },
    "qnli": {"question": TEXT, "sentence": TEXT, "label": ENTAILMENT},
    "rte": {"sentence1": TEXT, "sentence2": TEXT, "label": ClassLabel(names=ENTAILMENT.names[::-1])},
    "wnli": {"sentence1": TEXT, "answer": TEXT, "label": ClassLabel(names=ENTAILMENT.names[::-1])},
    "plain_text": SQUAD,
    "squad_v2": SQUAD,
}
"""Columns of each configuration. RTE's classes and a column of WNLI are not those that the tasks have."""

ROWS: dict[str, dict[str, list[list[Any]]]] = {
    "sst2": {"train": [["good ", 1], ["bad ", 0]], "validation": [["fine ", 1]]},
    "stsb": {"train": [["a", "b", 3.8], ["c", "d", 0]], "validation": [["e", "f", 5]]},
    "qqp": {"train": [["a", "b", 1], ["c", "", 0], ["c", "d", 0]], "validation": [["e", "f", 0]]},
    "mnli": {
        "train": [["a", "b", 2], ["c", "d", 0], ["i", "j", 1]],
        "validation_matched": [["e", "f", 1]],
        "validation_mismatched": [["g", "h", 0]],
    },
    "qnli": {"train": [["a?", "b", 1], ["b?", "c", 1]], "validation": [["c?", "d", 0]]},
    "rte": {"train": [["a", "b", 1], ["c", "d", 0]], "validation": [["e", "f", 0]]},
    "wnli": {"train": [["a", "b", 1], ["c", "d", 0]], "validation": [["e", "f", 0]]},
    "plain_text": {
        "train": [["1", "A", "Anna Lee came.", "who?", ANSWERS]],
        "validation": [["2", "A", "Anna Lee came.", "who came?", ANSWERS]],
    },
    "squad_v2": {
        "train": [["1", "A", "Anna came.", "where?", {"text": [], "answer_start": []}]],
        "validation": [["2", "A", "Anna Lee came.", "who?", ANSWERS]],
    },
}
"""Rows as the hub has them, with its names of splits."""

READ: dict[str, str] = {
    "sst2": "hub glue/sst2 (('good ',), ('bad ',)) (1, 0) (('fine ',),) (1,) {}",
    "stsb": "hub glue/stsb (('a', 'b'), ('c', 'd')) (3.8, 0.0) (('e', 'f'),) (5.0,) {}",
    "qqp": "hub glue/qqp, 1 broken row left out (('a', 'b'), ('c', 'd')) (1, 0) (('e', 'f'),) (0,) {}",
    "mnli": "hub glue/mnli (('a', 'b'), ('c', 'd'), ('i', 'j')) (2, 0, 1) (('e', 'f'),) (1,) "
    "{'mismatched': Examples(texts=(('g', 'h'),), answers=(0,))}",
    "squad": "hub squad (('who?', 'Anna Lee came.'),) ((('Anna', 0), ('Anna Lee', 0)),) "
    "(('who came?', 'Anna Lee came.'),) ((('Anna', 0), ('Anna Lee', 0)),) {}",
    "squad_v2": "hub squad_v2 (('where?', 'Anna came.'),) ((),) "
    "(('who?', 'Anna Lee came.'),) ((('Anna', 0), ('Anna Lee', 0)),) {}",
}
"""What is read of them."""

REFUSED: dict[str, str] = {
    "qnli": "wrong: the data of task 'qnli' on the hub, split train, has no row of class 'entailment'; ",
    "rte": "wrong: the data of task 'rte' on the hub has the classes not_entailment, entailment; they must be "
    "entailment, not_entailment; pass `data_dir` FOLDER",
    "wnli": "wrong: the data of task 'wnli' on the hub has no column 'sentence2' any more; pass `data_dir` FOLDER",
}
"""What is said of sets that changed on the hub: classes in another order would turn every label into another one."""


def run(environment: dict[str, str], *names: str) -> subprocess.CompletedProcess[str]:
    """Load tasks in a separate process."""
    return subprocess.run(
        [sys.executable, "-c", LOAD, *names], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def split_of(configuration: str, rows: list[list[Any]]) -> Split:
    """Rows with the features of their configuration."""
    features = datasets.Features(FEATURES[configuration])
    return Split(features, {column: [row[i] for row in rows] for i, column in enumerate(features)})


@pytest.fixture(scope="module")
def small_hub() -> Iterator[Hub]:
    """A hub with ``ROWS`` only."""
    made = {name: {split: split_of(name, rows) for split, rows in splits.items()} for name, splits in ROWS.items()}
    squad, squad_v2 = made.pop("plain_text"), made.pop("squad_v2")
    sets = {
        "nyu-mll/glue": made,
        "rajpurkar/squad": {"plain_text": squad},
        "rajpurkar/squad_v2": {"squad_v2": squad_v2},
    }
    running = Hub({("datasets", name): repository_files(name, configurations) for name, configurations in sets.items()})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def loaded(small_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The rows of each task from the hub, and then without a network."""
    home = tmp_path_factory.mktemp("home")
    names = (*READ, *REFUSED)
    online = run(small_hub.environment(home), *names)
    with small_hub.stopped():
        offline = run(small_hub.environment(home), *names)
    assert offline.stderr == ""
    done = {"hub": online, "cache": offline}
    return {where: dict(zip(names, each.stdout.splitlines(), strict=True)) for where, each in done.items()}


@pytest.mark.parametrize("where", ["hub", "cache"])
@pytest.mark.parametrize("name", list(READ))
def test_rows_equal_those_of_the_hub(loaded: dict[str, dict[str, str]], name: str, where: str) -> None:
    """Also from the cache of the download, without a network."""
    assert loaded[where][name] == READ[name]


@pytest.mark.parametrize("where", ["hub", "cache"])
@pytest.mark.parametrize("name", list(REFUSED))
def test_a_changed_data_set_is_refused(loaded: dict[str, dict[str, str]], name: str, where: str) -> None:
    """Columns, classes and their order must be those of the task."""
    assert loaded[where][name].startswith(REFUSED[name])


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        {"HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"},
    ],
    ids=["told to be offline", "nobody answers"],
)
@pytest.mark.parametrize("name", ["mnli", "squad_v2"])
def test_an_unreachable_hub_gives_one_line_within_seconds(
    tmp_path: Path, name: str, environment: dict[str, str]
) -> None:
    """Without cache and hub, the line has the cause and the option to pass; nothing else is printed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    begin = time.monotonic()
    done = run({**kept, "HF_HOME": str(tmp_path), **environment}, name)
    assert time.monotonic() - begin < 30, "the import and 5 s of waiting at most, on a slow machine"
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith(
        f"missing: the dataset 'rajpurkar/{name}' can't be had: "
        if name == "squad_v2"
        else "missing: the dataset 'nyu-mll/glue'"
    )
    files = {"mnli": "train.tsv, dev_matched.tsv and dev_mis", "squad_v2": "train-v2.0"}
    assert f"pass `data_dir` FOLDER with {files[name]}" in line
