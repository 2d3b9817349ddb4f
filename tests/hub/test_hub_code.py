"""No command runs code from a model's repository, or asks for permission to."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.hub.clients import Clients
from tests.hub.server import Hub

MARK = "open({mark!r}, 'w').close()\n"

COMMANDS = {
    "run": ["run", "--device", "jetson-nano", "--task", "reviews", "--model", "owner/own-code"],
    "estimate": ["estimate", "--device", "jetson-nano", "--model", "owner/own-code"],
    "sweep": ["estimate", "--device", "jetson-nano", "--model", "owner/own-code", "--sweep"],
    "spaces": ["spaces", "show", "default", "--model", "owner/own-code"],
    "devices": ["devices", "check", "jetson-nano", "--model", "owner/own-code"],
}


def _repository(mark: Path, **config: object) -> dict[str, bytes]:
    """Files of a model with its own modules, each of which creates a marker file when imported."""
    code = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": ["own.Tokenizer", None]}
    return {
        "config.json": json.dumps({"auto_map": code, **config}).encode(),
        "tokenizer_config.json": json.dumps({"auto_map": code}).encode(),
        "own.py": MARK.format(mark=str(mark)).encode(),
        "__init__.py": MARK.format(mark=str(mark)).encode(),
    }


@pytest.mark.parametrize(
    "name",
    ["run", "estimate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sweep", "spaces", "devices"))],
)
def test_remote_code_is_refused_even_with_yes_on_stdin(hub: Hub, tmp_path: Path, name: str) -> None:
    """One line, exit 2, no question, and the module is not even downloaded."""
    mark = tmp_path / "mark"
    hub.add("owner/own-code", _repository(mark, model_type="own"))
    done = subprocess.run(
        [sys.executable, "-m", "farsearch", *COMMANDS[name]],
        env=hub.environment(tmp_path / "home"), cwd=tmp_path, input="y\n" * 1000, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    (line,) = done.stderr.strip().splitlines()
    assert (done.returncode, "brings its own code (auto_map)" in line) == (2, True)
    assert not mark.exists()
    assert not hub.requested(r"own\.py")


CONFIGS: list[tuple[dict[str, object], str]] = [
    ({"model_type": "own"}, "brings its own code"),
    ({}, "brings its own code"),
    ({"model_type": "bert", "_attn_implementation": "kernels-community/flash-attn"}, "no foreign code"),
    ({"model_type": "bert", "quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
    ({"model_type": "bert", "vocab_size": 10**9}, "vocab_size is 1000000000"),
]


def test_configurations_that_refer_to_code_are_refused(hub: Hub, tmp_path: Path) -> None:
    """Also for a known model type: by the name of the reference that would be downloaded or built."""
    mark = tmp_path / "mark"
    with closing(Clients(hub.environment(tmp_path / "home"), tmp_path)) as clients:
        for i, (config, rule) in enumerate(CONFIGS):
            hub.add(f"owner/own-code-{i}", _repository(mark, **config))
            done = clients.run("model", f"owner/own-code-{i}", "")
            (line,) = done.err.strip().splitlines()
            assert (done.code, rule in line) == (2, True), line
    assert not mark.exists()
    assert not hub.requested(r"own\.py")


LOAD = """
import sys
from farsearch.errors import FarsearchError
from farsearch.models.heads import Head
from farsearch.models.load import load_model
from farsearch.models.source import resolve_model
try:
    model, _ = load_model(resolve_model("owner/pickled", allow_pickle=sys.argv[1] == "allow"), Head(), ("a", "b"), 0)
    print(model.get_parameter("bert.embeddings.word_embeddings.weight")[5, 0].item())
except FarsearchError as error:
    print(error.exit_code, error)
"""


@pytest.mark.parametrize(
    ("allow", "expected"),
    [("allow", "7.0"), ("refuse", "5 {endpoint}/owner/pickled has no model.safetensors; `allow")],
)
def test_weights_of_a_conversion_pull_request_are_not_used(
    hub: Hub, tiny_bert: Path, tmp_path: Path, allow: str, expected: str
) -> None:
    """For a repository with only pickled weights, no conversion is requested, and a pending one is not downloaded."""
    weights = {name: value.clone() for name, value in load_file(tiny_bert / "model.safetensors").items()}
    weights["embeddings.word_embeddings.weight"][:] = 7.0
    pickled = io.BytesIO()
    torch.save(weights, pickled)
    files = {path.name: path.read_bytes() for path in tiny_bert.iterdir()}
    repository = hub.add(
        "owner/pickled",
        {
            **{name: files[name] for name in files if name != "model.safetensors"},
            "pytorch_model.bin": pickled.getvalue(),
        },
    )
    repository.commit({"model.safetensors": files["model.safetensors"]}, ref="refs/pr/1")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, allow], env=hub.environment(tmp_path), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.stderr, done.stdout.startswith(expected.format(endpoint=hub.endpoint))) == ("", True), done.stdout
    assert not hub.requested("discussions|refs/pr|convert")
