"""The command line: each command parses, calls the library once, and prints. Nothing else exits.

===============  =======================================================
__init__         the group of commands, errors and signals to exit codes
options.py       options and arguments of several commands
task_options.py  options of a task, official or your own
details.py       one trial or one profile in full, as rows
terminal.py      output on a terminal and in a pipe
table.py         tables for the terminal
run.py           run: the search
worker.py        worker: joins a search
status.py        status, trials: the progress of a study
front.py         pareto, show: the front of a study, one trial
sync.py          sync: a study in MLflow
ui.py            ui: MLflow's pages
report.py        report: a study as one page
watch.py         watch: a page that follows a search
reprice.py       reprice: a study at the costs of another device
verify.py        verify: points of the front trained again
deploy.py        export, finetune: bundles
estimate.py      estimate: predicted memory and time
devices.py       devices: list, show, calibrate, import, check
spaces.py        spaces: list, show, check
models.py        models: list
tasks.py         tasks: list, show
studies.py       studies: list, rename, delete
cache.py         cache: show, clear
doctor.py        doctor: problems of this machine
===============  =======================================================

Commands import libraries when they run: torch, optuna and mlflow together take several seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import click

from farsearch.addresses import hide_passwords
from farsearch.cli import (
    cache,
    deploy,
    devices,
    doctor,
    estimate,
    front,
    models,
    report,
    reprice,
    run,
    spaces,
    status,
    studies,
    sync,
    tasks,
    ui,
    verify,
    watch,
    worker,
)
from farsearch.cli.options import given_addresses
from farsearch.cli.terminal import prepare_streams
from farsearch.errors import FarsearchError
from farsearch.far.display import shown_text
from farsearch.signals import INTERRUPTED, TERMINATED, Terminated, catching, interruption

__all__ = ["main"]

_MOST_MESSAGE = 4000
"""Characters of an error message, whose values are each bounded on their own."""


class _ReaderLeft(Exception):
    """A broken pipe, which click would end with 1 and we end with 0."""


class _Commands(click.Group):
    """A group that passes a broken pipe on to ``main``."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _reader_may_leave():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _reader_may_leave():
            return super().invoke(ctx)


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise _ReaderLeft from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="farsearch", message="farsearch %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error too. Accepted anywhere.")
def cli(debug: bool) -> None:
    """Search how to fine-tune a BERT-like model on a small device.

    farsearch searches which neurons of each layer to train, how long to prime, and with which learning rate, so that
    the training fits the device's memory, ends in time, and loses the least accuracy.

    \b
    Examples:
      farsearch run --device jetson-nano --task reviews --model minilm     a search on the embedded sample
      farsearch pareto                                                     the best trade-offs of the latest study
      farsearch ui                                                         every trial, in MLflow
      farsearch export --prefer knee --out bundle/                         the chosen one, ready to use
    """


_MODULES = (
    run, worker, status, front, sync, ui, report, watch, reprice, verify, deploy, estimate, devices, models, spaces,
    tasks, studies, cache, doctor,
)  # fmt: skip
for module in _MODULES:
    for command in module.COMMANDS:
        cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with the code of its error, as ``errors`` lists them."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # an option of the group, which click accepts before the command and people type after it
    arguments_of_cli = ["--debug"] * debug + [argument for argument in given if argument != "--debug"]
    prepare_streams()
    # messages of transformers about a model are checked where it is loaded
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with catching():
        code = _run(arguments_of_cli, given, debug)
    sys.exit(code)


def _run(arguments: Sequence[str], given: Sequence[str], debug: bool) -> int:
    """Run a command, print its error on stderr, and return its exit code."""
    try:
        code = cli.main(args=arguments, prog_name="farsearch", standalone_mode=False, obj=given)
        with _reader_may_leave():
            sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort) as error:
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        if isinstance(cause, KeyboardInterrupt):
            _print_error(interruption())
        return TERMINATED if isinstance(cause, Terminated) else INTERRUPTED
    except click.ClickException as error:
        _complain_of_usage(error, given)
        return 2
    except FarsearchError as error:
        if debug:
            _print_traceback(given)
        _complain(str(error), given)
        return error.exit_code
    except _ReaderLeft:
        return _leave_quietly()
    except Exception as error:
        if debug:
            _print_traceback(given)
        hint = "" if debug else " (--debug shows where)"
        _complain(f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}{hint}", given)
        return 1
    return code if isinstance(code, int) else 0


def _leave_quietly() -> int:
    """Discard the remaining output after its reader, ``head`` for example, has closed the pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
    return 0


def _complain_of_usage(error: click.ClickException, given: Sequence[str]) -> None:
    """Print one line with the command's help to see; without a command, the help itself."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    else:
        path = "farsearch" if context is None else context.command_path
        _complain(f"{error.format_message().rstrip('.')} (see {path} --help)", given)


def _complain(message: str, given: Sequence[str]) -> None:
    """Print an error as one line, with flags for arguments and without the passwords of addresses."""
    line = hide_passwords(_with_flags(" ".join(message.split())), given_addresses(given))
    # text of others may contain control sequences
    _print_error(f"farsearch: {shown_text(line, _MOST_MESSAGE)}")


def _with_flags(message: str) -> str:
    """Replace the arguments that a message of the library names, as `` `max_time_s` ``, by flags: ``--max-time``.

    The flags are those of the commands' own parameters.
    """
    commands = [*cli.commands.values()]
    for group in cli.commands.values():
        commands += group.commands.values() if isinstance(group, click.Group) else ()
    flags = {
        parameter.name: max(parameter.opts, key=len)
        for command in commands
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }
    return re.sub("`([a-z_]+)`", lambda match: flags.get(match[1], match[0]), message)


def _print_error(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr)


def _print_traceback(given: Sequence[str]) -> None:
    """Print the traceback of the current error, without the passwords of addresses."""
    print(hide_passwords(traceback.format_exc(), given_addresses(given)), end="", file=sys.stderr)
