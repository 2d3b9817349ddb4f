"""``studies``: list, rename and delete what was searched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from farsearch.cli.options import HOME, json_option, open_store, storage_option, tracking_option
from farsearch.cli.terminal import print_rows
from farsearch.far.display import shown

if TYPE_CHECKING:
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
    from farsearch.study.read_only import ReadingStore, reading

    with reading():
        store = ReadingStore(HOME, storage)
        found = store.uses()
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "studies": [one.to_dict() for one in found]}, indent=1))
    elif found:
        print_rows([_row(one) for one in found], None, "")
    else:
        click.echo(f"no study in {store.where} yet", err=True)


def _row(one: StudyUse) -> dict[str, str]:
    return {
        "study": one.name,
        "trials": f"{one.trained} of {one.n_trials}",
        "in work": str(one.running or ""),
        "device": one.device,
        "last used": "" if one.last_used is None else one.last_used.isoformat(sep=" ", timespec="minutes"),
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
    from farsearch.study.names import AUXILIARY_KINDS
    from farsearch.study.renaming import rename_study
    from farsearch.study.snapshot import snapshot_of
    from farsearch.tracking import is_there, open_tracking

    store = open_store(storage)
    found = [store.load(old), *(store.auxiliary(old, kind) for kind in AUXILIARY_KINDS)]
    snapshots = [snapshot_of(one) for one in found if one is not None]
    tracker = open_tracking(tracking_uri) if is_there(tracking_uri) else None
    if tracker is not None:
        tracker.check_rename(old, new)
    rename_study(store, old, new, lambda: None if tracker is None else tracker.rename(snapshots, new))
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
    store = open_store(storage)
    gone = mlflow and name not in store.names()
    if not gone:
        store.load(name)
    if not yes:
        what = "the runs of the study" if gone else "the study"
        click.confirm(f"delete {what} {name} with all its trials?", abort=True)
    if mlflow:
        _delete_runs(name, gone, tracking_uri)
    if not gone:
        store.delete(name)
        click.echo(f"deleted {name}")
    if not mlflow:
        click.echo(f"its runs in MLflow stay; to delete them too: farsearch studies delete {name} --mlflow", err=True)


def _delete_runs(name: str, gone: bool, tracking_uri: str) -> None:
    from farsearch.errors import BadInput
    from farsearch.tracking import is_there, open_tracking

    deleted = open_tracking(tracking_uri).delete(name) if is_there(tracking_uri) else 0
    if gone and not deleted:
        raise BadInput(f"the study {shown(name)} is neither here nor in MLflow; see farsearch studies list")
    click.echo(f"deleted {deleted} runs in MLflow; mlflow gc frees their disk space")


COMMANDS = (studies,)
