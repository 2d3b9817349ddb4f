"""Where the rows of a task come from, and what is said when they are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from farsearch.errors import BadInput, MissingResource
from farsearch.far.board.task import Task
from farsearch.tasks import TASKS, Examples, TaskData, TaskSpec, get_task
from farsearch.tasks.load import load_task
from tests.tasks.layouts import GLUE, TABLES, examples_of, write_task

ROWS = "sentence\tlabel\ngood\t1\nbad\t0\n"

LOAD = """
import sys
from farsearch.errors import DataError, MissingResource
from farsearch.tasks import TASKS
from farsearch.tasks.from_hub import load_from_hub
from farsearch.tasks.load import load_task
from farsearch.tasks.official import OFFICIAL
for name in sys.argv[1:]:
    try:
        if name not in TASKS:  # what the hub has in the place of QNLI
            load_from_hub(OFFICIAL["qnli"], ("mine/" + name, name))
        data = load_task(name)
    except (DataError, MissingResource) as error:
        print("missing:" if isinstance(error, MissingResource) else "wrong:", error)
    else:
        print(data.source, *(f"{part.texts} {part.answers}" for part in (data.train, data.dev)), data.more_dev)
"""

FILL_CACHE = """
import json, sys
from pathlib import Path
import datasets
from datasets import ClassLabel, Value
from datasets.arrow_writer import ArrowWriter

# what the hub has of each data set in sys.argv[1], as its own builder would have cached it
kinds = {"text": Value("string"), "score": Value("float32"), "answers": {"text": datasets.List(Value("string")),
         "answer_start": datasets.List(Value("int32"))}}
for given in json.loads(sys.argv[1]):
    name, configuration = given["hub"]
    owner, short = name.split("/")
    folder = Path(datasets.config.HF_DATASETS_CACHE, f"{owner}___{short}", configuration, "0.0.0", "0" * 40)
    folder.mkdir(parents=True)
    features = datasets.Features({
        column: ClassLabel(names=kind) if isinstance(kind, list) else kinds[kind]
        for column, kind in given["columns"].items()
    })
    splits = datasets.SplitDict(dataset_name=short)
    for split, rows in given["splits"].items():
        with ArrowWriter(path=str(folder / f"{short}-{split}.arrow"), features=features) as writer:
            writer.write_batch({column: [row[i] for row in rows] for i, column in enumerate(features)})
            count, size = writer.finalize()
        splits.add(datasets.SplitInfo(split, num_bytes=size, num_examples=count))
    info = datasets.DatasetInfo(
        features=features, splits=splits, builder_name="parquet", dataset_name=short, config_name=configuration,
        version="0.0.0",
    )
    info.write_to_directory(str(folder))
