"""The step of a model prepared by another method, with any modules in its layers and any parameters trained.

A step table composes a step from the kinds of layers of FAR. Another method's model is traced whole, at the same three
lengths, into a ``Composed`` that is priced in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from farsearch.cost.recorder import Segment, step_order
from farsearch.cost.segments import LENGTHS, Composed, fit_part, fixed_tensors
from farsearch.cost.software import Software, build_ordinary
from farsearch.cost.trace import meta_tensors, trace_step
from farsearch.far.layout import ModelLayout
from farsearch.models.heads import Head

__all__ = ["Prepare", "trace_prepared"]

Prepare = Callable[[nn.Module, ModelLayout], None]
"""Sets ``requires_grad`` in place, and may replace modules; module paths of the layers must not change."""


def trace_prepared(
    config: Any,
    head: Head,
    batch_size: int,
    prepare: Prepare,
    software: Software,
) -> Composed:
    """Build a model without weights, prepare it, and trace its step at three lengths.

    Args:
        config: transformers configuration of the model. head: of the model.
        software: of the device.
    """
    with meta_tensors():
        model, layout = build_ordinary(config, head, software)
    prepare(model, layout)
    traces = []
    for length in LENGTHS:
        traces.append((length, trace_step(model, layout, head.batch(batch_size, length), software)))
        model.zero_grad()
    trained = [(p.numel(), p.dim()) for p in model.parameters() if p.requires_grad]
    held = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    parts = [
        fit_part([(length, 0, segments.get(key, Segment())) for length, segments in traces])
        for key in step_order(len(layout.layers))
    ]
    alone = np.arange(len(parts))[:, None]
    return Composed(
        parts=tuple(parts),
        part_of=alone,
        learners=np.zeros_like(alone),
        tensors=(fixed_tensors(trained),),
        tensors_of=np.zeros((1, 1), dtype=np.int64),
        tensor_learners=np.zeros((1, 1), dtype=np.int64),
        static_bytes=np.array([held], dtype=np.float64),
    )
