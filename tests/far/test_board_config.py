"""Validation of a model's config.json."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from farsearch.runtime.config import config_problem

BERT: dict[str, Any] = {"model_type": "bert", "hidden_size": 768, "vocab_size": 30522, "num_hidden_layers": 12}


def problem_of(values: object) -> str:
    """Return the problem, which must exist."""
    problem = config_problem(values)
    assert problem is not None
    assert len(problem) < 200
    assert problem.isprintable()
    return problem


def test_every_known_model_is_accepted() -> None:
    """The packaged configurations."""
    known = json.loads(resources.files("farsearch.models").joinpath("known.json").read_text(encoding="utf-8"))
    assert [config_problem(values) for values in known.values()] == [None] * len(known)


@pytest.mark.parametrize("name", ["eager", "sdpa", "flash_attention_2", "flex_attention", None])
def test_plain_attention_implementations_are_accepted(name: str | None) -> None:
    """Those that are part of transformers, whether or not this machine can run them."""
    assert config_problem({**BERT, "_attn_implementation": name}) is None


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("name", ["kernels-community/flash-attn", "me/it:module", "paged|me/it", 7, ["eager"]])
def test_attention_implementations_from_a_repository_are_refused(key: str, name: object) -> None:
    """At every level of a configuration that can name one."""
    for table in ({key: name}, {"text_config": {key: name}}, {"parts": [{key: {"text": name}}]}):
        assert problem_of({**BERT, **table}).startswith(key)


@pytest.mark.parametrize("key", ["quantization_config", "kernel_config", "use_kernels"])
def test_libraries_that_replace_modules_are_refused(key: str) -> None:
    """They import, or download, modules that the configuration names."""
    assert key in problem_of({**BERT, key: {"quant_method": "bitsandbytes"}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", 60_000_000), ("num_hidden_layers", 100_000), ("n_layers", 100_000), ("hidden_size", 0),
        ("hidden_size", -768), ("hidden_size", "768"), ("hidden_size", 768.0), ("hidden_size", True), ("dim", None),
        ("num_labels", 10**9), ("intermediate_size", 10**100), ("type_vocab_size", -1), ("model_type", None),
        ("model_type", "../../x"), ("num_attention_heads", [12]),
    ],
)  # fmt: skip
def test_sizes_outside_their_limits_are_refused(key: str, value: object) -> None:
    """By name, in one short line."""
    assert problem_of({**BERT, key: value}).startswith(key)


@pytest.mark.parametrize("values", [None, [], "bert", 7])
def test_json_other_than_an_object_is_refused(values: object) -> None:
    assert "not a table" in problem_of(values)
