"""Where the rows of a task come from, and what is said when they are not there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farsearch.errors import BadInput, MissingResource
from farsearch.tasks import TASKS, Examples, TaskData, get_task
from farsearch.tasks.load import load_task

ROWS = "sentence\tlabel\ngood\t1\nbad\t0\n"

LOAD = """
import sys
from farsearch.errors import MissingResource
from farsearch.tasks.load import load_task
try:
    data = load_task(sys.argv[1])
except MissingResource as error:
    print("missing:", error)
else:
    print(data.source, data.train.texts, data.train.labels, data.dev.texts)
"""

FILL_CACHE = """
import sys
from pathlib import Path
import datasets
from datasets.arrow_writer import ArrowWriter

folder = Path(datasets.config.HF_DATASETS_CACHE, "nyu-mll___glue", "sst2", "0.0.0", "0" * 40)
folder.mkdir(parents=True)
features = datasets.Features(
    sentence=datasets.Value("string"), label=datasets.ClassLabel(names=["negative", "positive"])
)
splits = datasets.SplitDict(dataset_name="glue")
for split, sentences in (("train", ["good ", "bad "]), ("validation", ["fine "])):
    with ArrowWriter(path=str(folder / f"glue-{split}.arrow"), features=features) as writer:
        writer.write_batch({"sentence": sentences, "label": [1, 0][: len(sentences)]})
        rows, size = writer.finalize()
    splits.add(datasets.SplitInfo(split, num_bytes=size, num_examples=rows))
info = datasets.DatasetInfo(
    features=features, splits=splits, builder_name="parquet", dataset_name="glue", config_name="sst2", version="0.0.0"
)
info.write_to_directory(str(folder))
"""


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
    with pytest.raises(
        BadInput, match=r"'SST-2' is unknown; it must be one of cola, reviews, sst2; did you mean 'sst2'"
    ):
        get_task("SST-2")
    with pytest.raises(BadInput, match=r"'mnli' is unknown; it must be one of cola, reviews, sst2$"):
        get_task("mnli")


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
    assert load_task("reviews", tmp_path).train.texts == ("good", "bad")


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    """What was looked for is in the message, and what to do."""
    with pytest.raises(MissingResource, match=r"none' does not exist; pass --data-dir"):
        load_task("sst2", tmp_path / "none")
    with pytest.raises(MissingResource, match=r"no train\.tsv in the folder .* or its parent with SST-2 in it"):
        load_task("sst2", tmp_path)
    (tmp_path / "train.tsv").write_text(ROWS, encoding="utf-8")
    with pytest.raises(MissingResource, match=r"no dev\.tsv in the folder"):
        load_task("sst2", tmp_path)


def test_fingerprint_follows_the_rows_alone() -> None:
    """A changed text, label, order or part changes it; where the rows come from does not."""
    spec, a, b = TASKS["sst2"], Examples(("x", "y"), (0, 1)), Examples(("z",), (0,))
    base = TaskData(spec, a, b, "here").fingerprint
    assert len(base) == 64
    assert TaskData(spec, a, b, "there").fingerprint == base
    others = [
        (Examples(("x ", "y"), (0, 1)), b),
        (Examples(("x", "y"), (1, 1)), b),
        (Examples(("y", "x"), (1, 0)), b),
        (Examples(("x", "y", "z"), (0, 1, 0)), Examples((), ())),
        (b, a),
    ]
    prints = {TaskData(spec, train, dev, "here").fingerprint for train, dev in others}
    assert len(prints | {base}) == len(others) + 1


def test_take_gives_rows_in_the_order_asked_for() -> None:
    """Rows can be picked in any order."""
    assert Examples(("x", "y", "z"), (0, 1, 0)).take([2, 1]) == Examples(("z", "y"), (0, 1))


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
        {"HF_ENDPOINT": "http://127.0.0.1:9"},
    ],
    ids=["told to be offline", "nobody answers"],
)
@pytest.mark.parametrize("name", ["sst2", "cola"])
def test_an_unreachable_hub_is_one_line_within_seconds(tmp_path: Path, name: str, environment: dict[str, str]) -> None:
    """Without cache and hub, one line says so and what to pass; nothing else is printed, and nobody waits."""
    begin = time.monotonic()
    done = run(LOAD, tmp_path, name, **environment)
    assert time.monotonic() - begin < 30, "the import and 5 s of waiting at most, on a slow machine"
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"missing: the data of task {name!r} can't be loaded from the hub: ")
    assert "pass --data-dir FOLDER" in line


def test_the_cache_serves_without_a_hub(tmp_path: Path) -> None:
    """What an earlier download left in the cache of datasets is read with nobody answering."""
    filled = run(FILL_CACHE, tmp_path, HF_HUB_OFFLINE="1")
    assert filled.returncode == 0, filled.stderr
    done = run(LOAD, tmp_path, "sst2", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stdout == "hub glue/sst2 ('good ', 'bad ') (1, 0) ('fine ',)\n"
    assert done.stderr == ""


def test_importing_tasks_loads_no_vendor(tmp_path: Path) -> None:
    """The command line can name tasks and read files without waiting for datasets, evaluate or torch."""
    code = (
        "import sys, farsearch.tasks, farsearch.tasks.load, farsearch.tasks.split, farsearch.tasks.encode\n"
        "print(sorted({'datasets', 'evaluate', 'torch', 'transformers', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    assert run(code, tmp_path).stdout == "[]\n"
