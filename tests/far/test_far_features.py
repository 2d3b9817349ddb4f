"""Rows as model inputs: padding, targets of every type, and weights in the loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from farsearch.far.features import IGNORED, Features, Span, batch_of
from farsearch.far.loop import predict, train_step
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from tests.tiny import make_config

IDS = [[7, 8, 9], [5], [1, 2]]
HEADS = [
    Head("classification", 3),
    Head("classification", 2, segments=True),
    Head("multi-label", 3),
    Head("regression", 1),
    Head("token-classification", 4),
    Head("question-answering", 2),
]
heads = pytest.mark.parametrize("head", HEADS, ids=[f"{head.kind}{'-pair' * head.segments}" for head in HEADS])


def test_rows_are_padded_on_the_right() -> None:
    """With the padding id up to the longest row; padding is masked, its segment is 0."""
    batch = batch_of(Features(IDS, [0, 1, 1], [[0, 1, 1], [1], [0, 1]]), pad_id=4)
    assert batch.inputs["input_ids"].tolist() == [[7, 8, 9], [5, 4, 4], [1, 2, 4]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch.inputs["token_type_ids"].tolist() == [[0, 1, 1], [1, 0, 0], [0, 1, 0]]
    assert all(value.dtype == torch.long for value in batch.inputs.values())


@pytest.mark.parametrize(
    ("targets", "expected", "weights"),
    [
        ([2, 0, 1], {"labels": [2, 0, 1]}, (1, 1, 1)),
        ([0.5, -1.0, 2.0], {"labels": [0.5, -1.0, 2.0]}, (1, 1, 1)),
        ([(1.0, 0.0), (0.0, 0.0), (1.0, 1.0)], {"labels": [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]}, (1, 1, 1)),
        (
            [(IGNORED, 3, 1), (IGNORED,), (2, IGNORED)],
            {"labels": [[IGNORED, 3, 1], [IGNORED] * 3, [2, IGNORED, IGNORED]]},
            (2, 0, 1),
        ),
        ([Span(1, 2), Span(0, 0), Span(1, 1)], {"start_positions": [1, 0, 1], "end_positions": [2, 0, 1]}, (1, 1, 1)),
    ],
    ids=["class", "number", "labels", "tags", "span"],
)
def test_target_types(targets: list[Any], expected: dict[str, Any], weights: tuple[int, ...]) -> None:
    """The first target's type applies to all; tags are padded with the ignored index."""
    batch = batch_of(Features(IDS, targets), 0)
    assert {name: batch.inputs[name].tolist() for name in expected} == expected
    assert batch.weights == weights
    unlabelled = batch_of(Features(IDS, targets), 0, learn=False)
    assert set(unlabelled.inputs) == {"input_ids", "attention_mask"}


@heads
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_add_up(head: Head, micro: int) -> None:
    """One step of gradient descent in float64, in parts of any size, gives the same loss and weights.

    Tagged rows are weighted by their tags: one row here has a single tag, another four.
    """
    model, _ = build_model(make_config("bert", dropout=0.0), head)
    features = head.features([[5, 6, 7, 8, 9], [5, 6], [7, 9, 11], [3, 4, 5, 6]])
    if head.kind == "token-classification":
        features = features._replace(targets=[(IGNORED, *row[1:]) for row in features.targets])
    batch = batch_of(features, 0)
    if head.kind in ("regression", "multi-label"):
        batch.inputs["labels"] = batch.inputs["labels"].double()
    results = []
    for size in (None, micro):
        twin = copy.deepcopy(model).double().train()
        loss = train_step(twin, torch.optim.SGD(twin.parameters(), lr=1.0), batch, size)
        results.append((loss, twin.state_dict()))
    (whole_loss, whole), (parts_loss, parts) = results
    torch.testing.assert_close(parts_loss, whole_loss, atol=1e-12, rtol=0)
    assert any(not torch.equal(value.double(), whole[name]) for name, value in model.state_dict().items())
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-11, rtol=0, msg=name)


@heads
def test_predictions_have_no_padding(head: Head) -> None:
    """Each row's logits equal those of the row alone, in any batch; token logits are concatenated."""
    model, _ = build_model(make_config("bert"), head)
    rows: Sequence[list[int]] = [[5, 6, 7, 8, 9], [5, 6], [7, 9, 11]]
    features = head.features(list(rows))
    together = predict(model, features, 0)
    alone = torch.cat([predict(model, features.take([row]), 0) for row in range(len(rows))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    per_token = head.kind in ("token-classification", "question-answering")
    assert together.shape == (10 if per_token else 3, head.outputs)
