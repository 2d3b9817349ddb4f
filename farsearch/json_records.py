"""A base for frozen dataclasses with a strict round trip through JSON types.

The reader of a class is built once from its annotations: a large study has half a million small records.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from farsearch.errors import BadInput
from farsearch.far.display import shown, shown_text

__all__ = ["UNLESS_DEFAULT", "Record"]

UNLESS_DEFAULT = {"stored": "unless default"}
"""Metadata of a field that ``to_dict`` leaves out where it has its default: added to a record of which older ones are
stored, and part of fingerprints."""

R = TypeVar("R", bound="Record")


class Record:
    """Base of the records: a strict round trip through JSON types, without a version."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types: tuples become lists, nested records dicts."""
        return typing.cast("dict[str, Any]", _encode(self))

    @classmethod
    def from_dict(cls: type[R], data: Mapping[str, Any]) -> R:
        """Read a record from JSON types.

        Raises:
            BadInput: for an unknown or missing key, or a value of another type, naming the key.
        """
        try:
            return typing.cast("R", _reader(typing.cast("Any", cls)).read(data))
        except _Wrong as error:
            raise BadInput(f"{cls.__name__}{error.place} {error.rule}") from None


_PLAIN = frozenset({str, int, float, bool, types.NoneType})


def _encode(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if dataclasses.is_dataclass(kind):
        done = {name: _encode(getattr(value, name)) for name in _field_names(kind)}
        for name, default in _left_out(kind):
            if getattr(value, name) == default:
                del done[name]
        return done
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    return value


@functools.cache
def _field_names(kind: Any) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(kind))


@functools.cache
def _left_out(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Return the fields that are stored unless they have their default, and the defaults."""
    fields = dataclasses.fields(kind)
    return tuple((f.name, f.default) for f in fields if f.metadata.get("stored") == UNLESS_DEFAULT["stored"])


class _Wrong(BadInput):
    """A value that breaks a rule. ``place`` is its path, to which each outer level adds its part in front."""

    def __init__(self, rule: str, place: str = "") -> None:
        super().__init__(rule)
        self.rule, self.place = rule, place

    def inside(self, place: str) -> _Wrong:
        """Return the error with the part of an outer level."""
        self.place = place + self.place
        return self


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads values of one annotated type.

    Attributes:
        as_is: types whose values are valid without ``read``.
        read: returns the value, or raises ``_Wrong``.
    """

    as_is: frozenset[Any]
    read: Callable[[Any], Any]


@functools.cache
def _reader(kind: Any) -> _Reader:
    """Return the reader of the annotated type ``kind``."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _Reader(_PLAIN, lambda value: value)
    if origin in (typing.Union, types.UnionType):
        return _union_reader(args)
    if origin is Literal:
        return _literal_reader(args)
    if origin is tuple:
        return _tuple_reader(_reader(args[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _table_reader(_reader(args[1]))
    if dataclasses.is_dataclass(kind):
        return _record_reader(kind)
    return _plain_reader(kind)


def _plain_reader(kind: type) -> _Reader:
    def read(value: Any) -> Any:
        number = kind in (int, float) and isinstance(value, bool)
        if kind is float and isinstance(value, int) and not number:
            if abs(value) >= 2**63:  # JSON's integers have no bound, but a float has
                raise _Wrong("is an integer of more than 63 bits; it must be a smaller number")
            return float(value)
        if kind is int and isinstance(value, int) and abs(value) >= 2**63:
            raise _Wrong("is an integer of more than 63 bits; it must be a smaller number")
        if number or not isinstance(value, kind):
            raise _Wrong(f"is {shown(value)}; it must be of type {kind.__name__}")
        return value

    # integers are always read, to bound them: JSON's have no bound
    return _Reader(frozenset() if kind is int else frozenset({kind}), read)


def _literal_reader(known: tuple[Any, ...]) -> _Reader:
    def read(value: Any) -> Any:
        if value not in known:
            raise _Wrong(f"is {shown(value)}; it must be one of {', '.join(map(repr, known))}")
        return value

    return _Reader(frozenset(), read)


def _union_reader(args: tuple[Any, ...]) -> _Reader:
    options = [_reader(arg) for arg in args if arg is not types.NoneType]
    optional = types.NoneType in args

    def read(value: Any) -> Any:
        if value is None and optional:
            return None
        errors = []
        for option in options:
            try:
                return option.read(value)
            except BadInput as error:
                errors.append(error)
        raise errors[0]

    # the first option that accepts a value reads it, so only the types of the first are sure
    return _Reader(options[0].as_is | ({types.NoneType} if optional else set()), read)


def _tuple_reader(items: _Reader) -> _Reader:
    as_is, read_item = items.as_is, items.read

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _Wrong(f"is {shown(value)}; it must be a list")
        done: list[Any] = []
        try:
            for item in value:
                done.append(item if type(item) in as_is else read_item(item))
        except _Wrong as error:
            raise error.inside(f"[{len(done)}]") from None
        return tuple(done)

    return _Reader(frozenset(), read)


def _table_reader(items: _Reader) -> _Reader:
    as_is, read_item = items.as_is, items.read

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _Wrong(f"is {shown(value)}; it must be a table")
        done: dict[str, Any] = {}
        for key, item in value.items():
            try:
                done[str(key)] = item if type(item) in as_is else read_item(item)
            except _Wrong as error:
                raise error.inside(f".{shown_text(str(key))}") from None
        return done

    return _Reader(frozenset(), read)


def _record_reader(kind: Any) -> _Reader:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    readers = {f.name: _reader(hints[f.name]) for f in fields}
    required = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    plan = {name: (reader.as_is, reader.read) for name, reader in readers.items()}

    def read(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _Wrong(f"is {shown(value)}; it must be a table of its fields")
        if not plan.keys() >= value.keys():
            unknown = sorted(value.keys() - plan.keys(), key=str)
            raise _Wrong(f"has the unknown key {shown(unknown[0])}; known are {', '.join(plan)}")
        for name in required:
            if name not in value:
                raise _Wrong(f"lacks the key {shown(name)}; it needs {', '.join(required)}")
        done: dict[str, Any] = {}
        name = ""
        try:
            for name, item in value.items():
                as_is, read_item = plan[name]
                done[name] = item if type(item) in as_is else read_item(item)
        except _Wrong as error:
            raise error.inside(f".{name}") from None
        return kind(**done)

    return _Reader(frozenset(), read)
