"""Methods, learning rates and published figures of FAR's paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from farsearch.baselines import METHODS, Method
from farsearch.records import FarConfig

__all__ = ["CONTENDERS", "FULL", "PUBLISHED_CHANGE", "WAVES", "Contender", "learning_rate"]

FULL = "full"


@dataclass(frozen=True)
class Contender:
    """One row of the paper's table.

    Attributes:
        selection: how its neurons are chosen, as ``Priming.selection``.
        published: the paper's score by task, in points; DistilBERT, development sets. Of SQuAD 2 it is F1.
        published_time: its seconds over those of full fine-tuning; DistilBERT on a Jetson Xavier NX.
    """

    method: Method
    selection: Literal["l1", "random"] = "l1"
    published: Mapping[str, float] = field(default_factory=dict)
    published_time: Mapping[str, float] = field(default_factory=dict)


def _far40(layers: int, learning_rate: float, epochs: float) -> FarConfig:
    """FAR as published with two fifths of the neurons: ``far10``'s priming of 1 % of the iterations."""
    return FarConfig((0.6,) * layers, learning_rate, epochs, priming_epochs=0.01 * epochs)


_FAR = METHODS["far10"]

CONTENDERS = {
    contender.method.name: contender
    for contender in (
        Contender(
            METHODS[FULL],
            published={"cola": 53.6, "mnli": 82.1, "qnli": 89.1, "qqp": 90.2, "sst2": 91.1, "squad_v2": 67.9},
        ),
        Contender(
            _FAR,
            published={"cola": 52.8, "mnli": 81.9, "qnli": 88.2, "qqp": 90.0, "sst2": 91.1, "squad_v2": 66.4},
            published_time={"cola": 385 / 544},
        ),
        # learning rate, number of neurons and priming of far10: only the choice of the neurons differs
        Contender(
            dataclasses.replace(_FAR, name="random10", title="random 10 %"),
            selection="random",
            published={"cola": 52.0, "mnli": 81.8, "squad_v2": 65.7},
        ),
        Contender(
            dataclasses.replace(_FAR, name="far40", title="FAR r=40 %", config=_far40),
            published={"cola": 53.3, "mnli": 82.1, "qnli": 88.5, "qqp": 90.2, "sst2": 91.3, "squad_v2": 66.6},
            published_time={"cola": 454 / 544},
        ),
        Contender(METHODS["ffn-frozen"]),
        Contender(METHODS["bitfit"], published={"cola": 51.7, "mnli": 81.5, "squad_v2": 49.8}),
    )
}
"""By name, in the order of the table."""

WAVES = ((FULL, "far10"), ("random10", "far40", "ffn-frozen", "bitfit"))
"""Methods that are trained with all seeds first, so that an interrupted run has the main comparison."""

PUBLISHED_CHANGE = {"far10": -1.13, "far40": -0.74}
"""The paper's average change against full fine-tuning over its tasks, in percent."""


def learning_rate(contender: Contender, model: str) -> float:
    """Return the peak learning rate of a method.

    Methods that train whole weights, FAR and its variants, have that of full fine-tuning, so that only the frozen parts
    differ; BitFit has its own. Of the customary three it is the middle one, for MiniLM the highest (1e-4, BitFit 1e-3):
    the recorded grid of SST-2 (benchmarks/grids, evaluated on rows of the training file) gains 12 points from 5e-5 to
    1e-4 without freezing. The grid of CoLA learned nothing at any rate without priming for epochs, which no method here
    has, so it is no evidence.
    """
    method = contender.method
    rates = method.learning_rates if method.config is None else METHODS[FULL].learning_rates
    return rates[-1] if model == "minilm" else rates[1]
