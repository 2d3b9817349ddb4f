"""``studies``: list, rename and delete studies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from farsearch.cli.options import json_option, open_workspace, storage_option, tracking_option
from farsearch.cli.terminal import print_rows
from farsearch.far.display import shown

if TYPE_CHECKING:
    from farsearch.api.workspace import Workspace
    from farsearch.study.read_only import StudyUse

__all__ = ["COMMANDS"]


@click.group()
def studies() -> None:
    """List, rename and delete the studies of this folder, or of a database."""


@studies.command("list")
@json_option
@storage_option
def studies_list(as_json: bool, storage: str | None) -> None:
    """List the studies here, the latest last.

    \b
    Examples:
      farsearch studies list
      farsearch studies list --json | jq -r '.studies[].name'
    """
    workspace = open_workspace(storage)
    uses = workspace.studies()
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "studies": [use.to_dict() for use in uses]}, indent=1))
    elif uses:
        print_rows([_row(use) for use in uses], None, "")
    else:
        click.echo(f"no study in {workspace.store().where} yet", err=True)


def _row(use: StudyUse) -> dict[str, str]:
    return {
        "study": use.name,
        "trials": f"{use.trained} of {use.n_trials}",
        "running": str(use.running or ""),
        "device": use.device,
        "last used": "" if use.last_used is None else use.last_used.isoformat(sep=" ", timespec="minutes"),
    }


@studies.command("rename")
@click.argument("old")
@click.argument("new")
@storage_option
@tracking_option
def studies_rename(old: str, new: str, storage: str | None, tracking_uri: str) -> None:
    """Give a study another name, with its baselines, verification, saved tensors and runs in MLflow.

    Saved tensors on other hosts stay under the old name: rename .farsearch/studies/OLD there.

    \b
    Example:
      farsearch studies rename sst2-minilm-jetson-nano-default first
    """
    open_workspace(storage, tracking_uri).rename(old, new)
    click.echo(f"renamed {old} to {new}")


@studies.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--mlflow", is_flag=True, help="Delete its runs in MLflow too.")
@storage_option
@tracking_option
def studies_delete(name: str, yes: bool, mlflow: bool, storage: str | None, tracking_uri: str) -> None:
    """Delete a study and its saved tensors. Its runs in MLflow stay, unless --mlflow is given.

    \b
    Examples:
      farsearch studies delete demo
      farsearch studies delete demo --mlflow     also later, when the study itself is gone
    """
    workspace = open_workspace(storage, tracking_uri)
    store = workspace.store()
    gone = mlflow and name not in store.names()
    if not gone:
        store.load(name)
    if not yes:
        what = "the runs of the study" if gone else "the study"
        click.confirm(f"delete {what} {name} with all its trials?", abort=True)
    if mlflow:
        _delete_runs(workspace, name, gone)
    if not gone:
        workspace.delete(name)
        click.echo(f"deleted {name}")
    if not mlflow:
        click.echo(f"its runs in MLflow stay; to delete them too: farsearch studies delete {name} --mlflow", err=True)


def _delete_runs(workspace: Workspace, name: str, gone: bool) -> None:
    from farsearch.errors import BadInput

    deleted = workspace.delete_runs(name)
    if gone and not deleted:
        raise BadInput(f"the study {shown(name)} is neither here nor in MLflow; see farsearch studies list")
    click.echo(f"deleted {deleted} runs in MLflow; mlflow gc frees their disk space")


COMMANDS = (studies,)
