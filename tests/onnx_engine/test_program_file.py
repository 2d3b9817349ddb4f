"""A program file is validated strictly: any change is refused in one line, or gives a valid program."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from farsearch.runtime.program_file import Program, check_fit, read_program
from tests.onnx_engine.hand_made import program_values

NAMES = [entry["name"] for entry in program_values(20)["merge"]]
VALUES: list[Any] = [
    None, True, 0, -1, 10**8, 10**40, 0.5, float("nan"), "x", "a" * 100_000, "\x1b[31m\n", [], {}, [1, 2], {"a": 1},
    list(range(100_000)), "weight:embeddings", "graph-00.onnx",
]  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values."""
    if path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(item, (*path, key))


def put(values: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        values = values[key]
    values[path[-1]] = value


def test_the_program_is_read() -> None:
    program = read_program(program_values(20))
    assert [tensor.name for tensor in program.trained][:1] == ["block.learner_up"]
    assert program.results == ("logits",)
    assert program.targets == ("labels",)
    check_fit(program, NAMES, "classification", False, False)


def test_every_replaced_value_is_refused_in_one_line_or_valid() -> None:
    original, draw = program_values(20), random.Random(0)
    for path in leaves(original):
        for value in draw.sample(VALUES, 3):
            changed = copy.deepcopy(original)
            put(changed, path, value)
            message = problem_of(changed)
            assert len(message) < 500, path
            assert message.isprintable(), path


def problem_of(values: Any) -> str:
    """Why a program is refused; empty for a valid one."""
    try:
        assert isinstance(read_program(values), Program)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda v: v.update(schema_version=3), "schema_version is 3"),
        (lambda v: v.update(more=1), "unknown key 'more'"),
        (lambda v: v["graphs"].__setitem__(0, "../graph-00.onnx"), "must hold names"),
        (lambda v: v["trained"].clear(), "trained is empty"),
        (lambda v: v["dropouts"][0].update(shape=["rows", 1 << 30]), "dropouts.shape"),
        (lambda v: v["dropouts"][0].update(shape=["rows", "length", "length", "length"]), "too large"),
        (lambda v: v["frozen"][0].update(dtype="bfloat16"), "frozen.dtype"),
        (lambda v: v["step"][0]["inputs"].update(table="weight:nosuch"), "before it is made"),
        (lambda v: v["step"].reverse(), "before it is made"),
        (lambda v: v["step"].pop(), "does not make"),
        (lambda v: v["step"][1]["outputs"].update(y="v0"), "which exists"),
        (lambda v: v["predict"][0]["inputs"].update(ids="batch:labels"), "before it is made"),
        (lambda v: v["predict"][0]["inputs"].update(ids="dropout:0"), "before it is made"),
        (lambda v: v["predict"].pop(), "does not make 'logits'"),
        (lambda v: v["merge"][1]["parts"].pop(), "do not make up its shape"),
        (lambda v: v["merge"][1]["parts"][0]["index"].__setitem__(0, 2), "do not make up its shape"),
        (lambda v: v["merge"][1].update(axis=1), "do not make up its shape"),
        (lambda v: v["merge"][0].update(shape=[1 << 39, 8]), "do not make up its shape"),
    ],
)  # fmt: skip
def test_an_inconsistent_program_is_refused(change: Callable[[Any], Any], reason: str) -> None:
    values = program_values(20)
    change(values)
    with pytest.raises(ValueError, match=reason):
        read_program(values)


@pytest.mark.parametrize(
    ("names", "kind", "segments", "reason"),
    [
        (NAMES[1:], "classification", False, "merge has the unknown 'embeddings'"),
        ([*NAMES, "other"], "classification", False, "merge lacks 'other'"),
        (NAMES, "question-answering", False, "targets or results"),
        (NAMES, "classification", True, "token_type_ids"),
    ],
)
def test_a_program_of_another_bundle_is_refused(names: list[str], kind: str, segments: bool, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_fit(read_program(program_values(20)), names, kind, segments, False)
