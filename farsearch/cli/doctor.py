"""``doctor``: problems of this machine, and how to fix them."""

from __future__ import annotations

import json

import click

from farsearch.api import HOME
from farsearch.cli.options import json_option, storage_option, tracking_option
from farsearch.errors import MissingResource

__all__ = ["COMMANDS"]

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@click.command()
@json_option
@storage_option
@tracking_option
def doctor(as_json: bool, storage: str | None, tracking_uri: str) -> None:
    """Check this machine: torch, devices, storage, tracking server, hub, disk, cache, extras.

    Each line is ok, a warning or a problem, with its fix. Nothing is changed. The exit code is 5 for a
    problem, otherwise 0.

    \b
    Examples:
      farsearch doctor
      farsearch doctor --storage postgresql://me@server/studies --tracking-uri http://server:5000
      farsearch doctor --json | jq '.checks[] | select(.state != "ok")'
    """
    from farsearch.doctor import examine

    findings = examine(HOME, storage, tracking_uri)
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        checks = [finding.to_dict() for finding in findings]
        click.echo(json.dumps({"schema_version": 1, "problems": problems, "checks": checks}, indent=1))
    else:
        from rich.text import Text

        from farsearch.api.console import make_console

        console = make_console()
        for finding in findings:
            state = (f"{finding.state:<9}", _STYLES[finding.state])
            console.print(Text.assemble(state, f"{finding.check:<9} {finding.text}"))
            if finding.suggestion:
                console.print(f"{'':19}{finding.suggestion}")
    if problems:
        click.get_current_context().exit(MissingResource.exit_code)


COMMANDS = (doctor,)
