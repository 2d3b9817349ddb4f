"""``status``, ``trials``, ``show``, ``pareto``, ``sync``, ``ui``: what a study holds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farsearch.addresses import is_server, shown_address
from farsearch.cli.mirror import remote_tensors
from farsearch.cli.options import (
    HOME,
    choice_options,
    json_option,
    open_store,
    storage_option,
    study_argument,
    tracking_option,
)
from farsearch.cli.terminal import estimates_for, print_rows
from farsearch.far.display import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from farsearch.records import StudySnapshot, TrialRecord
    from farsearch.select import Choice, Intent
    from farsearch.study.store import Store
    from farsearch.tracking.fetch import RemoteTensors
    from farsearch.tracking.tracker import Tracker

__all__ = ["COMMANDS", "chosen", "read_snapshot"]


def read_snapshot(study: str | None, storage: str | None) -> StudySnapshot:
    """The snapshot of a study, the latest where none is named."""
    from farsearch.study.read_only import ReadingStore, reading
    from farsearch.study.snapshot import snapshot_of

    with reading():
        return snapshot_of(ReadingStore(HOME, storage).load(study))


def _with_siblings(study: str | None, storage: str | None) -> tuple[StudySnapshot, ...]:
    """A study, and those that keep its baselines and its verification where there are any."""
    from farsearch.study.names import AUXILIARY_KINDS
    from farsearch.study.read_only import ReadingStore, reading
    from farsearch.study.snapshot import snapshot_of

    with reading():
        store = ReadingStore(HOME, storage)
        found = store.load(study)
        siblings = [store.auxiliary(found.study_name, kind) for kind in AUXILIARY_KINDS]
        return tuple(snapshot_of(each) for each in (found, *siblings) if each is not None)


def _print_trials(snapshot: StudySnapshot, trials: Sequence[TrialRecord]) -> None:
    from farsearch.formatting import trials_text

    click.echo(trials_text(snapshot, trials))


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
    from farsearch.formatting import constant_text, human_metric
    from farsearch.tasks.summary import Understood

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
            "best_metric": best and best.metric, "constant_answer": snapshot.meta.get("constant_answer"),
            "understood": snapshot.meta.get("understood"), "primings": len(hits), "primings_from_cache": cached,
        }  # fmt: skip
        click.echo(json.dumps(data, indent=1))
        return
    finished = states["complete"] + states["pruned"]
    click.echo(f"study {snapshot.name}: {finished} of {snapshot.n_trials} trials are done")
    click.echo(f"  complete {states['complete']}, stopped {states['pruned']}, in work {states['running']}")
    reasons = ", ".join(f"{reason} {count}" for reason, count in snapshot.rejected.items())
    click.echo(f"  proposals that were not trained: {rejected}{f' ({reasons})' if reasons else ''}")
    if best is not None:
        value = human_metric(snapshot.metric_name, best.metric, best.metric_error)
        click.echo(f"  best {snapshot.metric_name}: {value} (trial {best.number})")
        click.echo(f"  trials on the front: {', '.join(str(trial.number) for trial in snapshot.front) or 'none'}")
    about = snapshot.meta.get("understood")
    lines = [] if about is None else Understood.from_dict(about).lines()
    for line in filter(None, [constant_text(snapshot), *lines]):
        click.echo(f"  {line}")
    if hits:
        click.echo(f"  primings that came from the cache: {cached} of {len(hits)}")


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
    from farsearch.formatting import ROWS_ERROR, constant_text, trial_rows

    snapshot = read_snapshot(study, storage)
    if as_json:
        _print_trials(snapshot, snapshot.trials)
    else:
        print_rows(
            trial_rows(snapshot),
            f"{snapshot.name}: all trials, {estimates_for(snapshot)}; {ROWS_ERROR}",
            f"{snapshot.name} has no trial yet",
        )
        if constant_text(snapshot):
            click.echo(constant_text(snapshot))


@click.command()
@study_argument
@json_option
@click.option("--png", type=click.Path(path_type=Path), metavar="FILE", help="Also draw the front into this file.")
@storage_option
def pareto(study: str | None, as_json: bool, png: Path | None, storage: str | None) -> None:
    """Show the Pareto front: the trials that no other beats in metric, memory and time at once.

    ± beside a metric is its standard error from the draw of the rows. Another seed moves a trial too, a short training
    by more than that: verify measures it.

    \b
    Examples:
      farsearch pareto
      farsearch pareto demo --png front.png
    """
    from farsearch.formatting import ROWS_ERROR, baseline_rows, constant_text, front_rows

    snapshot = read_snapshot(study, storage)
    if png is not None:
        from farsearch.files import check_new_file
        from farsearch.report import save_front_png

        check_new_file(png, ".png")
        save_front_png(snapshot, png)
    if as_json:
        _print_trials(snapshot, snapshot.front)
    else:
        empty = f"no trial of {snapshot.name} is on the front yet"
        rows = [*front_rows(snapshot), *baseline_rows(snapshot)]
        print_rows(rows, f"{snapshot.name}: Pareto front, {estimates_for(snapshot)}; {ROWS_ERROR}", empty)
        if constant_text(snapshot):
            click.echo(constant_text(snapshot))
        if snapshot.verified:
            from farsearch.cli.verify import print_verdicts

            print_verdicts(snapshot)


@click.command()
@study_argument
@choice_options
@click.option("--select", is_flag=True, help="Only say what export would choose by the same options, and why.")
@json_option
@storage_option
@tracking_option
def show(
    study: str | None, intent: Intent, select: bool, as_json: bool, storage: str | None, tracking_uri: str
) -> None:
    """Show one trial with everything that is known of it.

    Without options it is the one that export would take.

    \b
    Examples:
      farsearch show --trial 7
      farsearch show --select --within 0.5 --max-memory 1200
      farsearch show --trial 7 --plan memory
    """
    from farsearch.cli.details import trial_details
    from farsearch.formatting import baselines_json

    snapshot = read_snapshot(study, storage)
    choice = _shown(snapshot, intent, storage, tracking_uri)
    if as_json:
        data = {"schema_version": 1, "study": snapshot.name, "trial": choice.trial.to_dict()}
        why = {"reason": choice.reason.splitlines(), "derived": choice.derived}
        seen = {**_seen(snapshot, choice.trial), "baselines": baselines_json(snapshot)}
        seen["constant_answer"] = snapshot.meta.get("constant_answer")
        click.echo(json.dumps({**data, **why, **seen}, indent=1))
        return
    click.echo(f"study {snapshot.name}, trial {choice.trial.number}\n{choice.reason}")
    if not select:
        print_rows(trial_details(snapshot, choice.trial), None, "")


def _seen(snapshot: StudySnapshot, trial: TrialRecord) -> dict[str, Any]:
    """What was measured of a trial after the search: with other seeds, and on boards."""
    from farsearch.significance import verdict_json

    number = trial.number if trial.verifies is None else trial.verifies.trial
    of_trial = [one for one in verdict_json(snapshot)["verified"] if one["trial"] == number is not None]
    boards = [one.to_dict() for one in snapshot.measurements if one.trial == number]
    return {"verified": next(iter(of_trial), None), "measurements": boards}


def _shown(snapshot: StudySnapshot, intent: Intent, storage: str | None, tracking_uri: str) -> Choice:
    """The trial to show, one that was stopped or failed too, and why this one."""
    from farsearch.select import Choice

    asked = next((t for t in snapshot.trials if t.number == intent.trial), None)
    if asked is not None and asked.state != "complete":
        why = f"{asked.state}{f', {asked.reason}' if asked.reason else ''}"
        return Choice(asked, f"Trial {asked.number} has no result: {why}.")
    store = open_store(storage)
    return chosen(snapshot, intent, store, remote_tensors(store, snapshot, tracking_uri))


def chosen(snapshot: StudySnapshot, intent: Intent, store: Store, remote: RemoteTensors | None) -> Choice:
    """The complete trial that serves an intent best; differences are paired where predictions were kept.

    Args:
        remote: has those that this host lacks; None where there is no such place.

    Raises:
        BadInput: for a trial without a result.
        NoFeasibleTrial: when there is no front, or nothing on it keeps the bounds.
    """
    from farsearch.select import choose
    from farsearch.study.predictions import paired_errors

    bring = None if remote is None else remote.bring_predictions
    paired = paired_errors(store.folder(snapshot.name), snapshot.metric_name, bring)
    return choose(snapshot, intent, paired)


@click.command()
@study_argument
@click.option("--measurement", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="First take in what a board measured with a bundle: train.py's measurement.json.")  # fmt: skip
@storage_option
@tracking_option
def sync(study: str | None, measurement: Path | None, storage: str | None, tracking_uri: str) -> None:
    """Make MLflow show a study as it is, also after its database was lost.

    \b
    Examples:
      farsearch sync
      farsearch sync demo --measurement tuned/measurement.json
    """
    from farsearch.tracking import open_tracking

    if measurement is not None:
        study = _take_in(measurement, study, storage)
    snapshots = _with_siblings(study, storage)  # a wrong name is told before a database is made
    tracker = open_tracking(tracking_uri)
    for snapshot in snapshots:
        result = tracker.sync(snapshot, report=True)
        click.echo(
            f"study {snapshot.name} in {shown_address(tracking_uri)}: {result.created} runs made, "
            f"{result.updated} updated, {result.unchanged} were right, {result.removed} removed"
        )
        if is_server(tracking_uri):
            _sync_tensors(tracker, snapshot, storage)


def _sync_tensors(tracker: Tracker, snapshot: StudySnapshot, storage: str | None) -> None:
    """Bring what trials saved on this host to MLflow's server, and say so."""
    from farsearch.study.store import storage_errors

    store = open_store(storage)
    with storage_errors(store.where), store.mirror_lock(snapshot.name, wait=True):
        result = tracker.upload_tensors(snapshot, store.folder(snapshot.name))
    if result is not None:
        click.echo(
            f"tensors of its trials: {result.uploaded} uploaded, {result.held} were there, {result.removed} removed"
        )


