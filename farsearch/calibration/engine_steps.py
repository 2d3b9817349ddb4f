"""Training steps of small models that the engine without torch executes in a calibration, and their prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farsearch.cost.plans import for_engine
from farsearch.cost.pricer import Pricer
from farsearch.cost.traced_model import shared_tables
from farsearch.devices.profile import Profile
from farsearch.models.config import load_config
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.models.source import resolve_model
from farsearch.records import FarConfig, StepPlan

__all__ = ["HEAD", "STEPS", "TINY", "EngineStep", "predicted_step_s"]


@dataclass(frozen=True)
class EngineStep:
    """A step of a BERT of some size: AdamW, dropout, and a vocabulary whose gradients stay gradients of rows."""

    batch_size: int
    length: int
    hidden: int
    neurons: int
    config: FarConfig
    heads: int = 12
    vocabulary: int = 8192

    @property
    def model_config(self) -> Any:
        """The configuration of transformers."""
        config = load_config(resolve_model("bert-base-uncased"), with_known=True)
        config.update(
            {
                "hidden_size": self.hidden, "intermediate_size": self.neurons, "num_attention_heads": self.heads,
                "num_hidden_layers": len(self.config.frozen_fractions), "vocab_size": self.vocabulary,
            }
        )  # fmt: skip
        return config


def _config(fractions: tuple[float, ...], frozen: bool = False) -> FarConfig:
    attention = len(fractions) if frozen else 0
    return FarConfig(fractions, 1e-5, 1.0, frozen_embeddings=frozen, frozen_attention_layers=attention)


HEAD = Head("token-classification")
"""Takes all tokens. A head of the first token alone lets a compiled step leave out most of the last layer, which is a
larger share of these few layers than of a model's."""

STEPS = {
    "narrow": EngineStep(8, 32, 384, 1536, _config((0.9,) * 3)),
    "wide": EngineStep(8, 64, 768, 3072, _config((0.9,) * 2)),
    "long": EngineStep(8, 128, 384, 1536, _config((0.5,) * 2)),
    "learners": EngineStep(8, 128, 768, 3072, _config((0.9,) * 2, frozen=True)),
}
"""Typical training steps."""

TINY = EngineStep(2, 8, 24, 48, _config((0.5,) * 2), heads=2)
"""A step that consists of overhead."""


def predicted_step_s(step: EngineStep, profile: Profile) -> float:
    """Return the predicted seconds of a step with the figures of ``profile``, which are those of the engine."""
    config, head = step.model_config, HEAD
    plan = for_engine(StepPlan(feed_forward="store"), "onnx", layout_of(config))
    tables = shared_tables(config, head)
    pricer = Pricer(config, head, step.batch_size, step.length, profile, engines={"onnx": profile}, tables=tables)
    return pricer.price(step.config, plan).step_time_s
