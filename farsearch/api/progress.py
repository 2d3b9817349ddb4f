"""Progress of a search on stderr: a live line on a terminal, plain lines in a pipe or a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from farsearch.formatting import human_memory, human_metric, human_time, mean_frozen
from farsearch.records import is_complete, on_front, reason_of

if TYPE_CHECKING:
    from farsearch.records import AnyTrial, CompleteTrial, Cost, FarConfig, StudySnapshot

__all__ = ["Callback", "Mirror", "Notes", "SearchProgress", "SiblingProgress", "trial_title"]


def _live_line(console: Console) -> Progress:
    """Return one line at the bottom of a terminal; it prints nothing elsewhere."""
    return Progress(
        SpinnerColumn(),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[study]}", markup=False),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[tail]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


Mirror = Callable[["StudySnapshot"], "str | None"]
"""Mirrors a study and returns a warning, or None."""

Callback = Callable[["AnyTrial", "StudySnapshot"], None]
"""Called with each trial that ends, and the study after it."""


def trial_title(number: int, config: FarConfig, cost: Cost) -> str:
    """Describe a trial in training in one line."""
    return (
        f"trial {number}: {mean_frozen(config):.0%} frozen, rate {config.learning_rate:.1e}, "
        f"{human_memory(cost.peak_memory_mib)}, {human_time(cost.wall_time_s)}"
    )


class SearchProgress:
    """Shows the progress of a search in this process, or in several worker processes.

    Args:
        n_trials: total number of finished trials after the search.
        metric: name of the task's metric.
        mirror: called with the snapshot after each trial.
        callbacks: called with each trial that ends.
    """

    def __init__(
        self, console: Console, n_trials: int, metric: str, mirror: Mirror, callbacks: Sequence[Callback] = ()
    ) -> None:
        self._console, self._total, self._metric, self._mirror = console, n_trials, metric, mirror
        self._callbacks = callbacks
        self._started = time.monotonic()
        self._ended_here = 0
        self._warning: str | None = None
        self._running: dict[int, tuple[str, str]] = {}
        self._progress = _live_line(console)
        self._task = self._progress.add_task("starting", total=n_trials, study="", tail="")

    def __enter__(self) -> SearchProgress:
        self._started = time.monotonic()
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def resumed(self, snapshot: StudySnapshot) -> None:
        """Report the trials that the study had when this run began."""
        self._show(snapshot)
        done = snapshot.finished
        if done:
            self._console.print(f"resuming study {snapshot.name}: {done} of {self._total} trials are done")

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """Report that a trial of this process begins."""
        self.started(number, trial_title(number, config, cost))

    def step(self, step: int, steps: int, loss: float) -> None:
        """Report a finished training step of this process's trial."""
        for number in self._running:
            self.stepped(number, f"step {step}/{steps}, loss {loss:.3f}")

    def note(self, text: str) -> None:
        """Print a note."""
        self._console.print(f"  {text}")

    def trial_ended(self, record: AnyTrial, snapshot: StudySnapshot) -> None:
        """Report a finished trial of this process."""
        self.finished([record.number], snapshot)

    def started(self, number: int, title: str) -> None:
        """Report that a worker trains this trial now."""
        self._running[number] = (title, "")
        if not self._console.is_terminal and not self._ended_here and len(self._running) == 1:
            self._console.print(f"training {title}")
        self._draw()

    def stepped(self, number: int, text: str) -> None:
        """Report the progress of a worker's trial."""
        if number in self._running:
            self._running[number] = (self._running[number][0], text)
            self._draw()

    def dropped(self, number: int) -> None:
        """Report that a worker no longer trains this trial, which did not end."""
        self._running.pop(number, None)
        self._draw()

    def finished(self, numbers: Sequence[int], snapshot: StudySnapshot) -> None:
        """Print one line for each trial that ended, call the callbacks and update the mirror."""
        records = {record.number: record for record in snapshot.trials if record.number in numbers}
        for number in numbers:
            self._ended_here += 1
            self._running.pop(number, None)
            self._console.print(self._line(records[number], snapshot))
            for callback in self._callbacks:
                callback(records[number], snapshot)
        self._show(snapshot)
        self._draw()
        warning = self._mirror(snapshot)
        if warning is not None and warning != self._warning:
            self._console.print(f"  {warning}")
        self._warning = warning

    def _draw(self) -> None:
        """Show the running trials in the live line: one in full, several in short."""
        if len(self._running) == 1:
            title, text = next(iter(self._running.values()))
        else:
            title = ""
            text = "; ".join(f"trial {number} {text.partition(',')[0]}" for number, (_, text) in self._running.items())
        self._progress.update(self._task, description=title, tail=text)

    def _show(self, snapshot: StudySnapshot) -> None:
        """Show the study as a whole in the live line."""
        best = max((trial.outcome.metric for trial in snapshot.complete), default=None)
        stopped = snapshot.finished - len(snapshot.complete)
        parts = [
            "" if best is None else f"best {human_metric(self._metric, best)}",
            f"stopped {stopped}" if stopped else "",
            f"rejected {sum(snapshot.rejected.values())}" if snapshot.rejected else "",
            f"about {human_time(self._left(snapshot))} left" if self._ended_here else "",
        ]
        text = ", ".join(part for part in parts if part)
        self._progress.update(self._task, completed=snapshot.finished, study=text)

    def _left(self, snapshot: StudySnapshot) -> float:
        """Return the seconds until the last trial, at the pace of this run."""
        spent = time.monotonic() - self._started
        return spent / self._ended_here * max(0, self._total - snapshot.finished)

    def _line(self, record: AnyTrial, snapshot: StudySnapshot) -> str:
        done = snapshot.finished
        head = f"[{done}/{self._total}] trial {record.number}"
        if not is_complete(record):
            return f"{head}  stopped: {reason_of(record)}"
        left = f"  (about {human_time(self._left(snapshot))} left)" if done < self._total else ""
        return (
            f"{head}  {_figures(self._metric, record)}{'  on the front' if on_front(record) else ''}"
            f"{'  did not learn' if record.outcome.learned is False else ''}{left}"
        )


