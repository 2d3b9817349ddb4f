"""A training step as an ONNX graph in onnxruntime equals torch's autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from farsearch.cost.plans import execution_of
from farsearch.far.features import Batch
from farsearch.far.surgery import apply_far
from farsearch.graph.lowering import OPSET, lower_step, write_step
from farsearch.graph.trace import trace_step
from farsearch.models.heads import Head
from farsearch.records import StepPlan
from tests.tiny import FAMILIES, make_model

ROWS = 3


def make_batch(length: int) -> Batch:
    """Return random tokens, the first row half padded, with a mask that is added to the scores."""
    inputs = dict(Head().batch(ROWS, length).inputs)
    inputs["input_ids"] = torch.randint(5, 90, (ROWS, length))
    mask = torch.zeros(ROWS, 1, 1, length)
    mask[0, ..., length // 2 :] = torch.finfo(torch.float32).min
    return Batch({**inputs, "attention_mask": mask}, (1,) * ROWS)


def make_step(folder: Path, model: nn.Module) -> onnxruntime.InferenceSession:
    """Lower the step of a model, traced at one length, and load it."""
    step = trace_step(model, make_batch(7))
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    path = write_step(folder, *lower_step(step, values))
    onnx.checker.check_model(str(path))
    assert onnx.load(path, load_external_data=False).opset_import[0].version == OPSET
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("feed_forward", ["store", pytest.param("recompute", marks=pytest.mark.slow)])
def test_loss_and_gradients_equal_torch_at_every_length(family: str, feed_forward: str, tmp_path: Path) -> None:
    model, layout = make_model(family, dropout=0.0)
    plan = StepPlan(feed_forward=feed_forward, attention="recompute")  # type: ignore[arg-type]
    learners = [list(range(4))] * len(layout.blocks)
    apply_far(
        model, layout, learners, frozen_embeddings=True, frozen_attention_layers=1, execution=execution_of(plan, ROWS)
    )
    model.train()
    session = make_step(tmp_path, model)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for length in (5, 7, 33):
        batch = make_batch(length)
        loss = model(**batch.inputs).loss
        gradients = torch.autograd.grad(loss, list(trained.values()))
        feed = {**batch.inputs, **{name: value.detach() for name, value in trained.items()}}
        wanted = [entry.name for entry in session.get_inputs()]
        found = session.run(None, {name: feed[name].numpy() for name in wanted})
        assert found[0] == pytest.approx(loss.item(), abs=1e-6)
        for mine, theirs in zip(found[1:], gradients, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-6)
