"""The command line: parses, wires, prints, exits. Nothing else reads the environment or exits.

===========  ==========================================================
__init__     the group of commands, errors and signals to exit codes
options.py   options and arguments that several commands share
details.py   all that is known of one trial or one profile, as rows
terminal.py  printing, on a terminal and in a pipe
run.py       run: the search
worker.py    worker: joins a search
pool.py      the worker processes of one run
mirror.py    a study in MLflow, kept up to date while it is searched
progress.py  what a search shows while it goes on
inspect.py   status, trials, show, pareto, sync, ui: what a study holds
report.py    report: a study as one page
verify.py    verify: points of the front trained again
deploy.py    export, finetune
attach.py    a study of another process, with what this host has
estimate.py  estimate: what a configuration costs
devices.py   devices: list, show, calibrate, import, check
spaces.py    spaces
tasks.py     tasks: list, show
studies.py   studies: list, rename, delete
cache.py     cache: show, clear
doctor.py    doctor: what of this machine will not do
===========  ==========================================================

Commands import what they need when they run: torch, optuna and mlflow together take several seconds.
"""

from __future__ import annotations

import contextlib
import os
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
    inspect,
    report,
    run,
    spaces,
    studies,
    tasks,
    verify,
    worker,
)
from farsearch.cli.options import given_addresses
from farsearch.cli.terminal import prepare_streams
from farsearch.errors import FarsearchError
from farsearch.far.display import shown_text
from farsearch.signals import INTERRUPTED, TERMINATED, Terminated, catching, interruption

__all__ = ["main"]

_MOST_MESSAGE = 4000
"""Characters of an error; each value in it is bounded by itself."""


class _ReaderLeft(Exception):
    """A broken pipe, which click would end with 1 and we end with 0: whoever reads has seen enough."""


class _Commands(click.Group):
    """A group that lets a broken pipe through to ``main``."""

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
@click.option("--debug", is_flag=True, help="Show the traceback of an error too. Takes its place anywhere.")
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


for module in (run, worker, inspect, report, verify, deploy, estimate, devices, spaces, tasks, studies, cache, doctor):
    for command in module.COMMANDS:
        cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with the code that design and README name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # an option of the group, which click wants before the command and people type after it
    words = ["--debug"] * debug + [word for word in given if word != "--debug"]
    prepare_streams()
    # what transformers has to say of a model is checked where it is loaded
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with catching():
        code = _run(words, given, debug)
    sys.exit(code)


def _run(words: Sequence[str], given: Sequence[str], debug: bool) -> int:
    """Run a command. Its exit code; what went wrong is on stderr."""
    try:
        code = cli.main(args=words, prog_name="farsearch", standalone_mode=False, obj=given)
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
    """The reader, head for example, has seen enough. What is still to be flushed has no place to go."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
    return 0


def _complain_of_usage(error: click.ClickException, given: Sequence[str]) -> None:
    """One line with the command whose help tells more; without any command the help itself."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    else:
        path = "farsearch" if context is None else context.command_path
        _complain(f"{error.format_message().rstrip('.')} (see {path} --help)", given)


def _complain(message: str, given: Sequence[str]) -> None:
    """Print one line, without the passwords of the addresses that were given."""
    line = hide_passwords(" ".join(message.split()), given_addresses(given))
    # what others wrote may steer a terminal
    _print_error(f"farsearch: {shown_text(line, _MOST_MESSAGE)}")


def _print_error(text: str) -> None:
    """A line on stderr, if anybody reads it."""
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr)


def _print_traceback(given: Sequence[str]) -> None:
    """Print where the error that is handled now came from, without the passwords of the addresses that were given."""
    print(hide_passwords(traceback.format_exc(), given_addresses(given)), end="", file=sys.stderr)
