"""``worker``: joins a search that another process started, on this host or another."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farsearch.cli.options import (
    AboveZero,
    heartbeat_option,
    here_options,
    open_workspace,
    storage_option,
    study_argument,
    typed_command,
)
from farsearch.signals import terminate_self, when_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from farsearch.api.training import Here
    from farsearch.api.workspace import Workspace
    from farsearch.records import AnyTrial, Cost, FarConfig, StudySnapshot

__all__ = ["COMMANDS", "Reports"]

_STEPS_S = 0.25
"""Seconds between two reports of training steps."""


@click.command()
@study_argument
@here_options
@click.option("--timeout", type=AboveZero(), metavar="S", help="Start no trial after so many seconds.")
@storage_option
@click.option("--tracking-uri", metavar="URI", envvar="FARSEARCH_TRACKING_URI",
              help="MLflow's server, http://..., to mirror the study in.  [default: others mirror it]")  # fmt: skip
@heartbeat_option
@click.option("--for-run", is_flag=True, hidden=True,
              help="Started by run --workers: prints events on stdout, and ends when stdin does.")  # fmt: skip
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
    """Join a running study, from this host or another, until it has all its trials.

    The settings of the study are in its storage; the same data and model must be on this host too. Ctrl-C ends the
    worker and leaves its trial to the others. Any number of workers may join and leave.

    \b
    Examples:
      farsearch worker demo
      farsearch worker sst2-minilm-jetson-nano-default --storage postgresql://me@server/studies
      farsearch worker demo --storage postgresql://me@server/studies --tracking-uri http://server:5000
      farsearch worker team --storage postgresql://me@server/studies --data-dir glue/SST-2 --model models/minilm
    """
    if for_run:
        from farsearch.api.training import Here

        here = Here(data_dir, model, device)
        _work_for_run(open_workspace(storage, heartbeat_s=heartbeat), study, timeout, here)
        return
    workspace = open_workspace(storage, tracking_uri, heartbeat)
    opened = workspace.open_study(study, wait=True)
    click.echo(f"worker of study {opened.name} in {workspace.store().where}", err=True)
    with when_interrupted(f"interrupted; other workers continue. To join again:\n  {typed_command()}"):
        opened.resume(timeout_s=timeout, data_dir=data_dir, model=model, device=device)
    click.echo(f"study {opened.name} has {len(opened.snapshot.complete)} trained trials", err=True)


COMMANDS = (worker,)


def _work_for_run(workspace: Workspace, name: str | None, timeout: float | None, here: Here) -> None:
    """Work as a process of ``run --workers``, which gets events on stdout."""
    from farsearch.api.training import join_search
    from farsearch.study.store import StorageAway

    reports = Reports()
    store = workspace.store(reports.note)
    _end_with_parent()
    store.reached = True  # by the run, a moment ago: the address is right
    try:
        # the run has reported on data and model
        search, _ = join_search(store, name, reports, here, lambda _: None)
        search.run(timeout_s=timeout)
    except StorageAway:
        reports.away()
        raise


class Reports:
    """Reports events to the process that started this one: lines of JSON on stdout."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or _write_line
        self._number: int | None = None
        self._stepped = -math.inf

    def _report(self, event: str, **values: Any) -> None:
        self._write(json.dumps({"event": event, **values}))

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """Report that a trial begins."""
        from farsearch.api.progress import trial_title

        self._number = number
        self._report("started", number=number, text=trial_title(number, config, cost))

    def step(self, step: int, steps: int, loss: float) -> None:
        """Report training steps, at most four a second."""
        now = time.monotonic()
        if now - self._stepped > _STEPS_S:
            self._stepped = now
            self._report("stepped", number=self._number, text=f"step {step}/{steps}, loss {loss:.3f}")

    def note(self, text: str) -> None:
        """Report a note."""
        self._report("note", text=text)

    def away(self) -> None:
        """Report that this process gives up waiting for the storage."""
        self._report("away")

    def trial_ended(self, record: AnyTrial, snapshot: StudySnapshot) -> None:
        """Report a finished trial."""
        self._report("finished", number=record.number)


def _write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """Return the trial to the queue and end when the process at the other end of stdin ends."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        terminate_self()

    threading.Thread(target=watch, name="parent", daemon=True).start()
