"""Options and arguments that several commands share, and their types."""

from __future__ import annotations

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
from farsearch.far.display import shown

if TYPE_CHECKING:
    from farsearch.study.store import Store

__all__ = [
    "HOME",
    "AboveZero",
    "KeyValue",
    "ParamType",
    "SamplesOrAll",
    "choice_options",
    "command_name",
    "given_addresses",
    "heartbeat_option",
    "json_option",
    "open_store",
    "own_options",
    "storage_option",
    "study_argument",
    "task_options",
    "tracking_option",
    "typed_command",
]

HOME = Path(".farsearch")
"""Journal, saved tensors and caches of a working directory."""

_ADDRESSES = ("--storage", "--tracking-uri")
"""Options whose values may hold a password. Each has a variable of the environment."""

F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic for type checkers only, in the older versions of click


def study_argument(function: F) -> F:
    """The name of a study; the latest where none is given."""
    return click.argument("study", required=False, metavar="[STUDY]")(function)


def json_option(function: F) -> F:
    """Data for programs on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with a schema_version.")(
        function
    )


def choice_options(function: F) -> F:
    """Which trial: by intent, within bounds, or by number. The command gets them as one ``Intent``, ``intent``."""

    @functools.wraps(function)
    def with_intent(*args: Any, **given: Any) -> Any:
        from farsearch.select import Intent

        names = {"max_memory": "max_memory_mib", "max_time": "max_time_s"}
        wanted = {names.get(name, name): given.pop(name) for name in _CHOICE}
        return function(*args, intent=Intent(**wanted), **given)

    for name, options in reversed([*_CHOICE.items()]):
        click.option(f"--{name.replace('_', '-')}", **options)(with_intent)
    return cast("F", with_intent)


def task_options(function: F) -> F:
    """An official task, or the user's own data. The command gets ``task``, and ``own``: ``OwnData`` as JSON types."""

    @functools.wraps(function)
    def with_task(*args: Any, task: str | None, **given: Any) -> Any:
        from farsearch.tasks.description import own_data

        described = own_data(task, _own_fields({field: given.pop(name) for name, field in _OWN_FIELDS.items()}))
        if described is None:
            return function(*args, task=task, own=None, **given)
        return function(*args, task=described.name, own=described.to_dict(), **given)

    return cast("F", _with_options(with_task, _TASK))


def own_options(function: F) -> F:
    """What is said of the user's own rows beside their file. The command gets ``given``: fields of ``OwnData``."""

    @functools.wraps(function)
    def with_given(*args: Any, **given: Any) -> Any:
        said = _own_fields({field: given.pop(name) for name, field in _OWN_FIELDS.items() if name != "train"})
        return function(*args, given=said, **given)

    others = {name: options for name, options in _TASK.items() if name not in ("task", "train")}
    return cast("F", _with_options(with_given, others))


def _with_options(function: Any, options: Mapping[str, Mapping[str, Any]]) -> Any:
    for name, each in reversed([*options.items()]):
        click.option(f"--{name.replace('_', '-')}", **each)(function)
    return function


def storage_option(function: F) -> F:
    """Where Optuna keeps the studies."""
    return click.option(
        "--storage",
        metavar="URL",
        envvar="FARSEARCH_STORAGE",
        help="Database of the studies, postgresql://...; default: a journal in .farsearch/.",
    )(function)


def tracking_option(function: F) -> F:
    """Where MLflow keeps its runs."""
    return click.option(
        "--tracking-uri",
        metavar="URI",
        envvar="FARSEARCH_TRACKING_URI",
        default="sqlite:///mlflow.db",
        show_default=True,
        help="MLflow's database, or http://... of its server.",
    )(function)


def heartbeat_option(function: F) -> F:
    """How soon the trial of a host that is gone is recovered. Not in the help: a minute suits nearly all."""
    return click.option(
        "--heartbeat",
        type=click.IntRange(min=1),
        metavar="S",
        hidden=True,
        help="Seconds between a trial's signs of life in a database.  [default: 60]",
    )(function)


def open_store(storage: str | None, heartbeat_s: int | None = None, note: Callable[[str], None] | None = None) -> Store:
    """The studies of this working directory, or of a database.

    Args:
        note: told when a database is waited for, by commands that train; others do not wait.
    """
    from farsearch.study.store import HEARTBEAT_S, Store

    return Store(HOME, storage, heartbeat_s or HEARTBEAT_S, note)


def command_name() -> str:
    """How this program was called, so that what it prints can be typed."""
    name = sys.argv[0]
    if os.path.basename(name) == "__main__.py":
        return f"{shlex.quote(os.path.basename(sys.executable))} -m farsearch"
    shown = os.path.relpath(name) if os.path.isabs(name) and Path.cwd() in Path(name).parents else name
    return shlex.quote(shown if os.sep in name and not os.path.isabs(shown) else os.path.basename(name))


def typed_command() -> str:
    """The command that runs now, as it can be typed again; it is printed and kept, so passwords are left out."""
    given = click.get_current_context().find_root().obj
    words = list(sys.argv[1:] if given is None else given)
    for place, address in _addresses(words).items():
        words[place] = words[place].removesuffix(address) + shown_address(address)
    return f"{command_name()} {shlex.join(words)}"


