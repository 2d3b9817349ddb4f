"""The step of any prepared model, traced as it is: whatever stands in its layers, and wherever it has gradients.

The look-up tables of ``table`` compose a step from kinds of layers that they know. A model that another method has
prepared is traced whole, at the same three lengths, and becomes the same ``Composed`` that is priced in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from farsearch.cost.table import LENGTHS, Composed, Neurons, fit_part
from farsearch.cost.trace import Segment, meta_tensors, trace_step
from farsearch.far.layout import ModelLayout
from farsearch.models.load import build_model

__all__ = ["DirectStep", "trace_prepared"]


@dataclass(frozen=True)
class DirectStep:
    """A traced step, and the bytes of all parameters and buffers of the prepared model."""

    step: Composed
    static_bytes: int


def trace_prepared(
    config: Any, classes: int, batch_size: int, prepare: Callable[[nn.Module, ModelLayout], None]
) -> DirectStep:
    """Build a model without weights, prepare it, and trace its step at three lengths.

    Args:
        config: transformers configuration of the model.
        prepare: sets ``requires_grad``, and may put other modules in, in place; module paths of the layers must stay.
    """
    with meta_tensors():
        model, layout = build_model(config, classes)
    prepare(model, layout)
    traces = []
    for length in LENGTHS:
        traces.append((length, trace_step(model, layout, batch_size, length)))
        model.zero_grad()
    trained = [(p.numel(), p.dim()) for p in model.parameters() if p.requires_grad]
    held = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    layers = range(len(layout.layers))
    order = ["start", *(f"forward {i}" for i in layers), "head", "backward head"]
    order += [*(f"backward {i}" for i in reversed(layers)), "backward embeddings"]
    parts = (
        (name, fit_part([(length, 0, segments.get(name, Segment())) for length, segments in traces])) for name in order
    )
    step = Composed(
        tuple(("embeddings" if name == "start" else name, part, Neurons()) for name, part in parts),
        np.array([size for size, _ in trained], dtype=np.float64),
        np.array([dimensions > 1 for _, dimensions in trained], dtype=np.bool_),
    )
    return DirectStep(step, held)
