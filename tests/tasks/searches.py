"""A search of three trials on the files of any task, and its rows as a user's file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farsearch.records import StudySnapshot
from farsearch.resolve import resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.search import Search
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from farsearch.training import Bench
from tests.beds import Notes
from tests.journey import SPACE

__all__ = ["Searched", "search_task", "write_user_rows"]


@dataclass
class Searched:
    """A finished search."""

    bench: Bench
    search: Search
    snapshot: StudySnapshot


def search_task(folder: Path, model: Path, trials: int = 3, device: str = "jetson-nano", **options: Any) -> Searched:
    """Run a few trials, the first of them prescribed, with ``folder`` as the working directory."""
    (folder / "tiny.yaml").write_text(SPACE.replace("epochs: 3.0", "epochs: 1.0"), encoding="utf-8")
    store = Store(folder / ".farsearch")
    job = resolve_job(
        SearchSpec(device=device, model=str(model), space="tiny.yaml", batch_size=8, **options), store, print
    )
    bench = job.bench(store)
    study = store.open("s", job.settings, job.meta)
    search = Search(study, store, bench, job.pricer(bench), job.space, "random", "balanced", Notes())
    search.run(trials)
    return Searched(bench, search, snapshot_of(study))


def write_user_rows(folder: Path, bench: Bench, part: str) -> Path:
    """Write a user's file: JSON lines with the names of the task's columns."""
    spec, examples = bench.data.spec, getattr(bench.data, part)
    path = folder / f"{part}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for texts, answer in zip(examples.texts, examples.answers, strict=True):
            row = dict(zip(spec.texts, texts, strict=True))
            if spec.kind == "question-answering":
                row[spec.label] = {"text": [text for text, _ in answer], "answer_start": [at for _, at in answer]}
            else:
                row[spec.label] = answer
            file.write(json.dumps(row) + "\n")
    return path
