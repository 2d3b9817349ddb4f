"""Compare published steps on boards with the shipped profiles, which do not use them.

FedAdapter (MobiCom 2023), figures in the authors' plotting scripts: batch 4, sequence 256, seconds per batch. For
DistilBERT on the Raspberry Pi batch and length are not stated and assumed to be the same. The rates of both boards'
profiles were derived from the full BERT-base step, the first row of each.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from benchmarks.cost_models import built, layers_of
from farsearch.cost.plans import ordinary_plan
from farsearch.cost.pricer import Pricer
from farsearch.devices import load_profile
from farsearch.models.heads import Head
from farsearch.records import FarConfig

__all__ = ["PublishedDevice", "PublishedRow", "published"]

_BATCH, _LENGTH = 4, 256
_TX2 = {11: 1.51, 10: 1.42, 9: 1.33, 8: 1.25, 7: 1.16, 6: 1.06, 5: 0.97, 4: 0.88, 3: 0.79, 2: 0.70, 1: 0.61, 0: 0.53}
"""Seconds by the number of trained top layers of BERT-base, embeddings frozen. All layers with the embeddings: 1.70."""
_PI_LAYERS = (15.03, 13.12, 11.83, 9.63, 8.02, 5.28)
"""Seconds of DistilBERT with frozen embeddings and one to six frozen layers."""


@dataclass(frozen=True)
class PublishedRow:
    """One published step and its prediction."""

    model: str
    trained: str
    published_s: float
    predicted_s: float


@dataclass(frozen=True)
class PublishedDevice:
    """All rows of a device; the first is full fine-tuning, to which the scalar is fitted."""

    device: str
    rows: tuple[PublishedRow, ...]

    @property
    def scalar(self) -> float:
        """Factor between the published and the predicted time of full fine-tuning."""
        return self.rows[0].published_s / self.rows[0].predicted_s

    @property
    def mape_raw(self) -> float:
        """Mean absolute error over all rows, without the factor."""
        return statistics.mean(abs(row.predicted_s / row.published_s - 1) for row in self.rows)

    @property
    def mape_one_scalar(self) -> float:
        """Mean absolute error with the factor, over the rows to which it was not fitted."""
        return statistics.mean(abs(self.scalar * row.predicted_s / row.published_s - 1) for row in self.rows[1:])


def published() -> list[PublishedDevice]:
    """Return the comparison of both boards."""
    bert, distil = "bert-base-uncased", "distilbert-base-uncased"
    tx2 = [(bert, "all", 0, False, 1.70)]
    tx2 += [(bert, f"top {top} layers", 12 - top, True, seconds) for top, seconds in _TX2.items()]
    pi = [
        (bert, "all", 0, False, 34.0),
        (distil, "all", 0, False, 18.27),
        (distil, "all but embeddings", 0, True, 17.03),
    ]
    pi += [(distil, f"top {5 - i} layers", i + 1, True, seconds) for i, seconds in enumerate(_PI_LAYERS)]
    return [_device("jetson-tx2", tx2), _device("raspberry-pi-4", pi)]


def _device(name: str, rows: list[tuple[str, str, int, bool, float]]) -> PublishedDevice:
    profile = load_profile(name)
    found = []
    for model, title, bottom, embeddings, seconds in rows:
        pricer = Pricer(built(model)[0], Head(), _BATCH, _LENGTH, profile)
        config = FarConfig((0.0,) * layers_of(model), 1e-4, 1.0, 0.0, embeddings, 0, bottom)
        found.append(PublishedRow(model, title, seconds, pricer.price(config, ordinary_plan(profile)).step_time_s))
    return PublishedDevice(name, tuple(found))
