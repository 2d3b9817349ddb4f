"""Weights as mapped arrays, and the merged model written tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from farsearch.runtime.onnx_engine.weights import load_weights, map_tensors, write_merged, write_tensors
from tests.onnx_engine.hand_made import FROZEN, LEARNERS, make_weights, write_engine


def test_arrays_of_all_types_come_back(tmp_path: Path) -> None:
    """Also scalars and empty arrays, read by the package too."""
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3.5), "c": np.empty((0, 4), np.float16),
        "d": np.array([True, False]),
    }  # fmt: skip
    path = str(tmp_path / "w.safetensors")
    write_tensors(path, [(name, str(value.dtype), value.shape) for name, value in arrays.items()], arrays.values())
    for found in (map_tensors(path), safetensors.numpy.load_file(path)):
        assert found.keys() == arrays.keys()
        for name, value in arrays.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


def test_mapped_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    """They cannot be written, and own no memory."""
    path = str(tmp_path / "w.safetensors")
    write_tensors(path, [("a", "float32", (4,))], [np.ones(4, np.float32)])
    array = map_tensors(path)["a"]
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2.0


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        (
            "classifier.bias",
            np.ones(3, np.float32),
            r"'classifier\.bias' is float32 \[3\], the program's",
        ),
        ("classifier.bias", np.ones(2, np.float64), "float64"),
        ("other", np.ones(2, np.float32), "the program has no 'other'"),
        ("classifier.bias", None, "it lacks 'classifier.bias'"),
    ],
)
def test_weights_that_do_not_fit_the_program_are_refused(
    tmp_path: Path, name: str, array: np.ndarray | None, reason: str
) -> None:
    program = write_engine(tmp_path, 20)
    weights = make_weights(20)
    weights.pop(name, None)
    if array is not None:
        weights[name] = array
    safetensors.numpy.save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=reason):
        load_weights(str(tmp_path / "other.safetensors"), program)


def test_the_merged_model_has_learners_and_frozen_neurons_at_their_places(tmp_path: Path) -> None:
    program = write_engine(tmp_path, 20)
    trained, frozen = load_weights(str(tmp_path / "weights.safetensors"), program)
    trained["block.learner_up"][:] = 7.0
    write_merged(str(tmp_path / "model.safetensors"), program, {**frozen, **trained})
    merged = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    weights = make_weights(20)
    assert merged.keys() == {"embeddings", "block.up", "block.down", "classifier.weight", "classifier.bias"}
    np.testing.assert_array_equal(merged["embeddings"], weights["embeddings"])
    np.testing.assert_array_equal(merged["block.up"][list(LEARNERS)], np.full((4, 8), 7.0, np.float32))
    np.testing.assert_array_equal(merged["block.up"][list(FROZEN)], weights["block.frozen_up"][: len(FROZEN)])
    np.testing.assert_array_equal(merged["block.down"][:, list(LEARNERS)], weights["block.learner_down"])
    np.testing.assert_array_equal(merged["block.down"][:, list(FROZEN)], weights["block.frozen_down"][:, : len(FROZEN)])
