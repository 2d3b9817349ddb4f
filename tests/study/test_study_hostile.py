"""Hostile space files, task files and profiles are refused in one line, however large they expand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from farsearch.devices.profile import parse_profile
from farsearch.errors import BadInput
from farsearch.study.space import load_space
from farsearch.tasks.description import own_from_toml
from tests.journey import call

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
"""A thousand million leaves."""

SPACE = "schema_version: 1\n"

SPACES = {
    "aliases as a value": f"{BOMB}schema_version: *a9\n",
    "aliases as the version": f"schema_version: &v [{', '.join(['y'] * 99)}]\n",
    "aliases as the title": "title: &t [[1], [2]]\n" + SPACE,
    "aliases as search": "search: [&b [x, x], [*b, *b], [*b]]\n" + SPACE,
    "a list that holds itself": "search: &a [*a]\n" + SPACE,
    "merge keys": "x: &a {b: 1}\ny: {<<: *a}\n" + SPACE,
    "deep": "[" * 5000 + "]" * 5000,
    "a number without end": f"schema_version: {'9' * 5000}\n",
    "a date that is none": "schema_version: 2001-99-99\n",
    "a large number": SPACE + f"search: {{}}\nfixed: {{epochs: {'9' * 400}}}\n",
    "a long key": "k" * 100_000 + ": 1\n" + SPACE,
    "keys of all kinds": "1: 2\nnull: 3\ntrue: 4\n" + SPACE,
    "escapes": SPACE + 'title: x\nsearch: "\\e[31m"\n',
    "too long": "# " + "x" * 1_100_000,
}


def line_of(error: BadInput) -> str:
    """Return the error message, which is one bounded line without control characters."""
    line = str(error)
    assert len(line) < 700
    assert line.isprintable()
    return line


@pytest.mark.parametrize("text", SPACES.values(), ids=SPACES)
def test_hostile_space_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    """Nothing is expanded before the check."""
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_space(str(path))
    line_of(caught.value)


TOMLS = {
    "deep": "a = " + "[" * 5000 + "]" * 5000,
    "a number without end": f"a = {'9' * 5000}",
    "a large number": f"schema_version = 2\nname = {'9' * 400}",
    "a long text": f'name = "{"x" * 100_000}"\nschema_version = 2',
    "escapes": 'name = "\\u001b[31m"',
    "many": f"name = [{', '.join(['1'] * 100_000)}]",
}


@pytest.mark.parametrize("text", TOMLS.values(), ids=TOMLS)
@pytest.mark.parametrize("kind", ["profile", "task"])
def test_hostile_toml_is_refused_in_one_line(tmp_path: Path, kind: str, text: str) -> None:
    """The file is a device profile or a user's task."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    readers: dict[str, Callable[[], object]] = {
        "profile": lambda: parse_profile(text, "mine.toml"),
        "task": lambda: own_from_toml(path),
    }
    with pytest.raises(BadInput) as caught:
        readers[kind]()
    line_of(caught.value)


@pytest.mark.parametrize("value", ["9" * 400, "9" * 5000, "1e999", "nan", "\x1b[31m", "x" * 5000])
def test_hostile_setting_is_refused_in_one_line(tmp_path: Path, value: str) -> None:
    """``--set`` ends with exit code 2."""
    done = call(
        tmp_path, "estimate", "--device", "jetson-nano", "--model", "minilm", "--set", f"learning_rate={value}"
    )  # fmt: skip
    assert (done.code, done.out) == (2, "")
    assert len(done.err) < 700
    assert done.err.rstrip("\n").isprintable()


FILES = {
    "deep": "[" * 100_000,
    "a number without end": '{"what": ' + "9" * 10_000 + "}",
    "a large number": '{"what": "farsearch measurement", "schema_version": 1, "study": ' + "9" * 4_000 + "}",
    "many": '{"what": "farsearch measurement", "schema_version": [' + "1, " * 100_000 + "1]}",
    "escapes": '{"what": "farsearch measurement", "schema_version": "\\u001b[31m"}',
    "a list": "[]",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_hostile_measurement_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    """The import of a measurement ends with exit code 2."""
    (tmp_path / "measurement.json").write_text(text)
    done = call(tmp_path, "devices", "import", "measurement.json", "--name", "mine")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert len(done.err) < 700
    assert done.err.rstrip("\n").isprintable()
    assert "unexpected" not in done.err