def given_addresses(words: Sequence[str]) -> list[str]:
    """Return the addresses that a command was given, in its words or in the environment."""
    inherited = [os.environ.get(option.replace("--", "FARSEARCH_").replace("-", "_").upper()) for option in _ADDRESSES]
    return [address for address in [*_addresses(words).values(), *inherited] if address]


def _addresses(words: Sequence[str]) -> dict[int, str]:
    """Return the addresses among the words of a command, by the place of the word that each one ends."""
    found = {}
    for place, word in enumerate(words):
        option, sign, value = word.partition("=")
        if sign and option in _ADDRESSES:
            found[place] = value
        elif place and words[place - 1] in _ADDRESSES:
            found[place] = word
    return found


class AboveZero(ParamType):
    """A finite number above 0."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A float."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{shown(value)} is not a number above 0", param, ctx)
        return number


_CHOICE: Mapping[str, Mapping[str, Any]] = {
    "prefer": {
        "type": click.Choice(["knee", "accuracy", "memory", "time"]),
        "help": "By what it is best in on the front; the knee is the compromise.  [default: knee]",
    },
    "within": {
        "type": AboveZero(),
        "metavar": "POINTS",
        "help": "The cheapest (least memory × time, or as --prefer says) so near to the best metric: 0.5 is half a "
        "point of accuracy, or 0.005 of a correlation.",
    },
    "max_memory": {"type": AboveZero(), "metavar": "MIB", "help": "Only trials whose peak memory is at most this."},
    "max_time": {"type": AboveZero(), "metavar": "S", "help": "Only trials whose time on the device is at most this."},
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
"""The options of a choice, in the order of the help."""


_KINDS = ("classification", "multi-label", "regression", "token-classification", "question-answering")
_SEPARATORS = ("comma", "tab", "semicolon", "pipe")
_TASK: Mapping[str, Mapping[str, Any]] = {
    "task": {"metavar": "NAME", "help": "An official one (see: farsearch tasks list), or your own: a .toml file."},
    "train": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "Your own rows: .csv, .tsv, .jsonl, .json, .conll, .parquet, or a folder: of Dataset.save_to_disk, "
        "or with a folder of texts for each class.",
    },
    "train_labels": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "A label a line, where --train is a text a line.",
    },
    "dev": {
        "type": click.Path(path_type=Path),
        "metavar": "FILE",
        "help": "Your own rows to report on.  [default: 20 % of --train, at most 1024]",
    },
    "dev_labels": {"type": click.Path(path_type=Path), "metavar": "FILE", "help": "A label a line of --dev."},
    "separator": {
        "type": click.Choice(_SEPARATORS),
        "help": "What is between the columns of your tables.  [default: it is found]",
    },
    "columns": {
        "metavar": "NAME,...",
        "callback": lambda _ctx, _param, value: None if value is None else tuple(value.split(",")),
        "help": "Columns of your tables that have no header, in their order: text,label.",
    },
    "text_column": {
        "multiple": True,
        "metavar": "NAME",
        "help": "Column of your texts; twice for a pair, or question and context.  [default: a usual name]",
    },
    "label_column": {
        "multiple": True,
        "metavar": "NAME",
        "help": "Column of what is learned; several times for columns of 0 and 1, one for each label.  "
        "[default: a usual name]",
    },
    "kind": {
        "type": click.Choice(_KINDS),
        "help": "What is learned of your rows.  [default: by their labels. Numbers with fractions: regression; lists, "
        "or names with | between: multi-label, or token-classification where there is one for each word; answers: "
        "question-answering; others: classification]",
    },
    "label": {
        "multiple": True,
        "metavar": "NAME",
        "help": "Name of a class, label or tag, by id; name all. Others are bad rows.  [default: all that are found]",
    },
    "label_separator": {
        "metavar": "TEXT",
        "help": "What is between the labels of a row, in one cell; the kind is then multi-label.  [default: |]",
    },
    "decimal_comma": {"is_flag": True, "help": "Numbers are written as 0,5; the kind is then regression."},
    "positive": {
        "metavar": "LABEL",
        "help": "Class that --metric f1 or accuracy_f1 is of.  [default: the one with the fewest rows]",
    },
    "metric": {"metavar": "NAME", "help": "What is searched on, of your own data.  [default: the kind's]"},
    "skip_bad_rows": {"is_flag": True, "help": "Leave out your rows that break the format, and count them."},
}
"""The options of a task, in the order of the help."""

_OWN_FIELDS = {
    name: {"text_column": "text_columns", "label": "labels"}.get(name, name) for name in _TASK if name != "task"
}


def _own_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``OwnData``: one column of labels is another than several."""
    labels = given["label_column"]
    one, several = (labels[0], None) if len(labels) == 1 else (None, labels)
    return {**given, "label_column": one, "label_columns": several}


class SamplesOrAll(ParamType):
    """A number of rows, or ``all``."""

    name = "n|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An int or ``all``."""
        if value == "all" or isinstance(value, int):
            return value
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{shown(value)} is not a number of rows; give 1 or more, or all", param, ctx)
        return int(value)


class KeyValue(ParamType):
    """``key=value`` with a number, true or false as value."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A pair of key and parsed value."""
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