"""

ENTAILMENT = ["entailment", "not_entailment"]
ANSWERS = {"text": ["Anna", "Anna Lee"], "answer_start": [0, 0]}
HUB: dict[str, dict[str, Any]] = {
    "sst2": {
        "hub": ("nyu-mll/glue", "sst2"),
        "columns": {"sentence": "text", "label": ["negative", "positive"]},
        "splits": {"train": [["good ", 1], ["bad ", 0]], "validation": [["fine ", 1]]},
    },
    "stsb": {
        "hub": ("nyu-mll/glue", "stsb"),
        "columns": {"sentence1": "text", "sentence2": "text", "label": "score"},
        "splits": {"train": [["a", "b", 3.8], ["c", "d", 0]], "validation": [["e", "f", 5]]},
    },
    "qqp": {
        "hub": ("nyu-mll/glue", "qqp"),
        "columns": {"question1": "text", "question2": "text", "label": ["not_duplicate", "duplicate"]},
        "splits": {"train": [["a", "b", 1], ["c", "", 0]], "validation": [["e", "f", 0]]},
    },
    "mnli": {
        "hub": ("nyu-mll/glue", "mnli"),
        "columns": {"premise": "text", "hypothesis": "text", "label": ["entailment", "neutral", "contradiction"]},
        "splits": {
            "train": [["a", "b", 2], ["c", "d", 0]],
            "validation_matched": [["e", "f", 1]],
            "validation_mismatched": [["g", "h", 0]],
        },
    },
    "qnli": {
        "hub": ("nyu-mll/glue", "qnli"),
        "columns": {"question": "text", "sentence": "text", "label": ENTAILMENT},
        "splits": {"train": [["a?", "b", 1]], "validation": [["c?", "d", 0]]},
    },
    "squad": {
        "hub": ("rajpurkar/squad", "plain_text"),
        "columns": {"id": "text", "title": "text", "context": "text", "question": "text", "answers": "answers"},
        "splits": {
            "train": [["1", "A", "Anna Lee came.", "who?", ANSWERS]],
            "validation": [["2", "A", "Anna Lee came.", "who came?", ANSWERS]],
        },
    },
    "squad_v2": {
        "hub": ("rajpurkar/squad_v2", "squad_v2"),
        "columns": {"id": "text", "title": "text", "context": "text", "question": "text", "answers": "answers"},
        "splits": {
            "train": [["1", "A", "Anna came.", "where?", {"text": [], "answer_start": []}]],
            "validation": [["2", "A", "Anna Lee came.", "who?", ANSWERS]],
        },
    },
}
"""Rows as the hub has them, with its names of columns and of splits."""

READ: dict[str, str] = {
    "sst2": "hub glue/sst2 (('good ',), ('bad ',)) (1, 0) (('fine ',),) (1,) {}",
    "stsb": "hub glue/stsb (('a', 'b'), ('c', 'd')) (3.8, 0.0) (('e', 'f'),) (5.0,) {}",
    "qqp": "hub glue/qqp, 1 broken row left out (('a', 'b'),) (1,) (('e', 'f'),) (0,) {}",
    "mnli": "hub glue/mnli (('a', 'b'), ('c', 'd')) (2, 0) (('e', 'f'),) (1,) "
    "{'mismatched': Examples(texts=(('g', 'h'),), answers=(0,))}",
    "qnli": "hub glue/qnli (('a?', 'b'),) (1,) (('c?', 'd'),) (0,) {}",
    "squad": "hub squad (('who?', 'Anna Lee came.'),) ((('Anna', 0), ('Anna Lee', 0)),) "
    "(('who came?', 'Anna Lee came.'),) ((('Anna', 0), ('Anna Lee', 0)),) {}",
    "squad_v2": "hub squad_v2 (('where?', 'Anna came.'),) ((),) "
    "(('who?', 'Anna Lee came.'),) ((('Anna', 0), ('Anna Lee', 0)),) {}",
}
"""What is read of them."""


def run(code: str, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh process, with the vendors' caches under ``home``."""
    dropped = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_DATASETS_CACHE", "HF_HUB_CACHE")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**kept, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_an_unknown_task_is_answered_with_the_known_ones() -> None:
    """The message names the value, the tasks, and the closest of them."""
    known = "cola, mnli, mrpc, qnli, qqp, reviews, rte, squad, squad_v2, sst2, stsb, wnli"
    with pytest.raises(BadInput, match=f"'SST-2' is unknown; it must be one of {known}; did you mean 'sst2'"):
        get_task("SST-2")
    with pytest.raises(BadInput, match=f"'xyz' is unknown; it must be one of {known}$"):
        get_task("xyz")


def test_the_parent_folder_will_do(tmp_path: Path) -> None:
    """``--data-dir`` takes the task's folder, or the one of the GLUE download above it."""
    (tmp_path / "SST-2").mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "SST-2" / name).write_text(ROWS, encoding="utf-8")
    above, inside = load_task("sst2", tmp_path), load_task("sst2", tmp_path / "SST-2")
    assert above == inside
    assert above.source == "files in SST-2"


