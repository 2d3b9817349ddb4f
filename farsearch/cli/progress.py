"""What a search shows while it goes on: a live line on a terminal, plain lines in a pipe; all on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from farsearch.formatting import human_memory, human_metric, human_time, mean_frozen

if TYPE_CHECKING:
    from farsearch.cost.pricer import Cost
    from farsearch.records import FarConfig, StudySnapshot, TrialRecord

__all__ = ["Mirror", "SearchProgress", "SiblingProgress", "trial_title"]


def _live_line(console: Console) -> Progress:
    """One line at the bottom of a terminal; nothing in a pipe."""
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
"""Mirrors a study; what it returns, if anything, is shown as a warning."""


def trial_title(number: int, config: FarConfig, cost: Cost) -> str:
    """A trial in work, in one line."""
    return (
        f"trial {number}: {mean_frozen(config):.0%} frozen, rate {config.learning_rate:.1e}, "
        f"{human_memory(cost.peak_memory_mib)}, {human_time(cost.wall_time_s)}"
    )


class SearchProgress:
    """Watches a search: that of this process, or those of several worker processes.

    Args:
        n_trials: finished trials that the study is to have.
        metric: name of the task's metric.
        mirror: called with the snapshot after each trial.
    """

    def __init__(self, console: Console, n_trials: int, metric: str, mirror: Mirror) -> None:
        self._console, self._total, self._metric, self._mirror = console, n_trials, metric, mirror
        self._started = time.monotonic()
        self._ended_here = 0
        self._warning: str | None = None
        self._works: dict[int, tuple[str, str]] = {}
        self._progress = _live_line(console)
        self._task = self._progress.add_task("starting", total=n_trials, study="", tail="")

    def __enter__(self) -> SearchProgress:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def already(self, snapshot: StudySnapshot) -> None:
        """The study had finished trials when this run began."""
        self._show(snapshot)
        done = _finished(snapshot)
        if done:
            self._console.print(f"going on with study {snapshot.name}: {done} of {self._total} trials are done")

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """A trial begins."""
        self.began(number, trial_title(number, config, cost))

    def step(self, step: int, steps: int, loss: float) -> None:
        """A training step of this process's trial is done."""
        for number in self._works:
            self.stepped(number, f"step {step}/{steps}, loss {loss:.3f}")

    def note(self, text: str) -> None:
        """Something took time or went another way."""
        self._console.print(f"  {text}")

    def trial_ended(self, record: TrialRecord, snapshot: StudySnapshot) -> None:
        """A trial of this process is told."""
        self.told([record.number], snapshot)

    def began(self, number: int, title: str) -> None:
        """A worker trains this trial now."""
        self._works[number] = (title, "")
        self._draw()

    def stepped(self, number: int, text: str) -> None:
        """How far a worker's trial is."""
        if number in self._works:
            self._works[number] = (self._works[number][0], text)
            self._draw()

    def dropped(self, number: int) -> None:
        """A trial is not in work any more, and did not end."""
        self._works.pop(number, None)
        self._draw()

    def told(self, numbers: Sequence[int], snapshot: StudySnapshot) -> None:
        """Trials ended: one line each, and the mirror."""
        records = {record.number: record for record in snapshot.trials if record.number in numbers}
        for number in numbers:
            self._ended_here += 1
            self._works.pop(number, None)
            self._console.print(self._line(records[number], snapshot))
        self._show(snapshot)
        self._draw()
        warning = self._mirror(snapshot)
        if warning is not None and warning != self._warning:
            self._console.print(f"  {warning}")
        self._warning = warning

    def _draw(self) -> None:
        """The live line's part that says what is in work: one trial in full, several in short."""
        if len(self._works) == 1:
            title, text = next(iter(self._works.values()))
        else:
            title = ""
            text = "; ".join(f"trial {number} {text.partition(',')[0]}" for number, (_, text) in self._works.items())
        self._progress.update(self._task, description=title, tail=text)

    def _show(self, snapshot: StudySnapshot) -> None:
        """The live line after a trial: the study as a whole."""
        best = max((trial.metric for trial in snapshot.complete if trial.metric is not None), default=None)
        stopped = sum(trial.state == "pruned" for trial in snapshot.trials)
        parts = [
            "" if best is None else f"best {human_metric(self._metric, best)}",
            f"stopped {stopped}" if stopped else "",
            f"rejected {sum(snapshot.rejected.values())}" if snapshot.rejected else "",
            f"about {human_time(self._left(snapshot))} left" if self._ended_here else "",
        ]
        text = ", ".join(part for part in parts if part)
        self._progress.update(self._task, completed=_finished(snapshot), study=text)

    def _left(self, snapshot: StudySnapshot) -> float:
        """Seconds until the last trial, at the pace of this run."""
        spent = time.monotonic() - self._started
        return spent / self._ended_here * max(0, self._total - _finished(snapshot))

    def _line(self, record: TrialRecord, snapshot: StudySnapshot) -> str:
        done = _finished(snapshot)
        head = f"[{done}/{self._total}] trial {record.number}"
        if record.state != "complete":
            return f"{head}  stopped: {record.reason}"
        left = f"  (about {human_time(self._left(snapshot))} left)" if done < self._total else ""
        return (
            f"{head}  {human_metric(self._metric, record.metric, record.metric_error)}  "
            f"{human_memory(record.peak_memory_mib)}  {human_time(record.wall_time_s)} on the device"
            f"{'  on the front' if record.on_front else ''}{'  did not learn' if record.learned is False else ''}{left}"
        )


class SiblingProgress:
    """Watches the trainings of a sibling study: baselines, or a verification.

    Args:
        kind: what is trained, in a word.
        mirror: as ``SearchProgress``'s, called with the sibling study.
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
        """A training begins."""
        self._head = f"[{number}/{total}] {title}"
        text = f"{self._head}, {human_memory(cost.peak_memory_mib)}, {human_time(cost.wall_time_s)}"
        self._progress.update(self._task, description=text, total=total, completed=number - 1, tail="")

    def step(self, step: int, steps: int, loss: float) -> None:
        """A training step is done."""
        self._progress.update(self._task, tail=f"step {step}/{steps}, loss {loss:.3f}")

    def note(self, text: str) -> None:
        """Something took time or went another way."""
        self._console.print(f"  {text}")

    def training_ended(self, record: TrialRecord, sibling: StudySnapshot) -> None:
        """One line a training, and the mirror."""
        if record.state == "complete":
            came_out = (
                f"{human_metric(self._metric, record.metric, record.metric_error)}  "
                f"{human_memory(record.peak_memory_mib)}  {human_time(record.wall_time_s)} on the device"
                f"{'  (does not fit)' if record.feasible is False else ''}"
                f"{'  did not learn' if record.learned is False else ''}"
            )
        else:
            came_out = f"stopped: {record.reason}"
        self._console.print(f"{self._head}  {came_out}")
        warning = self._mirror(sibling)
        if warning is not None and warning != self._warning:
            self._console.print(f"  {warning}")
        self._warning = warning


def _finished(snapshot: StudySnapshot) -> int:
    return sum(trial.state in ("complete", "pruned") for trial in snapshot.trials)
