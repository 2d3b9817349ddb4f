"""The mirror: sync a study into MLflow, follow a running one, and read it back."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from farsearch.errors import MissingResource
from farsearch.records import AnyTrial, StudySnapshot, flat
from farsearch.study.names import AUXILIARY_KINDS
from farsearch.tracking.connection import Connection, connect
from farsearch.tracking.content import LOSS, RunContent, family, study_content, trial_content
from farsearch.tracking.parent import (
    is_mirrored,
    mark_mirrored,
    unmark,
    write_artifacts,
    write_experiment,
    write_parent,
)
from farsearch.tracking.runs import dataset_of, find_parents, find_trial, read_runs, write_run
from farsearch.tracking.studies import check_rename, delete_study, forget_views, rename_study
from farsearch.tracking.tensors import TensorsResult, upload_tensors
from farsearch.tracking.views import trials_address

__all__ = ["SyncResult", "Tracker", "open_tracking"]

Progress = Callable[[int, int], None]
Spans = Mapping[int, tuple[int, int]]


_FOLLOW_PATIENCE_S = 5.0
"""Timeout of a running search that waits for another process's sync."""
_PAUSE_PER_DRAWING = 19.0
"""Seconds without drawing for each second of drawing."""


@dataclass(frozen=True)
class _Followed:
    """The known state of a study in MLflow: its place, and the trials as mirrored."""

    experiment: str
    parent: str
    trials: Mapping[int, AnyTrial]
    draw_after: float = 0.0


@dataclass(frozen=True)
class SyncResult:
    """Numbers of trials by the outcome of a sync; ``removed`` counts surplus runs."""

    created: int
    updated: int
    unchanged: int
    removed: int = 0


def open_tracking(uri: str) -> Tracker:
    """Open the mirror at ``uri``: ``sqlite:///mlflow.db``, created if missing, or ``http://host:port``.

    Raises:
        BadInput: for another kind of address.
        MissingResource: where the server does not answer or the database can't be used.
    """
    return Tracker(connect(uri))


