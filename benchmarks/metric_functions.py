"""Synthetic metrics over a real space, drawn at random by seed: what a training might score, without training.

A function maps a configuration to the metric that its training would have with many rows and seeds, to the noise of one
measurement, and to its intermediate metrics, or to a failure. The distribution, of which ``draw_function`` draws:

- The constant answer scores 0, 1/3 or 1/2, the best training 0.15 to 0.45 more. In between, quality q is 1 - L, cut
  at 0.
- L is a sum of losses: of the learning rate (a parabola on the log scale, its optimum anywhere in the upper two
  thirds of the range), of frozen neurons (a power of 1 to 6 of each layer's fraction, with random weights by layer),
  of frozen attention (random weights by layer), and of frozen embeddings, which may be negative. Priming reduces the
  loss of frozen neurons by up to 0.8 of it, or increases it by up to 0.3. Where hardly anything is trained, q falls
  to 0.
- Additive share: each parameter has a random smooth effect of its own, and all together one of their interaction (a
  Gaussian process drawn by random Fourier features). Of the loss's variance the ``additive`` kind has none from
  interactions, the others up to half, the ``interacting`` kind most; there and with cliffs the best learning rate rises
  with the frozen share.
- ``cliffs``: above a limit of the learning rate, which depends on the frozen share, and where a random group of
  layers is not trained enough, quality falls by a step.
- ``flat``: differences are a tenth, of the size of the noise, except where hardly anything is trained.
- ``diverging``: trainings above such a limit end without a metric, somewhere before their end.
- Plateaus: with a chance of one third, and where it is flat, the best fifth to half of the space scores alike.
- Noise: part of the binomial error of 512, 1,024 or 2,048 rows, and that of the training, which rises as quality falls.
- Intermediate metrics approach the final one as a power of the share of the steps, later at low learning rates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from farsearch.records import FarConfig

__all__ = ["KINDS", "Features", "Kind", "MetricFunction", "draw_function"]

Array = NDArray[np.float64]

Kind = Literal["additive", "interacting", "cliffs", "flat", "diverging"]
KINDS: Sequence[Kind] = get_args(Kind)

_WAVES = 200
"""Random Fourier features of a Gaussian process."""


@dataclass(frozen=True)
class Features:
    """Configurations as numbers from 0 to 1.

    Attributes:
        ffn, attention: trained share of each layer's neurons, and whether its attention is trained,
            ``[configurations, layers]``.
        embeddings: whether they are trained. rate: on the log scale of the range. priming: rank among the lengths.
    """

    ffn: Array
    attention: Array
    embeddings: Array
    rate: Array
    priming: Array

    @classmethod
    def of(cls, configs: Sequence[FarConfig], rates: tuple[float, float], primings: Sequence[float]) -> Features:
        """Return the features, with the range of the learning rate and the lengths of a priming, in rising order."""
        forms = [config.canonical() for config in configs]
        layer = np.arange(len(forms[0].frozen_fractions))
        frozen = np.array([form.frozen_attention_layers for form in forms])[:, None]
        rate = np.log([form.learning_rate for form in forms])
        low, high = np.log(rates)
        return cls(
            1.0 - np.array([form.frozen_fractions for form in forms]),
            (layer >= frozen).astype(float),
            np.array([not form.frozen_embeddings for form in forms], dtype=float),
            (rate - low) / (high - low),
            np.array([primings.index(form.priming_epochs) for form in forms]) / max(1, len(primings) - 1),
        )

    @property
    def frozen(self) -> Array:
        """Frozen share of neurons and attention, ``[configurations]``."""
        return np.asarray(1.0 - (self.ffn.mean(axis=1) + self.attention.mean(axis=1)) / 2)

    @property
    def points(self) -> Array:
        """All features side by side; neurons and attention by their means over layers, and by their slopes."""
        slope = np.linspace(-1.0, 1.0, self.ffn.shape[1])
        sides = [side for part in (self.ffn, self.attention) for side in (part.mean(axis=1), part @ slope / len(slope))]
        return np.column_stack([*sides, self.embeddings, self.rate, self.priming])


@dataclass(frozen=True)
class _Waves:
    """A smooth random function: one draw of a Gaussian process with a squared exponential kernel.

    Rahimi and Recht 2007, random Fourier features.
    """

    frequencies: Array
    phases: Array
    weights: Array

    @classmethod
    def draw(cls, random: np.random.Generator, dimensions: int, scale: tuple[float, float]) -> _Waves:
        lengths = random.uniform(*scale, size=dimensions)
        return cls(
            random.normal(size=(dimensions, _WAVES)) / lengths[:, None],
            random.uniform(0, 2 * np.pi, size=_WAVES),
            random.normal(size=_WAVES) * np.sqrt(2 / _WAVES),
        )

    def __call__(self, points: Array) -> Array:
        values: Array = np.cos(points @ self.frequencies + self.phases) @ self.weights
        return values


@dataclass(frozen=True)
class MetricFunction:
    """One synthetic metric; see the distribution in the module.

    Attributes:
        constant: metric of a constant answer. gain: of the best training above it.
        rows: validation rows of a measurement.
    """

    kind: Kind
    constant: float
    gain: float
    rows: int
    numbers: Mapping[str, float]
    by_layer: Mapping[str, Array]
    own: Sequence[_Waves]
    together: _Waves

    def metric(self, features: Features) -> Array:
        """Return the metric without noise, ``[configurations]``, also where a training fails."""
        return self.constant + self.gain * self._quality(features)

    def fails(self, features: Features) -> NDArray[np.bool_]:
        """Return whether each training ends without a metric."""
        return self._above_limit(features) if self.kind == "diverging" else np.zeros(len(features.rate), dtype=np.bool_)

    def error(self, metric: Array, rows: int | None = None) -> Array:
        """Return the standard error over the draw of the rows, as a search knows it."""
        share = np.clip(metric if self.constant else (1 + metric) / 2, 0.05, 0.95)
        error: Array = (1.0 if self.constant else 2.0) * np.sqrt(share * (1 - share) / (rows or self.rows))
        return error

    def noise(self, metric: Array, rows: int | None = None) -> Array:
        """Return the standard deviation of a measurement: rows are the same for all trials, so part of their error."""
        quality = np.clip((metric - self.constant) / self.gain, 0, 1)
        training = self.numbers["training noise"] * (1 + 2 * (1 - quality))
        noise: Array = np.hypot(self.numbers["row noise"] * self.error(metric, rows), training)
        return noise

    def intermediate(self, metric: Array, features: Features, share: float) -> Array:
        """Return the metric after a share of the training."""
        power = self.numbers["curve"] * (1.5 - features.rate)
        partial: Array = self.constant + (metric - self.constant) * share**power
        return partial

    def loss(self, features: Features) -> Array:
        """Return the sum of the losses before it is scaled, ``[configurations]``."""
        n, layers = self.numbers, self.by_layer
        best_rate = n["best rate"] + n["rate shift"] * features.frozen
        frozen = ((1 - features.ffn) ** n["power"]) @ layers["ffn"]
        primed = 1 - n["priming"] * (1 - (1 - features.priming) ** 2)
        loss = n["rate"] * (features.rate - best_rate) ** 2 + n["ffn"] * frozen * primed
        loss += n["attention"] * ((1 - features.attention) @ layers["attention"])
        loss += n["embeddings"] * (1 - features.embeddings)
        points = features.points
        loss += n["own"] * sum(wave(points[:, [i]]) for i, wave in enumerate(self.own))
        loss += n["together"] * self.together(points)
        return np.asarray(loss + n["step"] * self._below_need(features) + n["collapse"] * self._above_limit(features))

    def _quality(self, features: Features) -> Array:
        n = self.numbers
        loss = np.maximum(n["scale"] * (self.loss(features) - n["lowest"]), n["plateau"]) - n["plateau"]
        trained = (features.ffn.mean(axis=1) + features.attention.mean(axis=1) + 0.2 * features.embeddings) / 2.2
        alive = 1 - np.exp(-((trained / n["least"]) ** 2))
        quality: Array = np.clip(1 - loss, 0, 1) * alive
        return quality

    def _above_limit(self, features: Features) -> NDArray[np.bool_]:
        limit = self.numbers["limit"] + self.numbers["limit shift"] * features.frozen
        return np.asarray(features.rate > limit)

    def _below_need(self, features: Features) -> NDArray[np.bool_]:
        trained = (features.ffn + features.attention) / 2 @ self.by_layer["needed"]
        return np.asarray(trained < self.numbers["need"])


def draw_function(kind: Kind, seed: int, sample: Features) -> MetricFunction:
    """Draw a function of a kind.

    Args:
        seed: the same function for the same kind and seed.
        sample: many configurations, on which losses are scaled: the best of them has the quality 1.
    """
    digest = hashlib.sha256(f"{kind} {seed}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    count = sample.ffn.shape[1]
    limited, interacting = kind in ("cliffs", "diverging"), kind != "additive"
    interaction = {"additive": 0.0, "interacting": random.uniform(0.15, 0.3)}.get(kind, random.uniform(0.0, 0.1))
    numbers = {
        "best rate": random.uniform(0.35, 0.9),
        "rate shift": random.uniform(0.0, 0.4) * interacting,
        "rate": random.uniform(0.2, 2.0),
        "power": random.uniform(1.0, 6.0),
        "ffn": random.uniform(0.05, 0.5),
        "attention": random.uniform(0.05, 0.5),
        "embeddings": random.uniform(-0.03, 0.1),
        "priming": random.uniform(-0.3, 0.8) * interacting,
        "own": random.uniform(0.01, 0.05),
        "together": interaction,
        "step": random.uniform(0.2, 0.6) * (kind == "cliffs"),
        "need": random.uniform(0.1, 0.5),
        "collapse": random.uniform(0.3, 0.8) * (kind == "cliffs"),
        "limit": random.uniform(0.4, 0.8) if limited else 2.0,
        "limit shift": random.uniform(-0.1, 0.4),
        "least": np.exp(random.uniform(np.log(0.02), np.log(0.12))),
        "scale": random.uniform(0.06, 0.15) if kind == "flat" else 1.0,
        "curve": random.uniform(0.1, 0.5),
        "row noise": random.uniform(0.4, 0.8),
        "training noise": np.exp(random.uniform(np.log(0.002), np.log(0.008))),
        "lowest": 0.0,
        "plateau": 0.0,
    }
    by_layer = {
        "ffn": random.dirichlet(np.full(count, 2.0)),
        "attention": random.dirichlet(np.full(count, 2.0)),
        "needed": random.dirichlet(np.full(count, 0.7)),
    }
    own = [_Waves.draw(random, 1, (0.3, 1.0)) for _ in range(sample.points.shape[1])]
    together = _Waves.draw(random, sample.points.shape[1], (0.4, 1.2))
    constant = float(random.choice([0.0, 1 / 3, 0.5]))
    gain, rows = random.uniform(0.15, 0.45), int(random.choice([512, 1024, 2048]))
    has_plateau, share = kind == "flat" or random.random() < 1 / 3, random.uniform(0.2, 0.5)

    def made(**changed: float) -> MetricFunction:
        return MetricFunction(kind, constant, gain, rows, {**numbers, **changed}, by_layer, own, together)

    drawn = made()
    losses = drawn.loss(sample)[~drawn.fails(sample)]
    lowest = float(losses.min())
    plateau = numbers["scale"] * float(np.quantile(losses, share) - lowest) if has_plateau else 0.0
    return made(lowest=lowest, plateau=plateau)
