"""A phase by a program's graphs equals the same training in torch, dropout included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from farsearch.far.batches import phase_batches
from farsearch.far.features import Features, batch_of
from farsearch.far.schedule import linear_rate
from farsearch.runtime.onnx_engine.dropout import draw_mask
from farsearch.runtime.onnx_engine.phase import Settings, predict, train_phase
from farsearch.runtime.onnx_engine.program import Runner
from farsearch.runtime.onnx_engine.weights import load_weights
from tests.onnx_engine.hand_made import P, make_weights, torch_logits, torch_step, write_engine

VOCABULARY, ROWS = 50, 22


@pytest.fixture
def features() -> Features:
    """Rows of various lengths."""
    draw = np.random.default_rng(1)
    return Features(
        [draw.integers(1, VOCABULARY, 2 + i % 6).tolist() for i in range(ROWS)], [i % 2 for i in range(ROWS)]
    )


def by_torch(features: Features, settings: Settings, micro_batch_size: int | None) -> tuple[list[float], Any]:
    """Losses and weights of the same training by torch's autograd and optimizers, with the engine's masks."""
    weights = {name: torch.from_numpy(value) for name, value in make_weights(VOCABULARY).items()}
    batches = phase_batches(features.lengths, settings.batch_size, settings.epochs, settings.seed)
    rate, losses = linear_rate(settings.learning_rate, len(batches)), []
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimizer]
    optimizer: torch.optim.Optimizer | None = None
    for step, rows in enumerate(batches):
        batch = batch_of(features.take(rows), 0)
        size, loss, totals = micro_batch_size or len(rows), 0.0, dict[str, torch.Tensor]()
        for number, start in enumerate(range(0, len(rows), size)):
            part = batch.part(slice(start, start + size))
            shape = (len(part.weights), 8)
            mask = torch.from_numpy(draw_mask((settings.seed, step, number, 0), shape, P))
            value, gradients = torch_step(weights, part.inputs, mask)
            share = len(part.weights) / len(rows)
            loss += share * value
            for name, gradient in gradients.items():
                totals[name] = totals.get(name, torch.zeros_like(gradient)) + share * gradient
        trained = [weights[name] for name in totals]
        if optimizer is None:
            groups = [{"params": [w for w in trained if w.dim() > 1], "weight_decay": 0.01},
                      {"params": [w for w in trained if w.dim() <= 1], "weight_decay": 0.0}]  # fmt: skip
            optimizer = kind(groups, lr=1e-3)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        for name, gradient in totals.items():
            weights[name].grad = gradient
        optimizer.step()
        losses.append(loss)
    return losses, weights


@pytest.mark.parametrize("micro_batch_size", [None, 3])
@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 1e-2), ("sgd", 0.1)])
def test_a_phase_equals_torch(
    features: Features, tmp_path: Path, optimizer: str, rate: float, micro_batch_size: int | None
) -> None:
    """Losses of every step, and the weights at its end."""
    settings = Settings(optimizer, rate, 3.0, 8, 0, 5)
    program = write_engine(tmp_path, VOCABULARY)
    trained, frozen = load_weights(str(tmp_path / "weights.safetensors"), program)
    runner = Runner(program, [str(tmp_path / name) for name in program.graphs], {**frozen, **trained}, 1)
    log = train_phase(program, runner, trained, features, settings, micro_batch_size)
    losses, weights = by_torch(features, settings, micro_batch_size)
    assert (log.steps, len(log.losses)) == (len(losses), len(losses))
    np.testing.assert_allclose(log.losses, losses, rtol=1e-4)
    for name, array in trained.items():
        np.testing.assert_allclose(array, weights[name].numpy(), rtol=1e-3, atol=1e-5)
    logits = predict(program, runner, features, 0)
    expected = torch.cat([torch_logits(weights, batch_of(features.take([i]), 0).inputs) for i in range(ROWS)])
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=1e-3, atol=1e-4)