class Tracker:
    """The mirror in one MLflow database or server. Use ``open_tracking``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._followed: dict[str, _Followed] = {}

    @property
    def uri(self) -> str:
        """The address; of a database with an absolute path."""
        return self._connection.uri

    def sync(self, snapshot: StudySnapshot, progress: Progress | None = None, *, report: bool = False) -> SyncResult:
        """Mirror ``snapshot`` in MLflow, writing only differences.

        If an earlier sync was completed, the study has not changed and no run was deleted, the runs are not read.

        Args:
            progress: called after each trial with the number of trials done and their total.
            report: include the study's report, which takes seconds: for the last sync.

        Raises:
            MissingResource: if the server does not answer or the database can't be written. Written runs remain, and
                the next sync resumes.
        """
        self._followed.pop(snapshot.name, None)
        content, total = study_content(snapshot), len(snapshot.trials)
        with self._connection.writing() as client:
            experiment = write_experiment(client, self._connection, snapshot)
            parents = find_parents(client, experiment, snapshot.name)
            if len(parents) == 1 and is_mirrored(client, experiment, parents[0], snapshot, content):
                parent, done, stale = parents[0].info.run_id, {"unchanged": total}, []
                if progress is not None:
                    progress(total, total)
            else:
                for run in parents[:1]:
                    unmark(client, run)
                runs = read_runs(client, experiment, snapshot.name)
                numbers = {trial.number for trial in snapshot.trials}
                stale = [run for number, held in runs.children.items() for run in held[number in numbers :]]
                for run in [*parents[1:], *stale]:
                    client.delete_run(run.info.run_id)
                current = {number: held[0] for number, held in runs.children.items() if number in numbers}
                spans = _spans([trial for trial in snapshot.trials if trial.number not in current])
                begin = min((start for start, _ in spans.values()), default=_now_ms())
                parent = write_parent(client, experiment, next(iter(parents), None), snapshot, content, begin)
                done = _write_trials(client, experiment, current, snapshot, snapshot.trials, spans, progress)
                mark_mirrored(client, experiment, parent, snapshot, content)
            write_artifacts(self._connection, parent, snapshot, content, report)
            self._followed[snapshot.name] = _Followed(experiment, parent, _by_number(snapshot))
        return SyncResult(done.get("created", 0), done.get("updated", 0), done.get("unchanged", 0), len(stale))

    def follow(self, snapshot: StudySnapshot) -> None:
        """Mirror the changes since the last call of this tracker; to be called after every trial.

        The first call is a ``sync``. Later ones read and write the runs of trials that ended or joined or left the
        front, and draw the study's pictures only as often as that takes a twentieth of the time. A final ``sync``
        completes the mirror.

        Raises:
            MissingResource: if MLflow can't be written, or is locked by a sync. The next call catches up.
        """
        if snapshot.name not in self._followed:
            self.sync(snapshot)
            return
        with self._connection.writing(_FOLLOW_PATIENCE_S) as client:
            # after a failure the state is unknown, and the next call compares everything
            followed = self._followed.pop(snapshot.name)
            changed = [t for t in snapshot.ended if followed.trials.get(t.number) != t]
            content = study_content(snapshot)
            held = {t.number: find_trial(client, followed.experiment, snapshot.name, t.number) for t in changed}
            current = {number: runs[0] for number, runs in held.items() if runs}
            spans = _spans([trial for trial in changed if trial.number not in current])
            parent = write_parent(
                client, followed.experiment, client.get_run(followed.parent), snapshot, content, _now_ms()
            )
            _write_trials(client, followed.experiment, current, snapshot, changed, spans, None)
            if len(snapshot.ended) == len(snapshot.trials):
                mark_mirrored(client, followed.experiment, parent, snapshot, content)
            seen = {trial.number: trial for trial in changed}
            after = dataclasses.replace(followed, parent=parent, trials={**followed.trials, **seen})
            if time.monotonic() >= followed.draw_after:
                started = time.monotonic()
                write_artifacts(self._connection, parent, snapshot, content, report=False)
                now = time.monotonic()
                after = dataclasses.replace(after, draw_after=now + _PAUSE_PER_DRAWING * (now - started))
            self._followed[snapshot.name] = after

    def upload_tensors(self, snapshot: StudySnapshot, study_folder: Path) -> TensorsResult | None:
        """Upload the tensors of this host to the server, for other hosts; see ``tensors.upload_tensors``.

        None for a local database, and for auxiliary studies, which save no tensors.

        Raises:
            MissingResource: if the server does not answer. The next call resumes.
        """
        if self._connection.database is not None or family(snapshot.name) != snapshot.name:
            return None
        return upload_tensors(self._connection, snapshot, study_folder)

    def check_rename(self, old: str, new: str) -> None:
        """Refuse a new study name that another experiment has.

        Raises:
            BadInput: when both names are in use.
        """
        with self._connection.reading() as client:
            check_rename(client, old, new)

    def rename(self, snapshots: Sequence[StudySnapshot], new: str) -> None:
        """Rename a study. Its runs keep their ids; another call completes an interrupted one.

        Args:
            snapshots: the study under its old name, then its auxiliary studies.

        Raises:
            MissingResource: where the server does not answer or the database can't be written.
        """
        old = snapshots[0].name
        with self._connection.writing() as client:
            rename_study(client, old, new, list(AUXILIARY_KINDS))
        for snapshot in snapshots:
            self.sync(dataclasses.replace(snapshot, name=new + snapshot.name.removeprefix(old)), report=True)
        with self._connection.writing() as client:
            forget_views(client, old, new)

    def delete(self, study: str) -> int:
        """Delete the runs of a study and of its auxiliary studies. Return their number.

        Raises:
            MissingResource: where the server does not answer or the database can't be written.
        """
        self._followed.pop(study, None)
        with self._connection.writing() as client:
            return delete_study(client, study, list(AUXILIARY_KINDS))

    def trials(self, study: str) -> dict[int, dict[str, dict[str, Any]]]:
        """Return the mirrored values by trial number: ``params`` (strings), ``metrics`` and ``tags``."""
        with self._connection.reading() as client:
            experiment = client.get_experiment_by_name(family(study))
            runs = read_runs(client, experiment.experiment_id, study).children if experiment is not None else {}
        first = {number: held[0].data for number, held in sorted(runs.items())}
        return {n: {"params": data.params, "metrics": data.metrics, "tags": data.tags} for n, data in first.items()}

    def differences(self, snapshot: StudySnapshot) -> list[str]:
        """Return ``trial 3 metrics.wall_time_s: 1.5 in MLflow, 2.5 in the study`` for each difference."""
        held = self.trials(snapshot.name)
        wanted = {trial.number: _values(trial_content(snapshot, trial)) for trial in snapshot.trials}
        lines = []
        for number in sorted({*held, *wanted}):
            here, there = _flat(held.get(number, {})), _flat(wanted.get(number, {}))
            # MLflow adds tags of its own, and so may users
            keys = {key for key in here if not key.startswith("tags.")} | set(there)
            lines += [
                f"trial {number} {key}: {here.get(key)!r} in MLflow, {there.get(key)!r} in the study"
                for key in sorted(keys)
                if here.get(key) != there.get(key)
            ]
        return lines

    def experiment_url_path(self, study: str) -> str:
        """Return the path and fragment of the user interface's address that shows all trials of ``study``.

        Raises:
            MissingResource: where MLflow does not hold the study.
        """
        with self._connection.reading() as client:
            experiment = client.get_experiment_by_name(family(study))
        if experiment is None:
            raise MissingResource(f"MLflow at {self.uri} does not hold study {study!r}; farsearch sync puts it there")
        return trials_address(experiment.experiment_id)


def _write_trials(
    client: MlflowClient,
    experiment: str,
    held: Mapping[int, Run],
    snapshot: StudySnapshot,
    trials: Sequence[AnyTrial],
    spans: Spans,
    progress: Progress | None,
) -> dict[str, int]:
    """Write the runs of ``trials`` that differ; return how many were created, updated and unchanged."""
    dataset = dataset_of(snapshot.settings.job)
    done: Counter[str] = Counter()
    for i, trial in enumerate(trials, start=1):
        content = trial_content(snapshot, trial)
        now = _now_ms()
        _, outcome = write_run(
            client, experiment, held.get(trial.number), content, spans.get(trial.number, (now, now)), dataset
        )
        done[outcome] += 1
        if progress is not None:
            progress(i, len(trials))
    return done


def _by_number(snapshot: StudySnapshot) -> dict[int, AnyTrial]:
    """Return the trials that have ended, by number."""
    return {trial.number: trial for trial in snapshot.ended}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _spans(trials: Sequence[AnyTrial]) -> Spans:
    """Return start and end of new runs in ms, by number: consecutive, by the trials' durations, the last ending now.

    A study that is mirrored while it runs adds one at a time, so its times are true; one that is mirrored again as a
    whole has the right order and durations.
    """
    spans: dict[int, tuple[int, int]] = {}
    end = _now_ms()
    for trial in sorted(trials, key=lambda t: t.number, reverse=True):
        start = end - round(1000 * (flat(trial).host_seconds or 0.0))
        spans[trial.number] = (start, end)
        end = start
    return spans


def _values(content: RunContent) -> dict[str, Mapping[str, Any]]:
    """Return ``content`` in the shape of ``Tracker.trials``, with the last point of the learning curve."""
    last = max(content.curve, key=lambda point: point.step, default=None)
    loss = {} if last is None else {LOSS: last.loss}
    return {"params": content.params, "metrics": {**content.metrics, **content.latest, **loss}, "tags": content.tags}


def _flat(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{kind}.{key}": value for kind, held in values.items() for key, value in held.items()}
