"""AdamW and SGD on arrays equal torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from farsearch.far.optimizer import make_optimizer
from farsearch.runtime.onnx_engine.optimizer import ArrayOptimizer, accumulate

SHAPES = {"matrix": (130, 257), "vector": (5,), "empty": (0, 3)}
"""The matrix has more elements than a block."""


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_steps_equal_torch(kind: str) -> None:
    """Over twenty steps with changing rates, within the rounding of float32."""
    draw = np.random.default_rng(0)
    arrays = {name: draw.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    model = nn.ParameterDict({name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    theirs, ours = make_optimizer(kind, model), ArrayOptimizer(kind, arrays)
    for step in range(20):
        rate = 1e-3 * (step + 1)
        for group in theirs.param_groups:
            group["lr"] = rate
        for name, array in arrays.items():
            gradient = draw.standard_normal(array.shape).astype(np.float32)
            model[name].grad = torch.from_numpy(gradient.copy())
            ours.step(name, gradient, step, rate)
        theirs.step()
    for name, array in arrays.items():
        np.testing.assert_allclose(array, model[name].detach().numpy(), rtol=1e-6, atol=1e-6)
    if kind == "adamw":
        for field in ("exp_avg", "exp_avg_sq"):
            state = theirs.state[model["matrix"]][field].numpy()
            np.testing.assert_allclose(ours.state["matrix"][field], state, rtol=1e-5, atol=2e-7)


def test_a_gradient_is_not_changed() -> None:
    for kind in ("adamw", "sgd"):
        gradient = np.ones((3, 3), np.float32)
        ArrayOptimizer(kind, {"a": np.ones((3, 3), np.float32)}).step("a", gradient, 0, 0.1)
        assert (gradient == 1.0).all()


def test_weighted_gradients_add_up() -> None:
    total, gradient = np.ones((200, 200), np.float32), np.full((200, 200), 4.0, np.float32)
    accumulate(total, gradient, 0.25)
    assert (total == 2.0).all()