def test_reviews_can_be_replaced_by_a_folder(tmp_path: Path) -> None:
    """A folder of the user's own rows works for the task that has no GLUE folder."""
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text(ROWS, encoding="utf-8")
    assert load_task("reviews", tmp_path).train.texts == (("good",), ("bad",))


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    """What was looked for is in the message, and what to do."""
    with pytest.raises(MissingResource, match=r"none' does not exist; pass --data-dir"):
        load_task("sst2", tmp_path / "none")
    with pytest.raises(MissingResource, match=r"no train\.tsv in the folder .* or its parent with SST-2 in it"):
        load_task("sst2", tmp_path)
    (tmp_path / "train.tsv").write_text(ROWS, encoding="utf-8")
    with pytest.raises(MissingResource, match=r"no dev\.tsv in the folder"):
        load_task("sst2", tmp_path)


@pytest.mark.parametrize(
    ("name", "missing", "needs"),
    [
        (
            "mnli",
            "dev_mismatched.tsv",
            "train.tsv, dev_matched.tsv and dev_mismatched.tsv: pass --data-dir the folder ",
        ),
        (
            "mrpc",
            "train.tsv",
            "train.tsv and dev.tsv: pass --data-dir the folder that holds both, or its parent with M",
        ),
        ("squad", "dev-v1.1.json", "train-v1.1.json and dev-v1.1.json: pass --data-dir the folder that holds both"),
    ],
)
def test_the_files_that_a_task_needs_are_named(tmp_path: Path, name: str, missing: str, needs: str) -> None:
    """The message says which file is not there, and all that there should be."""
    folder = write_task(tmp_path, name, 9)
    (folder / missing).unlink()
    with pytest.raises(MissingResource) as caught:
        load_task(name, folder)
    assert f"no {missing} in the folder " in str(caught.value)
    assert f"task {name!r} needs {needs}" in str(caught.value)


@pytest.mark.parametrize("name", GLUE)
def test_the_folder_of_the_download_holds_every_task(tmp_path: Path, name: str) -> None:
    """``--data-dir`` of the whole GLUE download serves each of its tasks."""
    for each in GLUE:
        write_task(tmp_path, each, 9)
    data = load_task(name, tmp_path)
    assert data.train == examples_of(name, "train", 9)
    assert data.source.startswith(f"files in {TABLES[name][0]}")


def test_fingerprint_follows_the_rows_alone() -> None:
    """A changed text, label, order or part changes it; where the rows come from does not."""
    spec, a, b = TASKS["sst2"], Examples((("x",), ("y",)), (0, 1)), Examples((("z",),), (0,))
    base = TaskData(spec, a, b, "here").fingerprint
    assert len(base) == 64
    assert TaskData(spec, a, b, "there").fingerprint == base
    others = [
        (Examples((("x ",), ("y",)), (0, 1)), b),
        (Examples((("x",), ("y",)), (1, 1)), b),
        (Examples((("x",), ("y",)), (0.5, 1)), b),
        (Examples((("y",), ("x",)), (1, 0)), b),
        (Examples((("x", "y"), ("y", "x")), (0, 1)), b),
        (Examples((("x",), ("y",), ("z",)), (0, 1, 0)), Examples((), ())),
        (b, a),
    ]
    prints = {TaskData(spec, train, dev, "here").fingerprint for train, dev in others}
    prints |= {TaskData(spec, a, b, "here", {name: part}).fingerprint for name in ("c", "d") for part in (a, b)}
    assert len(prints | {base}) == len(others) + 5


def test_take_gives_rows_in_the_order_asked_for() -> None:
    """Rows can be picked in any order."""
    assert Examples((("x",), ("y",), ("z",)), (0, 1, 0)).take([2, 1]) == Examples((("z",), ("y",)), (0, 1))


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
    ],
    ids=["told to be offline", "nobody answers"],
)
@pytest.mark.parametrize("name", ["mnli", "squad_v2"])
def test_an_unreachable_hub_is_one_line_within_seconds(tmp_path: Path, name: str, environment: dict[str, str]) -> None:
    """Without cache and hub, one line says so and what to pass; nothing else is printed, and nobody waits."""
    begin = time.monotonic()
    done = run(LOAD, tmp_path, name, **environment)
    assert time.monotonic() - begin < 30, "the import and 5 s of waiting at most, on a slow machine"
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"missing: the data of task {name!r} can't be loaded from the hub: ")
    files = {
        "sst2": "train.tsv and dev.tsv",
        "mnli": "train.tsv, dev_matched.tsv and dev_mis",
        "squad_v2": "train-v2.0",
    }
    assert f"pass --data-dir FOLDER with {files[name]}" in line


