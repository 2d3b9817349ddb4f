"""Validation of calibration results from other machines: an error is one line."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from farsearch.calibration.fit import fit_profile
from farsearch.calibration.result import Calibration, parse_result, read_result
from farsearch.errors import BadInput
from tests.calibration.known import KnownMachine
from tests.journey import call


@cache
def _right() -> dict[str, Any]:
    return KnownMachine().result()


@pytest.fixture
def data() -> dict[str, Any]:
    """Return a valid result to be changed."""
    return copy.deepcopy(_right())


def put(data: Any, key: str, value: Any) -> None:
    """Set the value of ``data`` at a path such as ``samples.0.seconds``."""
    *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
    for part in path:
        data = data[part]
    data[last] = value


def without(key: str) -> Callable[[dict[str, Any]], None]:
    """Return a change that removes a key."""

    def change(data: Any) -> None:
        *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
        for part in path:
            data = data[part]
        del data[last]

    return change


def test_valid_result_round_trips(data: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    path.write_text(json.dumps(data, indent=1))
    result = read_result(path)
    assert isinstance(result, Calibration)
    assert result.to_dict() == data
    assert result.merged_conditions() == {"cpu_governor": "performance", "hottest_celsius": "41, then 57"}


LONG = 10**400

WRONG: list[tuple[str, Any, str]] = [
    ("schema_version", 2, "schema_version is 2; this farsearch reads 1"),
    ("schema_version", "1", "schema_version is '1'"),
    ("schema_version", True, "schema_version is True"),
    ("schema_version", 1.0, "schema_version is 1.0"),
    ("what", "a profile", "is no result of a calibration"),
    ("what", ["farsearch calibration"], "is no result of a calibration"),
    ("more", 1, "unknown key 'more'"),
    ("date", "2025\n03", "date is '2025\\n03'; it must be one line"),
    ("took_s", -1.0, "took_s is -1.0"),
    ("busy_cores", -0.5, "busy_cores is -0.5"),
    ("busy_cores", math.nan, "busy_cores is nan"),
    ("conditions", [], "conditions is []; it must be a table"),
    ("conditions.before.cpu_governor", 3, "conditions.before.cpu_governor is 3; it must be of type str"),
    ("conditions.before.cpu_governor", "\ud800", "conditions.before.cpu_governor is '\\ud800'"),
    ("machine", None, "machine is None; it must be a table"),
    ("machine.kind", "tpu", "machine.kind is 'tpu'; it must be one of 'cuda', 'cpu'"),
    ("machine.kind", ["cpu"], "machine.kind is ['cpu']"),
    ("machine.torch", "abc", "machine.torch is 'abc'; it must be a version"),
    ("machine.torch", "2", "machine.torch is '2'"),
    ("machine.torch", 2.4, "machine.torch is 2.4; it must be of type str"),
    ("machine.processor", "a\x1b[31mb", "machine.processor is 'a\\x1b[31mb'; it must be one line of plain text"),
    ("machine.cores", 0, "machine.cores is 0; it must be at least 1"),
    ("machine.cores", True, "machine.cores is True"),
    ("machine.threads", -2, "machine.threads is -2"),
    ("machine.threads", LONG, "machine.threads is inf"),
    ("memory.visible_mib", None, "memory.visible_mib is None"),
    ("memory.visible_mib", 0, "memory.visible_mib is 0.0; it must be a number of MiB, at least 128"),
    ("memory.visible_mib", math.inf, "memory.visible_mib is inf"),
    ("memory.visible_mib", LONG, "memory.visible_mib is inf"),
    ("memory.others_mib", 8000.0, "memory.others_mib is 8000.0; it must be a number of MiB, between 0 and 0.9 of"),
    ("memory.others_mib", -1, "memory.others_mib is -1.0"),
    ("memory.process_mib", math.nan, "memory.process_mib is nan"),
    ("memory.own", "\n", "memory.own"),
    ("launch.operation", 0, "launch.operation is 0.0; it must be a number of seconds"),
    ("launch.tiny_step", -1e-3, "launch.tiny_step is -0.001"),
    ("launch.optimizer_call", math.inf, "launch.optimizer_call is inf"),
    ("launch.batch_of_512_tokens", "1", "launch.batch_of_512_tokens is '1'"),
    ("launch.more", 1.0, "unknown key 'more'"),
    ("samples", {}, "samples is {}; it must be a list"),
    ("samples", [], "samples have no matrix product; measure again with more --seconds"),
    ("samples.0", 3, "samples[0] is 3; it must be a table"),
    ("samples.0.case", "gemm", "case 'gemm', unknown to this farsearch"),
    ("samples.0.case", None, "samples[0].case is None"),
    ("samples.0.dims", [], "dims [], which the script does not measure"),
    ("samples.0.dims", [32, 384], "dims [32, 384], which the script does not measure"),
    ("samples.0.dims", [-32, 384, 384], "dims [-32, 384, 384]"),
    ("samples.0.dims", [32.0, 384, 384], "samples[0].dims[0] is 32.0; it must be of type int"),
    ("samples.0.dims", [2**40, 2**40, 2**40], "which the script does not measure"),
    ("samples.0.dims", [LONG, 1, 1], "samples[0].dims[0] is inf"),
    ("samples.0.dims", "32", "samples[0].dims is '32'; it must be a list"),
    ("samples.0.seconds", 0.0, "samples: gemm_nt [32, 384, 384].seconds is 0.0; it must be a number of seconds"),
    ("samples.0.seconds", -1e-3, "seconds is -0.001"),
    ("samples.0.seconds", math.nan, "seconds is nan"),
    ("samples.0.seconds", math.inf, "seconds is inf"),
    ("samples.0.seconds", 1e-300, "seconds is 1e-300"),
    ("samples.0.seconds", True, "samples[0].seconds is True"),
    ("samples.0.seconds", None, "samples[0].seconds is None"),
    ("samples.0.rounds", 0, "rounds is 0; it must be at least 1"),
    ("sustained", {}, "sustained has no workload; measure again with more --seconds"),
    ("sustained.short", {"seconds": 1, "first": 1, "last": 1, "steps": 3}, "sustained has the workload 'short'"),
    ("sustained.narrow.last", -1, "sustained.last is -1.0"),
    ("sustained.narrow.last", math.inf, "sustained.last is inf"),
    ("sustained.narrow.steps", 0, "sustained.steps is 0"),
]


@pytest.mark.parametrize(("key", "value", "fragment"), WRONG)
def test_wrong_value_is_reported_in_one_line(
    data: dict[str, Any], tmp_path: Path, key: str, value: Any, fragment: str
) -> None:
    """The error names the file, the key, the value and the rule."""
    put(data, key, value)
    path = tmp_path / "board.json"
    path.write_text(json.dumps(data))
    with pytest.raises(BadInput) as caught:
        read_result(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert fragment in message


@pytest.mark.parametrize(
    "key",
    ["date", "machine", "machine.torch", "memory.others_mib", "launch.tiny_step", "samples.3.rounds", "samples",
     "sustained.narrow.first", "conditions", "took_s", "busy_cores"],
)  # fmt: skip
def test_missing_key_is_reported_in_one_line(data: dict[str, Any], key: str) -> None:
    """The error names the missing key and the required ones."""
    without(key)(data)
    with pytest.raises(BadInput, match=rf"^board\.json: .*lacks the key '{key.split('.')[-1]}'; it needs "):
        parse_result(data, "board.json")


@pytest.mark.parametrize(
    ("left", "fragment"),
    [
        (("gemm_nt", "add"), "samples have no batched product"),
        (("gemm_nt", "bmm_nn"), "samples have no sum or copy"),
        (("bmm_nn", "add"), "samples have no matrix product"),
    ],
)
def test_result_without_required_cases_is_refused(data: dict[str, Any], left: tuple[str, ...], fragment: str) -> None:
    """The cases of the general figures are required, and the error has a suggestion."""
    data["samples"] = [sample for sample in data["samples"] if sample["case"] in left]
    with pytest.raises(BadInput, match=f"{fragment}; measure again with more --seconds"):
        parse_result(data, "board.json")


def test_smallest_valid_result_makes_a_profile(data: dict[str, Any]) -> None:
    """One case of each group, one workload, and the smallest and largest times can be fitted."""
    data["samples"] = [next(s for s in data["samples"] if s["case"] == case) for case in ("gemm_tn", "bmm_nt", "clone")]
    data["sustained"] = {"wide": data["sustained"]["wide"]}
    for seconds in (1e-9, 1e5):
        for sample in data["samples"]:
            sample["seconds"] = seconds
        for name in data["launch"]:
            data["launch"][name] = seconds
        for other in (1e-9, 1e5):
            data["sustained"]["wide"].update(seconds=other, first=other, last=other)
            for others in (0.0, 0.9 * 128):
                data["memory"].update(visible_mib=128.0, others_mib=others, process_mib=0.0)
                profile = fit_profile(parse_result(data, "board.json"), "least")
                assert all(math.isfinite(figure.high) for figure in profile.figures().values())


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (None, "No such file"),
        (b"", "is not JSON"),
        (b"\x00\xff\xfe", "is not JSON"),
        (b"what: farsearch calibration\n", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'"farsearch calibration"', "is no result of a calibration"),
        (b"[]", "is no result of a calibration"),
        (b"{}", "is no result of a calibration"),
        ("half", "is not JSON"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path: Path, content: bytes | str | None, fragment: str) -> None:
    """Missing file, no text, no JSON, other or truncated JSON: one line and exit code 2 on the command line."""
    path = tmp_path / "board.json"
    if content == "half":
        content = json.dumps(_right()).encode()[:5000]
    if isinstance(content, bytes):
        path.write_bytes(content)
    done = call(tmp_path, "devices", "import", "board.json")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "board.json" in done.err
    assert fragment in done.err
    assert not (tmp_path / ".farsearch").exists()


def test_folder_is_refused(tmp_path: Path) -> None:
    """The parser raises the error."""
    done = call(tmp_path, "devices", "import", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("number", range(0, len(WRONG), 8))
def test_wrong_value_ends_the_command_with_code_2(data: dict[str, Any], tmp_path: Path, number: int) -> None:
    """One line is reported, and no profile is written."""
    key, value, fragment = WRONG[number]
    put(data, key, value)
    (tmp_path / "board.json").write_text(json.dumps(data))
    done = call(tmp_path, "devices", "import", "board.json")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("farsearch: board.json")
    assert fragment in done.err
    assert not (tmp_path / ".farsearch").exists()
