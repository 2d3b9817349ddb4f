"""``pareto`` and ``show``: the Pareto front of a study, and one trial in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from farsearch.cli.options import (
    choice_options,
    json_option,
    open_workspace,
    storage_option,
    study_argument,
    tracking_option,
)
from farsearch.cli.terminal import print_front, print_rows, print_verdicts

if TYPE_CHECKING:
    from farsearch.api.study import Study
    from farsearch.records import AnyTrial, StudySnapshot

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@json_option
@click.option("--png", type=click.Path(path_type=Path), metavar="FILE", help="Also draw the front into this file.")
@storage_option
def pareto(study: str | None, as_json: bool, png: Path | None, storage: str | None) -> None:
    """Show the front, the trials that no other beats in metric, memory and time at once, and what was won.

    Trials whose metric is no better than a cheaper one's by more than noise stand behind it, in its note.

    ± beside a metric is its standard error from the draw of the rows. Another seed moves a trial too, a short training
    by more than that: verify measures it.

    \b
    Examples:
      farsearch pareto
      farsearch pareto demo --png front.png
    """
    from farsearch.formatting import constant_text
    from farsearch.select import won
    from farsearch.trials_json import trials_text

    opened = open_workspace(storage).open_study(study)
    snapshot = opened.snapshot
    if png is not None:
        opened.save_front(png)
    if as_json:
        click.echo(trials_text(snapshot, snapshot.front))
        return
    print_front(snapshot)
    if constant_text(snapshot):
        click.echo(constant_text(snapshot))
    if snapshot.verified:
        print_verdicts(snapshot)
    for sentence in won(snapshot):
        click.echo(sentence)


@click.command()
@study_argument
@choice_options
@click.option("--select", is_flag=True, help="Only print which trial export would choose by the same options, and why.")
@json_option
@storage_option
@tracking_option
def show(
    study: str | None, intent: dict[str, Any], select: bool, as_json: bool, storage: str | None, tracking_uri: str
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
    from farsearch.records import trial_to_dict
    from farsearch.trials_json import baselines_json

    opened = open_workspace(storage, tracking_uri).open_study(study)
    snapshot, (trial, why, derived) = opened.snapshot, _shown_trial(opened, intent)
    if as_json:
        data = {
            "schema_version": 1,
            "study": snapshot.name,
            "trial": trial_to_dict(trial),
            "reason": why.splitlines(),
            "derived": derived,
            **_measured_later(snapshot, trial),
            "baselines": baselines_json(snapshot),
            "constant_answer": snapshot.meta.get("constant_answer"),
        }
        click.echo(json.dumps(data, indent=1))
        return
    click.echo(f"study {snapshot.name}, trial {trial.number}\n{why}")
    if not select:
        print_rows(trial_details(snapshot, trial), None, "")


def _measured_later(snapshot: StudySnapshot, trial: AnyTrial) -> dict[str, Any]:
    """Return a trial's verification with other seeds, and its measurements on boards."""
    from farsearch.records import VerifiedTrial
    from farsearch.significance import verdict_json

    number = trial.verifies.trial if isinstance(trial, VerifiedTrial) else trial.number
    verified = [point for point in verdict_json(snapshot)["verified"] if point["trial"] == number is not None]
    boards = [measurement.to_dict() for measurement in snapshot.measurements if measurement.trial == number]
    return {"verified": next(iter(verified), None), "measurements": boards}


def _shown_trial(study: Study, intent: dict[str, Any]) -> tuple[AnyTrial, str, bool]:
    """Return the trial to show, the reason, and whether its plan is derived.

    It is the chosen one, or by number also one that was stopped or failed.
    """
    from farsearch.records import is_complete, reason_of
    from farsearch.select import Intent

    number = Intent(**intent).trial
    trial = next((trial for trial in study.trials if trial.number == number), None)
    if trial is not None and not is_complete(trial):
        reason = f", {why}" if (why := reason_of(trial)) else ""
        return trial, f"Trial {trial.number} has no result: {trial.outcome.state}{reason}.", False
    choice = study.choose(**intent)
    return choice.trial, choice.reason, choice.derived


COMMANDS = (pareto, show)
