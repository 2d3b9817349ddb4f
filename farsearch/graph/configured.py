"""A configuration of a model with random weights, compiled: what its steps take does not depend on the weights."""

from __future__ import annotations

from typing import Any

from farsearch.far.selection import head_counts, learner_count, random_learners
from farsearch.far.surgery import apply_far, width_of
from farsearch.graph.compiler import Compiled, compile_step, engine_execution
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.records import FarConfig, StepPlan

__all__ = ["compile_config"]


def compile_config(model_config: Any, head: Head, config: FarConfig, plan: StepPlan | None = None) -> Compiled:
    """Compile a configuration of a model with random weights and learners: all cost the same.

    Args:
        plan: as ``engine_execution`` takes it.

    Raises:
        BadInput: for a model that can't be compiled.
    """
    config = config.canonical()
    model, layout = build_model(model_config, head)
    names = list(model.state_dict())
    width = width_of(model, layout.layers[0])
    fractions = layout.by_block(config.frozen_fractions)
    learners = [
        None if fraction == 0.0 else random_learners(width, learner_count(width, fraction), seed=0)
        for fraction in fractions
    ]
    counts = head_counts(layout.heads, config.frozen_heads, len(layout.layers))
    heads = [None if count is None else range(count) for count in counts]
    apply_far(
        model, layout, learners, config.frozen_embeddings, config.frozen_attention_layers, config.frozen_bottom_layers,
        engine_execution(layout, plan), heads,
    )  # fmt: skip
    return compile_step(model, layout, head, names)
