"""``status`` and ``trials``: the progress of a study, and all its trials."""

from __future__ import annotations

import json
from collections import Counter

import click

from farsearch.cli.options import json_option, open_workspace, storage_option, study_argument
from farsearch.cli.terminal import estimates_for, print_rows

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@json_option
@storage_option
def status(study: str | None, as_json: bool, storage: str | None) -> None:
    """Show the progress of a study.

    \b
    Example:
      farsearch status
    """
    from farsearch.formatting import constant_text, human_metric, human_time
    from farsearch.select import won
    from farsearch.study.activity import activities
    from farsearch.tasks.summary import Understood

    workspace = open_workspace(storage)
    snapshot = workspace.open_study(study).snapshot
    training = activities(workspace.store().folder(snapshot.name))
    counts = Counter(trial.outcome.state for trial in snapshot.trials)
    rejected = sum(snapshot.rejected.values())
    best = max(snapshot.complete, key=lambda trial: trial.outcome.metric, default=None)
    primed = [trial.outcome.priming for trial in snapshot.complete if trial.outcome.priming.steps]
    cached = sum(priming.from_cache for priming in primed)
    if as_json:
        data = {
            "schema_version": 1, "study": snapshot.name, "n_trials": snapshot.n_trials,
            **{state: counts[state] for state in ("complete", "pruned", "running")},
            "rejected": dict(snapshot.rejected), "front": [trial.number for trial in snapshot.front],
            "won": list(won(snapshot)),
            "best_metric": best and best.outcome.metric, "constant_answer": snapshot.meta.get("constant_answer"),
            "understood": snapshot.meta.get("understood"), "primings": len(primed), "primings_from_cache": cached,
            "training": [one.to_dict() for one in training],
        }  # fmt: skip
        click.echo(json.dumps(data, indent=1))
        return
    click.echo(f"study {snapshot.name}: {snapshot.finished} of {snapshot.n_trials} trials are done")
    click.echo(f"  complete {counts['complete']}, stopped {counts['pruned']}, running {counts['running']}")
    for one in training:
        epoch = f", epoch {one.epoch:.2f} of {one.epochs:g}" if one.steps else ""
        click.echo(f"  now here: {one.title}, {one.phase}{epoch}, for {human_time(one.seconds)}")
    reasons = ", ".join(f"{reason} {count}" for reason, count in snapshot.rejected.items())
    click.echo(f"  proposals that were not trained: {rejected}{f' ({reasons})' if reasons else ''}")
    if best is not None:
        value = human_metric(snapshot.metric_name, best.outcome.metric, best.outcome.metric_error)
        click.echo(f"  best {snapshot.metric_name}: {value} (trial {best.number})")
        click.echo(f"  trials on the front: {', '.join(str(trial.number) for trial in snapshot.front) or 'none'}")
    understood = snapshot.meta.get("understood")
    lines = [] if understood is None else Understood.from_dict(understood).lines()
    for line in filter(None, [constant_text(snapshot), *lines]):
        click.echo(f"  {line}")
    for sentence in won(snapshot):
        click.echo(f"  {sentence}")
    if primed:
        click.echo(f"  primings that came from the cache: {cached} of {len(primed)}")


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
    from farsearch.trials_json import trials_text

    snapshot = open_workspace(storage).open_study(study).snapshot
    if as_json:
        click.echo(trials_text(snapshot, snapshot.trials))
        return
    title = f"{snapshot.name}: all trials, {estimates_for(snapshot)}; {ROWS_ERROR}"
    print_rows(trial_rows(snapshot), title, f"{snapshot.name} has no trial yet")
    if constant_text(snapshot):
        click.echo(constant_text(snapshot))


COMMANDS = (status, trials)
