"""``status``, ``trials``, ``show``, ``pareto``, ``sync``, ``ui``: what a study holds."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farsearch.cli.options import json_option, open_store, storage_option, study_argument, tracking_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farsearch.records import StudySnapshot, TrialRecord

__all__ = ["COMMANDS", "read_snapshot"]


def read_snapshot(study: str | None, storage: str | None) -> StudySnapshot:
    """The snapshot of a study, the latest where none is named."""
    from farsearch.study.snapshot import snapshot_of

    return snapshot_of(open_store(storage).load(study))


def _print_trials(snapshot: StudySnapshot, trials: Sequence[TrialRecord]) -> None:
    from farsearch.tables import trials_json

    click.echo(json.dumps(trials_json(snapshot, trials), indent=1))


def _print_rows(rows: list[dict[str, str]], title: str) -> None:
    from rich.console import Console

    from farsearch.tables import print_table

    print_table(rows, Console(), title)


@click.command()
@study_argument
@json_option
@storage_option
def status(study: str | None, as_json: bool, storage: str | None) -> None:
    """Say how far a study is.

    \b
    Example:
      farsearch status
    """
    from farsearch.tables import human_metric

    snapshot = read_snapshot(study, storage)
    states = {state: sum(t.state == state for t in snapshot.trials) for state in ("complete", "pruned", "running")}
    rejected = sum(snapshot.rejected.values())
    best = max(snapshot.complete, key=lambda trial: trial.metric or 0.0, default=None)
    hits = [trial for trial in snapshot.complete if trial.priming is not None and trial.priming.steps]
    cached = sum(trial.priming.from_cache for trial in hits if trial.priming is not None)
    if as_json:
        data = {
            "schema_version": 1, "study": snapshot.name, "n_trials": snapshot.n_trials, **states,
            "rejected": dict(snapshot.rejected), "front": [trial.number for trial in snapshot.front],
            "best_metric": best and best.metric, "primings": len(hits), "primings_from_cache": cached,
        }  # fmt: skip
        click.echo(json.dumps(data, indent=1))
        return
    click.echo(f"study {snapshot.name}: {states['complete']} of {snapshot.n_trials} trials trained")
    click.echo(f"  stopped {states['pruned']}, in work {states['running']}, proposals not trained {rejected}")
    if best is not None:
        value = human_metric(snapshot.metric_name, best.metric, best.metric_error)
        click.echo(f"  best {snapshot.metric_name}: {value} (trial {best.number}); front: {len(snapshot.front)} trials")
    click.echo(f"  primings: {cached} of {len(hits)} came from the cache")


@click.command()
@study_argument
@json_option
@storage_option
def trials(study: str | None, as_json: bool, storage: str | None) -> None:
    """List every trial of a study.

    \b
    Examples:
      farsearch trials
      farsearch trials demo --json | jq '.trials[] | select(.on_front)'
    """
    from farsearch.tables import trial_rows

    snapshot = read_snapshot(study, storage)
    if as_json:
        _print_trials(snapshot, snapshot.trials)
    else:
        _print_rows(trial_rows(snapshot), f"{snapshot.name}: all trials")


@click.command()
@study_argument
@json_option
@click.option("--png", type=click.Path(path_type=Path), help="Also draw the front into this file.")
@storage_option
def pareto(study: str | None, as_json: bool, png: Path | None, storage: str | None) -> None:
    """Show the Pareto front: the trials that no other beats in metric, memory and time at once.

    \b
    Examples:
      farsearch pareto
      farsearch pareto demo --png front.png
    """
    from farsearch.tables import front_rows

    snapshot = read_snapshot(study, storage)
    if png is not None:
        from farsearch.report import save_front_png

        save_front_png(snapshot, png)
    if as_json:
        _print_trials(snapshot, snapshot.front)
    else:
        _print_rows(front_rows(snapshot), f"{snapshot.name}: Pareto front")


@click.command()
@study_argument
@click.option("--trial", type=int, help="Number of the trial.  [the front's knee]")
@click.option("--prefer", type=click.Choice(["knee", "accuracy", "memory", "time"]), default="knee", show_default=True)
@json_option
@storage_option
def show(study: str | None, trial: int | None, prefer: str, as_json: bool, storage: str | None) -> None:
    """Show one trial with everything that is known of it.

    \b
    Examples:
      farsearch show --trial 7
      farsearch show --prefer memory
    """
    from farsearch.tables import trial_details

    snapshot = read_snapshot(study, storage)
    choice = chosen(snapshot, trial, prefer)
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "study": snapshot.name, "trial": choice.trial.to_dict()}, indent=1))
        return
    click.echo(f"study {snapshot.name}, trial {choice.trial.number}")
    click.echo(choice.reason)
    _print_rows(trial_details(snapshot, choice.trial), "")


def chosen(snapshot: StudySnapshot, trial: int | None, prefer: Any) -> Any:
    """The trial of that number, or the front's by preference."""
    from farsearch.select import choose, choose_trial

    return choose(snapshot, prefer) if trial is None else choose_trial(snapshot, trial)


@click.command()
@study_argument
@storage_option
@tracking_option
def sync(study: str | None, storage: str | None, tracking_uri: str) -> None:
    """Make MLflow show a study as it is, also after its database was lost.

    \b
    Example:
      farsearch sync
    """
    from farsearch.tracking import open_tracking

    snapshot = read_snapshot(study, storage)
    result = open_tracking(tracking_uri).sync(snapshot)
    click.echo(
        f"study {snapshot.name} in {tracking_uri}: {result.created} runs made, {result.updated} updated, "
        f"{result.unchanged} were right, {result.removed} removed"
    )


@click.command()
@study_argument
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@storage_option
@tracking_option
def ui(study: str | None, port: int, storage: str | None, tracking_uri: str) -> None:
    """Open MLflow's UI on this machine, at the study's trials.

    It listens on 127.0.0.1 only and ends with Ctrl-C.

    \b
    Examples:
      farsearch ui
      farsearch ui demo --port 5050
    """
    from farsearch.errors import MissingResource
    from farsearch.tracking import open_tracking, ui_command

    snapshot = read_snapshot(study, storage)
    tracker = open_tracking(tracking_uri)
    tracker.sync(snapshot)
    path = tracker.experiment_url_path(snapshot.name)
    if tracking_uri.startswith("http"):
        click.echo(f"{tracking_uri.rstrip('/')}/{path}")
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise MissingResource(f"port {port} is in use; give another with --port") from error
    click.echo(f"MLflow: http://127.0.0.1:{port}/{path}  (Ctrl-C ends it)")
    command = ui_command(tracking_uri, port)
    os.execvp(command[0], command)


COMMANDS = (status, trials, pareto, show, sync, ui)
