"""A job with a tiny model for baselines and verifications, and a watcher of their trainings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farsearch.cost.pricer import Pricer
from farsearch.records import AnyTrial, Cost, StudySnapshot
from farsearch.resolve import Job, resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.search import Search
from farsearch.study.store import Store
from farsearch.training import Bench
from tests.journey import chdir, prepare

__all__ = ["Bed", "Notes", "make_bed"]


@dataclass
class Notes:
    """A watcher that records its calls, and can interrupt."""

    interrupt_at: int | None = None
    started: list[str] = field(default_factory=list)
    ended: list[AnyTrial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: int = 0

    def training_started(self, title: str, number: int, total: int, cost: Cost) -> None:
        """Record the title."""
        self.started.append(title)

    def step(self, step: int, steps: int, loss: float) -> None:
        """Count, and interrupt at ``interrupt_at``."""
        self.steps += 1
        if self.steps == self.interrupt_at:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        """Record the note."""
        self.notes.append(text)

    def training_ended(self, record: AnyTrial, sibling: StudySnapshot) -> None:
        """Record the trial."""
        self.ended.append(record)

    def trial_started(self, *_: Any) -> None:
        """Ignore trials of a search."""

    def trial_ended(self, *_: Any) -> None:
        """Ignore trials of a search."""


@dataclass
class Bed:
    """A job with its model loaded, for any number of studies."""

    job: Job
    bench: Bench
    pricer: Pricer

    def search(self, home: Path, name: str = "s", pricer: Pricer | None = None, **settings: Any) -> Search:
        """Return the search of a new study."""
        store = Store(home)
        study = store.open(name, dataclasses.replace(self.job.settings, **settings), self.job.meta)
        goal = self.job.settings.plan
        return Search(study, store, self.bench, pricer or self.pricer, self.job.space, "random", goal, Notes())


@contextmanager
def make_bed(folder: Path, model: Path, rows: int = 48) -> Iterator[Bed]:
    """Yield a bed on the tiny task with batches of 16, so three steps for 48 rows. The block runs in ``folder``."""
    prepare(folder)
    with chdir(folder):
        store = Store(folder / ".farsearch")
        options = SearchSpec(
            task="sst2",
            device="jetson-nano",
            model=str(model),
            space="tiny.yaml",
            data_dir=folder / "data",
            train_samples=rows,
            batch_size=16,
            epochs=1.0,
            max_length=16,
        )
        job = resolve_job(options, store, print)
        bench = job.bench(store)
        yield Bed(job, bench, job.pricer(bench))