class SiblingProgress:
    """Shows the progress of an auxiliary study: baselines, or a verification.

    Args:
        kind: title of the live line.
        mirror: called with the auxiliary study after each training.
    """

    def __init__(self, console: Console, kind: str, metric: str, mirror: Mirror) -> None:
        self._console, self._metric, self._mirror = console, metric, mirror
        self._progress = _live_line(console)
        self._task = self._progress.add_task("starting", total=None, study=kind, tail="")
        self._head = ""
        self._warning: str | None = None

    def __enter__(self) -> SiblingProgress:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def training_started(self, title: str, number: int, total: int, cost: Cost) -> None:
        """Report that a training begins."""
        self._head = f"[{number}/{total}] {title}"
        text = f"{self._head}, {human_memory(cost.peak_memory_mib)}, {human_time(cost.wall_time_s)}"
        self._progress.update(self._task, description=text, total=total, completed=number - 1, tail="")

    def step(self, step: int, steps: int, loss: float) -> None:
        """Report a finished training step."""
        self._progress.update(self._task, tail=f"step {step}/{steps}, loss {loss:.3f}")

    def note(self, text: str) -> None:
        """Print a note."""
        self._console.print(f"  {text}")

    def training_ended(self, record: AnyTrial, sibling: StudySnapshot) -> None:
        """Print one line for the training and update the mirror."""
        if is_complete(record):
            result = (
                f"{_figures(self._metric, record)}{'  (does not fit)' if record.cost.feasible is False else ''}"
                f"{'  did not learn' if record.outcome.learned is False else ''}"
            )
        else:
            result = f"stopped: {reason_of(record)}"
        self._console.print(f"{self._head}  {result}")
        warning = self._mirror(sibling)
        if warning is not None and warning != self._warning:
            self._console.print(f"  {warning}")
        self._warning = warning


class Notes:
    """Watches a search that trains no trial: prints its notes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """Do nothing."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Print a note."""
        self._console.print(text)

    def trial_ended(self, record: AnyTrial, snapshot: StudySnapshot) -> None:
        """Do nothing."""


def _figures(metric: str, trial: CompleteTrial) -> str:
    cost = f"{human_memory(trial.cost.peak_memory_mib)}  {human_time(trial.cost.wall_time_s)} on the device"
    return f"{human_metric(metric, trial.outcome.metric, trial.outcome.metric_error)}  {cost}"
