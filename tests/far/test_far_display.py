"""User values in messages: bounded in length, time and memory, and safe for a terminal."""

from __future__ import annotations

import time
from typing import Any

import pytest

from farsearch.far.display import shown, shown_seconds, shown_text


def nested(depth: int, width: int) -> Any:
    """A list of ``width ** depth`` leaves in very little memory, as YAML's aliases make it."""
    value: Any = ["x"]
    for _ in range(depth):
        value = [value] * width
    return value


def loop() -> list[Any]:
    """A list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [1, 1.5, None, True, "a b", [1, 2], {"a": [1, {"b": None}]}, []])
def test_a_short_value_is_its_repr(value: object) -> None:
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value", ["x" * 10**7, b"x" * 10**7, list(range(10**6)), dict.fromkeys(range(10**6)), 10**5000, nested(30, 30),
              loop()],
    ids=["text", "bytes", "list", "table", "number", "aliases", "loop"],
)  # fmt: skip
def test_a_long_value_is_truncated_before_formatting(value: object) -> None:
    """Also one with more leaves than fit into memory."""
    began = time.monotonic()
    assert len(shown(value)) < 80
    assert time.monotonic() - began < 5


def test_control_characters_are_escaped() -> None:
    """Including escape sequences and newlines."""
    assert shown("\x1b[31m\n") == r"'\x1b[31m\n'"
    assert shown_text("naïve \x1b]0;x\x07 \u202e") == r"naïve \x1b]0;x\x07 \u202e"
    assert shown_text("abcdef", 3) == "abc…"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4e-5, "0.04 ms"), (0.0412, "41 ms"), (-0.004, "-4.0 ms"), (9.94, "9.9 s"), (204.4, "204 s")],
)
def test_seconds_are_shown_in_a_suitable_unit(seconds: float, text: str) -> None:
    """Only 0 is shown as 0."""
    assert shown_seconds(seconds) == text
