"""The callbacks of a search."""

from __future__ import annotations

from typing import Protocol

from farsearch.records import AnyTrial, Cost, FarConfig, StudySnapshot

__all__ = ["Watcher"]


class Watcher(Protocol):
    """Callbacks of a search: the command line draws its progress, the tracker mirrors it."""

    def trial_started(self, number: int, config: FarConfig, cost: Cost) -> None:
        """A trial was proposed and priced, and its training starts."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """A step of the FAR phase is done."""

    def note(self, text: str) -> None:
        """An event for the log: a long wait, a recovered trial, a cache hit."""

    def trial_ended(self, record: AnyTrial, snapshot: StudySnapshot) -> None:
        """A trial's result is recorded; ``snapshot`` is the study with it."""