def _take_in(measurement: Path, name: str | None, storage: str | None) -> str:
    """Keep a board's measurement in the study that it is of. Its name."""
    from farsearch.calibration.board import read_measurement
    from farsearch.devices import is_another_machine
    from farsearch.errors import BadInput
    from farsearch.formatting import human_memory, human_time
    from farsearch.study.measurements import add_measurement
    from farsearch.study.snapshot import snapshot_of

    file = read_measurement(measurement)
    if name is not None and name != file.study:
        raise BadInput(f"{measurement} is of the study {shown(file.study)}, not of {shown(name)}; leave the name away")
    store = open_store(storage)
    one, study = file.measured, store.load(file.study)
    add_measurement(store, study, one)
    click.echo(
        f"trial {one.trial} on {one.machine}: {human_memory(one.peak_memory_mib)}, predicted "
        f"{human_memory(one.predicted_memory_mib)}; {human_time(one.wall_time_s)}, predicted "
        f"{human_time(one.predicted_time_s)}"
    )
    device = snapshot_of(study).settings.device
    if is_another_machine(device, one.machine):
        click.echo(f"predictions are for {device}, which that machine is not: the report does not compare them")
    return file.study


@click.command()
@study_argument
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", default=5000, show_default=True,
              help="Port to listen on.")  # fmt: skip