CHANGED: dict[str, dict[str, Any]] = {
    "turned": {"question": "text", "sentence": "text", "label": ENTAILMENT[::-1]},
    "renamed": {"question": "text", "answer": "text", "label": ENTAILMENT},
}
"""Columns that QNLI might have on the hub one day."""


@pytest.fixture(scope="module")
def from_cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each data set where nobody answers and the cache of datasets has all of them."""
    home = tmp_path_factory.mktemp("home")
    changed = [{**HUB["qnli"], "hub": (f"mine/{name}", name), "columns": columns} for name, columns in CHANGED.items()]
    filled = run(FILL_CACHE, home, json.dumps([*HUB.values(), *changed]), HF_HUB_OFFLINE="1")
    assert filled.returncode == 0, filled.stderr
    done = run(LOAD, home, *HUB, *CHANGED, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stderr == ""
    return dict(zip((*HUB, *CHANGED), done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("name", list(HUB))
def test_the_cache_serves_without_a_hub(from_cache: dict[str, str], name: str) -> None:
    """What an earlier download left in the cache of datasets is read with nobody answering, in the hub's columns."""
    assert from_cache[name] == READ[name]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("turned", "has the classes not_entailment, entailment; they must be entailment, not_entailment"),
        ("renamed", "has no column 'sentence' any more"),
    ],
)
def test_a_set_that_changed_on_the_hub_is_refused(from_cache: dict[str, str], name: str, problem: str) -> None:
    """Classes in another order would turn every label into another one, so their names are compared."""
    assert from_cache[name].startswith(f"wrong: the data of task 'qnli' on the hub {problem}; pass --data-dir FOLDER")


def test_the_hub_names_every_official_task() -> None:
    """Each official task says where the hub has it, and under which names of splits."""
    sets = {name: spec.hub for name, spec in TASKS.items() if spec.hub is not None}
    assert sets == {name: ("nyu-mll/glue", name) for name in GLUE} | {
        "squad": ("rajpurkar/squad", "plain_text"),
        "squad_v2": ("rajpurkar/squad_v2", "squad_v2"),
    }


@pytest.mark.parametrize("spec", TASKS.values(), ids=list(TASKS))
def test_a_task_survives_its_round_trip(spec: TaskSpec) -> None:
    """Studies and bundles carry a task: it is the same after JSON, and what a board gets of it too."""
    assert TaskSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert Task.from_dict(json.loads(json.dumps(spec.task.to_dict()))) == spec.task


def test_an_unknown_key_of_a_task_is_refused() -> None:
    """A misspelt key, a missing one and a kind that there is not are named."""
    good = TASKS["sst2"].to_dict()
    with pytest.raises(BadInput, match="unknown key 'metrics'"):
        TaskSpec.from_dict({**good, "metrics": "f1"})
    with pytest.raises(BadInput, match="lacks the key 'metric'"):
        TaskSpec.from_dict({key: value for key, value in good.items() if key != "metric"})
    with pytest.raises(BadInput, match=r"\.kind is 'ranking'; it must be one of 'classification', "):
        TaskSpec.from_dict({**good, "kind": "ranking"})


def test_importing_tasks_loads_no_vendor(tmp_path: Path) -> None:
    """The command line can name tasks and read files without waiting for datasets, evaluate or torch."""
    code = (
        "import sys, farsearch.tasks, farsearch.tasks.load, farsearch.tasks.split\n"
        "print(sorted({'datasets', 'evaluate', 'torch', 'transformers', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    assert run(code, tmp_path).stdout == "[]\n"
