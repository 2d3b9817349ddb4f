"""Options and arguments of several commands, and their types."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from farsearch.addresses import shown_address
from farsearch.api.workspace import Workspace
from farsearch.cli.task_options import task_options, with_options
from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.search_spec import FLAGS, SearchSpec

__all__ = [
    "AboveZero",
    "ParamType",
    "SamplesOrAll",
    "choice_options",
    "command_name",
    "given_addresses",
    "heartbeat_option",
    "here_options",
    "json_option",
    "open_workspace",
    "place_options",
    "spec_options",
    "storage_option",
    "study_argument",
    "tracking_option",
    "typed_command",
]

_ADDRESSES = ("--storage", "--tracking-uri")
"""Options whose values may hold a password. Each has an environment variable."""

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic for type checkers only, in the older versions of click


def study_argument(function: F) -> F:
    """Add the name of a study; None is the latest that has trials."""
    return click.argument("study", required=False, metavar="[STUDY]")(function)


def json_option(function: F) -> F:
    """Add ``--json``: data for programs on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with a schema_version.")(
        function
    )


def choice_options(function: F) -> F:
    """Add the options of a choice among trials. The command gets ``intent``, the arguments of ``Study.choose``."""

    @functools.wraps(function)
    def with_intent(*args: Any, **given: Any) -> Any:
        return function(*args, intent={name: given.pop(name) for name in _CHOICE}, **given)

    return cast("F", with_options(with_intent, _CHOICE))


def spec_options(function: F) -> F:
    """Add the options of a search.

    The command gets ``spec``, the fields of ``SearchSpec`` by name, and ``more_devices`` of further ``--device``.
    """
    fields = [each for each in dataclasses.fields(SearchSpec) if each.name not in ("task", "own")]

    @functools.wraps(function)
    def with_spec(*args: Any, **given: Any) -> Any:
        given["device"], *more_devices = given["device"]
        spec = {name: given.pop(name) for name in ("task", "own", *(each.name for each in fields))}
        return function(*args, spec=spec, more_devices=more_devices, **given)

    device, *others = fields
    decorated: Any = with_spec
    for each in reversed(others):
        decorated = _spec_option(each)(decorated)
    text = f"{device.metadata['help']} Again for others, for which the trained trials are priced too."
    devices = click.option(
        FLAGS["device"], "device", help=text, metavar=device.metadata["metavar"], required=True, multiple=True,
        callback=lambda _ctx, _param, names: _distinct(names),
    )  # fmt: skip
    return cast("F", devices(task_options(decorated)))


def _distinct(devices: Sequence[str]) -> Sequence[str]:
    for i, name in enumerate(devices):
        if name in devices[:i]:
            raise BadInput(f"--device {shown(name)} is given twice; give each device once")
    return devices


def _spec_option(setting: dataclasses.Field[Any]) -> Callable[[Any], Any]:
    """Return the option of one field of ``SearchSpec``."""
    rules, default = setting.metadata, setting.default
    options: dict[str, Any]
    flag = FLAGS[setting.name]
    if isinstance(default, bool):
        flag, options = (
            (f"{flag}/--no-{setting.name}", {"show_default": True}) if default else (flag, {"is_flag": True})
        )
    elif rules["choices"]:
        options = {"type": click.Choice(rules["choices"]), "show_default": True}
    elif rules["least"] is not None:
        options = {"type": click.IntRange(min=rules["least"]), "show_default": default is not None}
    elif rules["kind"] == "pairs":
        options = {"type": _KeyValue(), "multiple": True, "callback": lambda _ctx, _param, pairs: _unique(pairs)}
    else:
        kinds = {"text": None, "path": click.Path(path_type=Path), "positive": AboveZero(), "rows": SamplesOrAll()}
        options = {"type": kinds[rules["kind"]], "show_default": default is not None}
    if default is not dataclasses.MISSING:
        options["default"] = default
    return click.option(flag, setting.name, help=rules["help"], metavar=rules["metavar"], **options)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the values of ``--set`` by parameter."""
    for i, (key, value) in enumerate(pairs):
        if key in dict(pairs[:i]):
            raise BadInput(f"--set {key}={value}: {key} is set twice; set it once")
    return dict(pairs)


def place_options(function: F) -> F:
    """Add the options that name where this host has a study's data and model."""
    for decorate in (
        click.option(
            "--model", metavar="NAME", help="Folder of its model on this host.  [default: where the run had it]"
        ),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path),
            help="Folder with the study's data on this host.  [default: where the run had it]",
        ),
    ):
        function = decorate(function)
    return function


def here_options(function: F) -> F:
    """Add the options that name where this host has a study's data, model and device profile."""
    return click.option(
        "--device", metavar="NAME", help="Its profile on this host, a .toml file.  [default: by its name]"
    )(place_options(function))


def storage_option(function: F) -> F:
    """Add the database that Optuna stores the studies in."""
    return click.option(
        "--storage",
        metavar="URL",
        envvar="FARSEARCH_STORAGE",
        help="Database of the studies, postgresql://...; default: a journal in .farsearch/.",
    )(function)


