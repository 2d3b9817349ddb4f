"""``verify``: points of the front trained again, with other seeds and all data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from farsearch.cli.options import (
    ParamType,
    SamplesOrAll,
    here_options,
    json_option,
    open_workspace,
    storage_option,
    study_argument,
    tracking_option,
    typed_command,
)
from farsearch.cli.terminal import print_verdicts
from farsearch.far.display import shown

__all__ = ["COMMANDS"]


class _Numbers(ParamType):
    """Numbers of trials, separated by commas."""

    name = "n,n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of distinct numbers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() for part in parts):
            self.fail(f"{shown(value)} is not a list of trial numbers, for example 3,7", param, ctx)
        return tuple(dict.fromkeys(int(part) for part in parts))


@click.command()
@study_argument
@click.option("--trials", type=_Numbers(), metavar="N,N", help="By number.  [default: the front's knee and its best in "
              "metric, memory and time]")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, metavar="N",
              help="Trainings of each point, each with a seed of its own; 3 at least for a verdict.")  # fmt: skip
@click.option("--train-samples", type=SamplesOrAll(), default="all", show_default=True, metavar="N|all",
              help="Rows to train on, drawn by each seed.")  # fmt: skip
@click.option("--baselines", default="paper", show_default=True, metavar="NAME",
              help="Which of the study's baselines to train again beside the points, as for run.")  # fmt: skip
@here_options
@json_option
@storage_option
@tracking_option
def verify(
    study: str | None,
    trials: tuple[int, ...] | None,
    seeds: int,
    train_samples: int | Literal["all"],
    baselines: str,
    data_dir: Path | None,
    model: str | None,
    device: str | None,
    as_json: bool,
    storage: str | None,
    tracking_uri: str,
) -> None:
    """Train points of the front again, with other seeds and all data, and score them on the development set.

    A search evaluates with one seed and a sample. This reports mean and deviation over seeds beside the baselines',
    whether a point's advantage over what costs less is more than noise, and how well the search ranked. The same
    command again resumes an interrupted verification. Results are stored in the study NAME/verified.

    \b
    Examples:
      farsearch verify
      farsearch verify demo --trials 3,7 --seeds 10
      farsearch verify sst2-minilm-jetson-nano-default --train-samples 8192 --baselines all
    """
    opened = open_workspace(storage, tracking_uri).open_study(study, wait=True)
    try:
        opened.verify(
            trials, seeds=seeds, train_samples=train_samples, baselines=baselines,
            data_dir=data_dir, model=model, device=device,
        )  # fmt: skip
    except KeyboardInterrupt:
        click.echo(f"interrupted; finished trainings are stored. To resume:\n  {typed_command()}", err=True)
        raise
    if as_json:
        from farsearch.significance import verdict_json

        data = {"schema_version": 1, "study": opened.name, **verdict_json(opened.snapshot)}
        click.echo(json.dumps(data, indent=1))
    else:
        print_verdicts(opened.snapshot)


COMMANDS = (verify,)
