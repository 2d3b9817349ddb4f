"""Read and write the parts of a profile's file: tables, figures and measured rates, strictly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from farsearch.devices.figure import Figure, check, listed
from farsearch.devices.rates import PRODUCTS, STREAMS, ProductRate, Rates, StreamRate
from farsearch.errors import ProfileError
from farsearch.far.display import shown
from farsearch.runtime.near_names import did_you_mean

__all__ = ["encode", "encode_rates", "made", "read_figure", "read_rates", "read_table", "typed"]

_FIGURE_KEYS = ("value", "low", "high", "basis", "source")
_KINDS = {str: "text in quotes", bool: "true or false", float: "a number"}


def encode(value: Any) -> Any:
    """Return a figure as its table, other values as they are."""
    return {key: getattr(value, key) for key in _FIGURE_KEYS} if isinstance(value, Figure) else value


def encode_rates(rates: Rates) -> dict[str, Any]:
    """Return measured rates as the table of their file."""
    products = {kind: dict(vars(rate)) for kind, rate in rates.products.items()}
    streams = {kind: {"mib": list(rate.mib), "us": list(rate.us)} for kind, rate in rates.streams.items()}
    return {
        "conditions": dict(rates.conditions), "bare_us": rates.bare_us, "products": products, "streams": streams,
    }  # fmt: skip


def read_rates(value: Any, where: str = "rates") -> Rates:
    """Return measured rates; ``where`` names the table in errors."""
    table = read_table(value, where, ("conditions", "bare_us", "products", "streams"))
    bare_us = typed(table["bare_us"], float, f"{where}.bare_us")
    texts = read_table(table["conditions"], f"{where}.conditions", (), _keys(table["conditions"]))
    conditions = {key: typed(word, str, f"{where}.conditions[{shown(key)}]") for key, word in texts.items()}
    products = {}
    for kind, rate in read_table(table["products"], f"{where}.products", (), PRODUCTS).items():
        place = f"{where}.products.{kind}"
        fields = read_table(rate, place, tuple(ProductRate.__dataclass_fields__))
        numbers = {key: typed(number, float, f"{place}.{key}") for key, number in fields.items()}
        products[kind] = made(place, ProductRate, **numbers)
    streams = {}
    for kind, rate in read_table(table["streams"], f"{where}.streams", (), STREAMS).items():
        place = f"{where}.streams.{kind}"
        lists = {key: _numbers(part, f"{place}.{key}") for key, part in read_table(rate, place, ("mib", "us")).items()}
        streams[kind] = made(place, StreamRate, **lists)
    rates: Rates = made(where, Rates, conditions=conditions, bare_us=bare_us, products=products, streams=streams)
    return rates


def _keys(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Mapping) else ()


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    check(isinstance(value, list), f"{where} is {shown(value)}; it must be a list of numbers")
    return tuple(typed(number, float, where) for number in value)


def made(where: str, kind: Callable[..., Any], **values: Any) -> Any:
    """Return ``kind(**values)``; its ProfileError names the table ``where``."""
    try:
        return kind(**values)
    except ProfileError as error:
        raise ProfileError(f"{where}.{error}") from None


def read_table(value: Any, where: str, required: Iterable[str], optional: Iterable[str] = ()) -> Mapping[str, Any]:
    """Return ``value`` as a table with all ``required`` keys and no others than these and the ``optional``."""
    needed = list(required)
    known = [*needed, *optional]
    check(isinstance(value, Mapping), f"{where} is {shown(value)}; it must be a table")
    for key in value:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ProfileError(
                f"{where} has the unknown key {shown(key)}; {hint and hint + ' '}known are {listed(known)}"
            )
    for key in needed:
        check(key in value, f"{where} lacks the key {shown(key)}; it needs {listed(needed)}")
    table: Mapping[str, Any] = value
    return table


def typed(value: Any, kind: type, where: str) -> Any:
    """Return ``value`` if it is of type ``kind``; an integer is a float too."""
    if kind is float and type(value) is int:
        # tomllib's integers are unbounded, floats are not
        return float(value) if abs(value) < 2**63 else math.inf
    check(type(value) is kind, f"{where} is {shown(value)}; it must be {_KINDS.get(kind, kind.__name__)}")
    return value


def read_figure(value: Any, where: str) -> Figure:
    """Return a figure; missing ends of its range equal its value."""
    table = read_table(value, where, ("value", "basis", "source"), ("low", "high"))
    texts = {key: typed(table[key], str, f"{where}.{key}") for key in ("basis", "source")}
    numbers = {key: typed(table.get(key, table["value"]), float, f"{where}.{key}") for key in ("value", "low", "high")}
    figure: Figure = made(where, Figure, **numbers, **texts)
    return figure
