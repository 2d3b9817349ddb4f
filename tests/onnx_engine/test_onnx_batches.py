"""Batches as arrays have the values of torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from farsearch.far.features import IGNORED, Features, Span, batch_of
from farsearch.runtime.onnx_engine.batches import make_batch
from farsearch.runtime.program_file import Input, read_program
from tests.onnx_engine.hand_made import program_values

IDS = [[7, 8, 9], [5], [1, 2]]
TARGETS: dict[str, Any] = {
    "class": [2, 0, 1],
    "number": [0.5, -1.0, 2.0],
    "labels": [(1.0, 0.0), (0.0, 0.0), (1.0, 1.0)],
    "tags": [(IGNORED, 3, 1), (IGNORED,), (2, IGNORED)],
    "span": [Span(1, 2), Span(0, 0), Span(1, 1)],
}


def a_program(*names: str, mask: str = "tokens") -> Any:
    forms = {"input_ids": "ids", "token_type_ids": "ids", "attention_mask": mask}
    return read_program(program_values(20))._replace(
        batch=tuple(Input(name, forms.get(name, "targets")) for name in names)
    )


@pytest.mark.parametrize("kind", TARGETS)
def test_values_and_types_are_torchs(kind: str) -> None:
    targets = ("start_positions", "end_positions") if kind == "span" else ("labels",)
    program = a_program("input_ids", "token_type_ids", "attention_mask", *targets)
    features = Features(IDS, TARGETS[kind], [[0, 1, 1], [1], [0, 1]])
    ours, theirs = make_batch(program, features, 4), batch_of(features, 4)
    assert ours.weights == theirs.weights
    assert ours.inputs.keys() == theirs.inputs.keys()
    for name, value in theirs.inputs.items():
        assert torch.from_numpy(ours.inputs[name]).dtype == value.dtype
        np.testing.assert_array_equal(ours.inputs[name], value.numpy())
    assert set(make_batch(program, features, 4, learn=False).inputs) == set(batch_of(features, 4, learn=False).inputs)


def test_an_additive_mask_is_0_for_tokens_and_the_lowest_float_for_padding() -> None:
    program = a_program("input_ids", "attention_mask", "labels", mask="additive")
    mask = make_batch(program, Features(IDS, [0, 1, 1]), 4).inputs["attention_mask"]
    lowest = np.finfo(np.float32).min
    assert (str(mask.dtype), mask.shape) == ("float32", (3, 1, 1, 3))
    np.testing.assert_array_equal(mask[:, 0, 0], [[0, 0, 0], [0, lowest, lowest], [0, 0, lowest]])


def test_segments_are_0_where_texts_are_single() -> None:
    program = a_program("input_ids", "token_type_ids", "labels")
    segments = make_batch(program, Features(IDS, [0, 1, 1]), 4).inputs["token_type_ids"]
    np.testing.assert_array_equal(segments, np.zeros((3, 3)))


def test_parts_keep_the_padding_of_all_and_leave_out_rows_without_targets() -> None:
    program = a_program("input_ids", "labels")
    parts = make_batch(program, Features(IDS, TARGETS["tags"]), 0).parts(1)
    assert [part.weights for part in parts] == [(2,), (1,)]
    assert all(value.shape == (1, 3) for part in parts for value in part.inputs.values())
