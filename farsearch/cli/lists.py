"""``spaces``, ``tasks``, ``studies``: what there is."""

from __future__ import annotations

import click

from farsearch.cli.options import open_store, storage_option

__all__ = ["COMMANDS"]


@click.group()
def spaces() -> None:
    """List, show and check search spaces: what is searched, and in which ranges."""


@spaces.command("list")
def spaces_list() -> None:
    """List the spaces that --space takes."""
    from farsearch.study.space import list_spaces, load_space

    for name in list_spaces():
        click.echo(f"{name:10} {load_space(name).title}")


@spaces.command("show")
@click.argument("name")
def spaces_show(name: str) -> None:
    """Print a space as YAML, to start one of your own from.

    \b
    Example:
      farsearch spaces show default > mine.yaml
    """
    from farsearch.study.space import space_text

    click.echo(space_text(name), nl=False)


@spaces.command("check")
@click.argument("path")
def spaces_check(path: str) -> None:
    """Say whether a space file is right.

    \b
    Example:
      farsearch spaces check mine.yaml
    """
    from farsearch.study.space import load_space

    space = load_space(path)
    click.echo(f"{path}: right, {len(space.search)} searched and {len(space.fixed)} fixed parameters")


@click.group()
def tasks() -> None:
    """List the tasks that a search can be about."""


@tasks.command("list")
def tasks_list() -> None:
    """List the tasks that --task takes."""
    from farsearch.tasks.spec import TASKS

    for name, spec in TASKS.items():
        click.echo(f"{name:10} {spec.title} [{spec.metric}; {spec.licence}]")


@click.group()
def studies() -> None:
    """List and delete the studies of this folder, or of a database."""


@studies.command("list")
@storage_option
def studies_list(storage: str | None) -> None:
    """List the studies here, the latest last."""
    store = open_store(storage)
    names = store.names()
    for name in names:
        click.echo(name)
    if not names:
        click.echo(f"no study in {store.where} yet", err=True)


@studies.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@storage_option
def studies_delete(name: str, yes: bool, storage: str | None) -> None:
    """Delete a study and its saved tensors. Its runs in MLflow stay."""
    store = open_store(storage)
    store.load(name)
    if not yes:
        click.confirm(f"delete the study {name} with all its trials?", abort=True)
    store.delete(name)
    click.echo(f"deleted {name}")


COMMANDS = (spaces, tasks, studies)
