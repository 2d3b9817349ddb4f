"""``tasks``: what a search can be about."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from farsearch.cli.options import json_option
from farsearch.cli.terminal import print_rows

if TYPE_CHECKING:
    from farsearch.tasks.data import TaskSpec
    from farsearch.tasks.layouts import Official

__all__ = ["COMMANDS"]


@click.group()
def tasks() -> None:
    """List and show the tasks that a search can be about."""


@tasks.command("list")
@json_option
def tasks_list(as_json: bool) -> None:
    """List the tasks that --task takes.

    \b
    Examples:
      farsearch tasks list
      farsearch tasks list --json | jq '.tasks[] | select(.kind == "regression")'
    """
    from farsearch.tasks.official import OFFICIAL

    if as_json:
        entries = [_entry(official.spec, official) for official in OFFICIAL.values()]
        click.echo(json.dumps({"schema_version": 1, "tasks": entries}, indent=1))
        return
    click.echo(f"{'task':9} {'kind':18}  {'metric':20}  {'train':>7} {'dev':>6}  licence")
    for name, official in OFFICIAL.items():
        spec, rows = official.spec, official.rows
        sizes = f"{rows['train']:>7,} {rows['dev']:>6,}"
        click.echo(f"{name:9} {spec.kind:18}  {spec.metric:20}  {sizes}  {spec.licence}")


@tasks.command("show")
@click.argument("name")
@json_option
def tasks_show(name: str, as_json: bool) -> None:
    """Show what a task needs, how it is scored, and where its data come from.

    \b
    Examples:
      farsearch tasks show mnli
      farsearch tasks show squad_v2 --json | jq .task.official.files
    """
    from farsearch.tasks.official import OFFICIAL

    spec = _find(name)
    official = OFFICIAL.get(spec.name)
    if as_json:
        click.echo(json.dumps({"schema_version": 1, "task": _entry(spec, official)}, indent=1))
        return
    click.echo(f"{spec.name}: {spec.title}")
    told = _told(spec) | ({} if official is None else _told_of_files(official))
    print_rows([{"what": what, "value": value} for what, value in told.items() if value], None, "")
    for command in _commands(name, official):
        click.echo(f"  {command}")


def _find(name: str) -> TaskSpec:
    """The task that a user names."""
    from farsearch.tasks.own import find_task

    return find_task(name)


def _entry(spec: TaskSpec, official: Official | None) -> dict[str, Any]:
    """A task as programs get it; ``official`` is null for one that is a user's own."""
    from farsearch.far.board.scores import METRICS

    files: dict[str, Any] | None = None
    if official is not None:
        table = official.table
        files = {
            "rows": dict(official.rows),
            "source": official.source,
            "folder": official.folder,
            "files": list(official.files),
            "columns": None if table is None else list(table.columns),
            "header": None if table is None else table.header,
            "note": official.note,
        }
    return {**spec.to_dict(), "metric_parts": list(METRICS[spec.metric].parts), "official": files}


def _told(spec: TaskSpec) -> dict[str, str]:
    """What is known of any task."""
    from farsearch.far.board.scores import METRICS

    rule = METRICS[spec.metric]
    parts = ""
    if len(rule.parts) > 1:
        parts = f": the mean of {' and '.join(rule.parts)}" if rule.value == "mean" else f": {rule.value}"
        parts += "" if rule.value == "mean" else f", beside {', '.join(p for p in rule.parts if p != rule.value)}"
    return {
        "kind": spec.kind,
        "texts": ", ".join(spec.texts),
        "label": spec.label,
        "labels": ", ".join(f"{i} {label}" for i, label in enumerate(spec.labels)),
        "metric": spec.metric + parts,
        "hub": "" if spec.hub is None else f"{spec.hub[0]}, configuration {spec.hub[1]}",
        "licence": spec.licence,
    }


def _told_of_files(official: Official) -> dict[str, str]:
    """What is known of an official task's files."""
    table, undivided = official.table, official.undivided
    where = f", in the folder {official.folder}" if official.folder else ""
    instead = f"; or {undivided.name} and {undivided.dev_ids}" if undivided else ""
    read = "" if table is None else f"{' and '.join(table.texts)} as texts, {table.label} as label"
    return {
        "rows": ", ".join(f"{part} {count:,}" for part, count in official.rows.items()),
        "files": ", ".join(official.files) + where + instead,
        "format": "SQuAD's JSON" if table is None else f"tabs between cells, {'a' if table.header else 'no'} header",
        "columns": "" if table is None else ", ".join(table.columns),
        "read": read,
        "mind": official.note,
        "cite": official.source,
    }


def _commands(name: str, official: Official | None) -> list[str]:
    """Commands that begin a search for the task of that name, or of that TOML file."""
    run = f"farsearch run --device jetson-nano --task {shlex.quote(name)}"
    if official is None or official.spec.hub is None:
        return [run]
    return [run, f"{run} --data-dir {'GLUE' if official.folder else 'FOLDER'}"]


COMMANDS = (tasks,)
