"""``farsearch worker``: joins a search that another process started, on this host or another."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farsearch.cli.attach import here_options, join_search
from farsearch.cli.options import AboveZero, heartbeat_option, open_store, storage_option, study_argument, typed_command
from farsearch.cli.terminal import make_console
from farsearch.signals import when_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from farsearch.cost.pricer import Cost
    from farsearch.records import FarConfig, StudySnapshot, TrialRecord
    from farsearch.study.store import Store

__all__ = ["COMMANDS", "Reports"]

_STEPS_S = 0.25
"""Between two reports of training steps."""


@click.command()
@study_argument
@here_options
@click.option("--timeout", type=AboveZero(), metavar="S", help="Start no trial after so many seconds.")
@storage_option
@click.option("--tracking-uri", metavar="URI", envvar="FARSEARCH_TRACKING_URI",
              help="MLflow's server, http://..., to mirror the study in.  [default: others mirror it]")  # fmt: skip
@heartbeat_option
@click.option("--for-run", is_flag=True, hidden=True,
              help="Started by run --workers: says on stdout what it does, and ends when stdin does.")  # fmt: skip
def worker(
    study: str | None,
    data_dir: Path | None,
    model: str | None,
    device: str | None,
    timeout: float | None,
    storage: str | None,
    tracking_uri: str | None,
    heartbeat: int | None,
    for_run: bool,
) -> None:
    """Join a study that runs, from this host or another, until it has all its trials.

    What the study trains is in its storage; data and model must be on this host too, and the same. Ctrl-C ends the
    worker and leaves its trial to the others. Any number of workers may come and go.

    \b
    Examples:
      farsearch worker demo
      farsearch worker sst2-minilm-jetson-nano-default --storage postgresql://me@server/studies
      farsearch worker demo --storage postgresql://me@server/studies --tracking-uri http://server:5000
      farsearch worker team --storage postgresql://me@server/studies --data-dir glue/SST-2 --model models/minilm
    """
    if for_run:
        reports = Reports()
        store = open_store(storage, heartbeat, reports.note)
        _work_for_run(store, study, timeout, reports, data_dir=data_dir, model=model, device=device)
    else:
        console = make_console(stderr=True)
        store = open_store(storage, heartbeat, console.print)
        _work(console, store, study, timeout, tracking_uri, data_dir=data_dir, model=model, device=device)


COMMANDS = (worker,)


def _work_for_run(store: Store, name: str | None, timeout: float | None, reports: Reports, **here: Any) -> None:
    """Work as a process of ``run --workers``, which hears of everything from ``reports``."""
    from farsearch.study.store import StorageAway

    _end_with_parent()
    store.reached = True  # by the run, a moment ago: the address is right
    try:
        # of data and model the run has said it all
        search, _ = join_search(store, name, reports, lambda _: None, **here)
        search.run(timeout_s=timeout)
    except StorageAway:
        reports.away()
        raise


def _work(
    console: Console, store: Store, name: str | None, timeout: float | None, tracking_uri: str | None, **here: Any
) -> None:
    """A worker that a user started: shows what it does, and mirrors the study where it is told to."""
    from farsearch.cli.mirror import open_mirror
    from farsearch.cli.progress import SearchProgress
    from farsearch.study.snapshot import snapshot_of

    mirror = None if tracking_uri is None else open_mirror(console, store, tracking_uri)
    study = store.load(name)
    before = store.ask(lambda: snapshot_of(study))
    console.print(f"worker of study {before.name} in {store.where}")
    with SearchProgress(console, before.n_trials, before.metric_name, mirror or _nowhere) as progress:
        progress.already(before)
        with when_interrupted(f"interrupted; other workers go on. To join again:\n  {typed_command()}"):
            search, _ = join_search(store, before.name, progress, **here)
            snapshot = search.run(timeout_s=timeout)
    warning = None if mirror is None else mirror.last(snapshot)
    if warning is not None:
        console.print(warning)
    console.print(f"study {snapshot.name} has {len(snapshot.complete)} trained trials")


def _nowhere(_: StudySnapshot) -> None:
    """The mirror of a worker that has none."""


class Reports:
    """A watcher that tells the process that started this one, a line of JSON each on stdout."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or _write_line
        self._number: int | None = None
        self._stepped = -math.inf

    def _report(self, event: str, **values: Any) -> None:
        self._write(json.dumps({"event": event, **values}))

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """A trial begins."""
        from farsearch.cli.progress import trial_title

        self._number = number
        self._report("began", number=number, text=trial_title(number, config, cost))

    def step(self, step: int, steps: int, loss: float) -> None:
        """A training step is done, which a reader need not know of each."""
        now = time.monotonic()
        if now - self._stepped > _STEPS_S:
            self._stepped = now
            self._report("stepped", number=self._number, text=f"step {step}/{steps}, loss {loss:.3f}")

    def note(self, text: str) -> None:
        """Something took time or went another way."""
        self._report("note", text=text)

    def away(self) -> None:
        """The storage did not answer for so long that this process gives up."""
        self._report("away")

    def trial_ended(self, record: TrialRecord, snapshot: StudySnapshot) -> None:
        """A trial is told."""
        self._report("told", number=record.number)


def _write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """Give back the trial and end when the process that holds the other end of stdin is gone, however it went."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