@click.option("--browser/--no-browser", default=None, help="Open a browser.  [default: on a terminal]")
@storage_option
@tracking_option
def ui(study: str | None, port: int, browser: bool | None, storage: str | None, tracking_uri: str) -> None:
    """Open MLflow's UI on this machine, at the study's trials.

    It listens on 127.0.0.1 only and ends with Ctrl-C.

    \b
    Examples:
      farsearch ui
      farsearch ui demo --port 5050
    """
    from farsearch.tracking import open_tracking

    shown = _with_siblings(study, storage)
    tracker = open_tracking(tracking_uri)
    for snapshot in shown:
        tracker.sync(snapshot, report=True)
    path = tracker.experiment_url_path(shown[0].name)
    show_page = sys.stdout.isatty() if browser is None else browser
    if tracking_uri.startswith("http"):
        click.echo(f"{tracking_uri.rstrip('/')}/{path}")
        if show_page:
            click.launch(f"{tracking_uri.rstrip('/')}/{path}")
        return
    _serve(tracking_uri, port, path, show_page)


def _serve(tracking_uri: str, port: int, path: str, show_page: bool) -> None:
    """Run MLflow's server until it ends, and say where the page is once it answers."""
    from farsearch.errors import MissingResource
    from farsearch.tracking import UI_ENVIRONMENT, ui_command

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise MissingResource(f"port {port} is in use; give another with --port") from error
    # in an empty folder: MLflow starts further processes with python -m, which imports from the working folder first
    with tempfile.TemporaryDirectory(prefix="farsearch-ui-") as empty:
        server = subprocess.Popen(ui_command(tracking_uri, port), env={**os.environ, **UI_ENVIRONMENT}, cwd=empty)
        try:
            while server.poll() is None and not _answers(port):
                time.sleep(0.2)
            if server.poll() is None:
                url = f"http://127.0.0.1:{port}/{path}"
                click.echo(f"MLflow: {url}  (Ctrl-C ends it)")
                if show_page:
                    click.launch(url)
            code = server.wait()
        finally:
            server.terminate()
            server.wait()
    if code:
        raise MissingResource(f"MLflow's server ended with code {code}; its reason is above")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


COMMANDS = (status, trials, pareto, show, sync, ui)
