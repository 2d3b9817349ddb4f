"""A base for frozen dataclasses that are written as JSON types and read back strictly."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from farsearch.errors import BadInput

__all__ = ["Record"]

R = TypeVar("R", bound="Record")


class Record:
    """Base of the records: a strict, versionless round trip through JSON types."""

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON types (tuples become lists, nested records dicts)."""
        return typing.cast("dict[str, Any]", _encode(self))

    @classmethod
    def from_dict(cls: type[R], data: Mapping[str, Any]) -> R:
        """The record that ``data`` describes.

        Raises:
            BadInput: for an unknown or missing key, or a value of another type, naming the key.
        """
        return typing.cast("R", _decode(cls, data, cls.__name__))


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _encode(item) for key, item in value.items()}
    return value


def _decode(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type ``kind``; ``where`` names it in errors."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, value, where)
    if origin is Literal:
        if value not in args:
            raise BadInput(f"{where} is {value!r}; it must be one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise BadInput(f"{where} is {value!r}; it must be a list")
        return tuple(_decode(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise BadInput(f"{where} is {value!r}; it must be a table")
        return {str(key): _decode(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_record(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool)):
        raise BadInput(f"{where} is {value!r}; it must be of type {kind.__name__}")
    return value


def _decode_union(args: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in args:
        return None
    errors = []
    for option in (arg for arg in args if arg is not types.NoneType):
        try:
            return _decode(option, value, where)
        except BadInput as error:
            errors.append(error)
    raise errors[0]


def _decode_record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise BadInput(f"{where} is {value!r}; it must be a table of its fields")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise BadInput(f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(fields)}")
    required = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in value]
    if missing:
        raise BadInput(f"{where} lacks the key {missing[0]!r}; it needs {', '.join(required)}")
    return kind(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()})