def tracking_option(function: F) -> F:
    """Add the address of MLflow."""
    return click.option(
        "--tracking-uri",
        metavar="URI",
        envvar="FARSEARCH_TRACKING_URI",
        default="sqlite:///mlflow.db",
        show_default=True,
        help="MLflow's database, or http://... of its server.",
    )(function)


def heartbeat_option(function: F) -> F:
    """Add the interval after which a lost host's trial is recovered. Hidden: a minute suits nearly all."""
    return click.option(
        "--heartbeat",
        type=click.IntRange(min=1),
        metavar="S",
        hidden=True,
        help="Seconds between a trial's signs of life in a database.  [default: 60]",
    )(function)


def open_workspace(
    storage: str | None = None,
    tracking_uri: str | None = None,
    heartbeat_s: int | None = None,
    command: str | None = None,
) -> Workspace:
    """Return the studies of this working directory, or of a database."""
    return Workspace(storage=storage, tracking_uri=tracking_uri, heartbeat_s=heartbeat_s, command=command)


def command_name() -> str:
    """Return the program as it was called, for commands that users can copy."""
    name = sys.argv[0]
    if os.path.basename(name) == "__main__.py":
        return f"{shlex.quote(os.path.basename(sys.executable))} -m farsearch"
    shown = os.path.relpath(name) if os.path.isabs(name) and Path.cwd() in Path(name).parents else name
    return shlex.quote(shown if os.sep in name and not os.path.isabs(shown) else os.path.basename(name))


def typed_command() -> str:
    """Return the running command for users to repeat; it is printed and stored, so without passwords."""
    given = click.get_current_context().find_root().obj
    arguments = list(sys.argv[1:] if given is None else given)
    for i, address in _addresses(arguments).items():
        arguments[i] = arguments[i].removesuffix(address) + shown_address(address)
    return f"{command_name()} {shlex.join(arguments)}"


def given_addresses(arguments: Sequence[str]) -> list[str]:
    """Return the addresses that a command was given, in its arguments or in the environment."""
    inherited = [os.environ.get(option.replace("--", "FARSEARCH_").replace("-", "_").upper()) for option in _ADDRESSES]
    return [address for address in [*_addresses(arguments).values(), *inherited] if address]


def _addresses(arguments: Sequence[str]) -> dict[int, str]:
    """Return the addresses among the arguments of a command, by the index of the argument that each one ends."""
    addresses = {}
    for i, argument in enumerate(arguments):
        option, sign, value = argument.partition("=")
        if sign and option in _ADDRESSES:
            addresses[i] = value
        elif i and arguments[i - 1] in _ADDRESSES:
            addresses[i] = argument
    return addresses


class AboveZero(ParamType):
    """A finite number above 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a float."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{shown(value)} is not a number above 0", param, ctx)
        return number


class _PointsOrNoise(AboveZero):
    """A number of points, or ``noise``."""

    name = "points|noise"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a float or ``noise``."""
        return value if value == "noise" else super().convert(value, param, ctx)


_CHOICE: Mapping[str, Mapping[str, Any]] = {
    "prefer": {
        "type": click.Choice(["knee", "accuracy", "memory", "time"]),
        "help": "Best in which objective on the front; the knee is the compromise.  [default: knee]",
    },
    "within": {
        "type": _PointsOrNoise(),
        "metavar": "POINTS|noise",
        "help": "The cheapest (quickest, then least memory; or as --prefer) within so many points of the best metric: "
        "0.5 is half a point of accuracy, or 0.005 of a correlation; noise: the error of the difference, a point at "
        "most.",
    },
    "max_memory_mib": {
        "flag": "--max-memory",
        "type": AboveZero(),
        "metavar": "MIB",
        "help": "Only trials whose peak memory is at most this.",
    },
    "max_time_s": {
        "flag": "--max-time",
        "type": AboveZero(),
        "metavar": "S",
        "help": "Only trials whose time on the device is at most this.",
    },
    "min_metric": {
        "type": AboveZero(),
        "metavar": "X",
        "help": "Only trials whose metric is at least this: 91.5 or 0.915 (up to 1 it is the metric itself).",
    },
    "trial": {"type": click.IntRange(min=0), "metavar": "N", "help": "By number, on the front or not."},
    "plan": {
        "metavar": "PLAN",
        "help": "Take every trial under another step plan, which learns the same: memory, time or balanced, or a "
        "plan's name, such as recompute.  [default: the study's]",
    },
}
"""The options of a choice by the fields of ``Intent``, in the order of the help."""


class SamplesOrAll(ParamType):
    """A number of rows, or ``all``."""

    name = "n|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an int or ``all``."""
        if value == "all" or isinstance(value, int):
            return value
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{shown(value)} is not a number of rows; give 1 or more, or all", param, ctx)
        return int(value)


class _KeyValue(ParamType):
    """``key=value`` with a number, true or false as value."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the key and the parsed value."""
        if isinstance(value, tuple):
            return value
        key, sign, text = str(value).partition("=")
        if not sign or not key:
            self.fail(f"{shown(value)} is not of the form key=value, for example learning_rate=1e-4", param, ctx)
        if text in ("true", "false"):
            return key, text == "true"
        for kind in (int, float):
            try:
                return key, kind(text)
            except ValueError:
                continue
        self.fail(f"{shown(text)} in {shown(value)} is neither a number nor true or false", param, ctx)
