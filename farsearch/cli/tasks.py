"""``tasks``: list and show tasks."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from farsearch.cli.options import json_option
from farsearch.cli.task_options import own_options
from farsearch.cli.terminal import print_rows

if TYPE_CHECKING:
    from farsearch.tasks.data import TaskData, TaskSpec
    from farsearch.tasks.layouts import Official

__all__ = ["COMMANDS"]


@click.group()
def tasks() -> None:
    """List and show tasks."""


@tasks.command("list")
@json_option
def tasks_list(as_json: bool) -> None:
    """List the tasks for --task.

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
@own_options
@json_option
def tasks_show(name: str, given: dict[str, Any], as_json: bool) -> None:
    """Show what a task needs, how it is scored, and where its data come from.

    NAME is an official task, or your own: a .toml file, or a file of rows. Of yours it is shown what a run would
    understand.

    \b
    Examples:
      farsearch tasks show mnli
      farsearch tasks show mails.csv --label-column folder
      farsearch tasks show squad_v2 --json | jq .task.official.files
    """
    from farsearch.tasks.official import OFFICIAL
    from farsearch.tasks.spec import get_task
    from farsearch.tasks.summary import understand

    notes: list[str] = []
    data = _own(name, given, notes)
    spec = get_task(name) if data is None else data.spec
    official = OFFICIAL.get(spec.name)
    if as_json:
        entry = _entry(spec, official)
        if data is not None:
            entry["understood"] = understand(data).to_dict()
        click.echo(json.dumps({"schema_version": 1, "task": entry}, indent=1))
        return
    click.echo(f"{spec.name}: {spec.title}")
    rows = _spec_rows(spec) | ({} if official is None else _file_rows(official))
    print_rows([{"what": what, "value": value} for what, value in rows.items() if value], None, "")
    for note in notes:
        click.echo(note)
    for command in _commands(name, official) if official is not None else [_own_command(name, given)]:
        click.echo(f"  {command}")


def _own(name: str, given: dict[str, Any], notes: list[str]) -> TaskData | None:
    """Read the rows of a user's own task; return None for an official one."""
    from farsearch.tasks.custom import load_own
    from farsearch.tasks.description import find_own

    own = find_own(name, given)
    return None if own is None else load_own(own, notes.append)


def _entry(spec: TaskSpec, official: Official | None) -> dict[str, Any]:
    """Return a task as JSON types; ``official`` is null for a user's own."""
    from farsearch.runtime.scores import METRICS

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


def _spec_rows(spec: TaskSpec) -> dict[str, str]:
    from farsearch.runtime.scores import METRICS

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
        "F1 is of": spec.positive_label or "",
        "hub": "" if spec.hub is None else f"{spec.hub[0]}, configuration {spec.hub[1]}",
        "licence": spec.licence,
    }


def _file_rows(official: Official) -> dict[str, str]:
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


def _commands(name: str, official: Official) -> list[str]:
    """Return commands that search on an official task."""
    run = f"farsearch run --device jetson-nano --task {shlex.quote(name)}"
    if official.spec.hub is None:
        return [run]
    return [run, f"{run} --data-dir {'GLUE' if official.folder else 'FOLDER'}"]


def _own_command(name: str, given: dict[str, Any]) -> str:
    """Return the command that searches on the user's own rows."""
    from farsearch.tasks.description import option_words

    command = ["farsearch", "run", "--device", "jetson-nano", "--task" if name.endswith(".toml") else "--train", name]
    return shlex.join([*command, *option_words(given)])


COMMANDS = (tasks,)
