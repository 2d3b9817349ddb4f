"""The command line as Markdown, from click's own records: one section for each command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

__all__ = ["command_reference", "commands", "escaped"]

_INTRODUCTION = """\
# Commands

Generated from the program; `farsearch COMMAND --help` prints the same. Exit codes: 0 done, 1 unexpected failure, 2 bad
usage or input, 3 nothing fits the device, 4 the study exists with other settings, 5 a resource of this machine is
missing, 130 interrupted, 143 terminated.

"""


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and, below a group, all others, with their paths."""
    yield path, command
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from commands(command.commands[name], f"{path} {name}")


def command_reference(program: click.Group, name: str) -> str:
    """Return the page of a program."""
    return _INTRODUCTION + "\n".join(_section(path, command) for path, command in commands(program, name))


def _section(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    rows = [record for one in command.get_params(context) if (record := one.get_help_record(context)) is not None]
    options = [f"- **`{option}`** – {escaped(text)}" for option, text in rows if option.startswith("-")]
    head = f"## `{path}` {{: #{path.replace(' ', '-')} }}"
    return "\n".join([head, "", "```", usage, "```", "", _help(command), "", *options, ""])


def _help(command: click.Command) -> str:
    r"""Return the help text with the paragraphs after ``\b``, whose lines click keeps, as code."""
    parts = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            title, _, lines = paragraph.removeprefix("\b\n").partition("\n")
            parts.append(f"{escaped(title)}\n\n```\n{inspect.cleandoc(lines)}\n```" if title.endswith(":") else
                         f"```\n{title}\n{lines}\n```")  # fmt: skip
        else:
            parts.append(escaped(paragraph))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Return a text without what Markdown would read as markup."""
    return re.sub(r"([*_<|\[])", r"\\\1", text)
