"""Importance of the hyperparameters for metric, memory and time of a study's trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farsearch.formatting import metric_title, metric_words
from farsearch.records import FarConfig, StudySnapshot
from farsearch.report.section import BLUE, Section, canvas, quiet
from farsearch.select import objectives

__all__ = ["Importance", "importance", "importance_section"]

Array = NDArray[np.float64]

_TREES = 64
_MOST = 256
"""Maximum number of trials that a tree is fitted to, and tested on: more take longer and change nothing."""
_LEAST = 12
"""Minimum number of trials for a forest."""
_TRUST = 0.1
"""Share of the variance that a forest must explain for its importances to be meaningful."""
_ROWS = 12


@dataclass(frozen=True)
class Importance:
    """Importances for one objective.

    Attributes:
        explained: share of the variance of out-of-bag trials that the trees explain; at most 1.
        shares: by hyperparameter, the loss of accuracy when it is shuffled; they add up to 1, or are all 0.
    """

    explained: float
    shares: Mapping[str, float]


def importance(features: Mapping[str, Sequence[float]], values: Sequence[float]) -> Importance:
    """Return Breiman's importance by permutation (Random Forests, 2001), measured on out-of-bag trials.

    Args:
        features: of the trials, by name.
        values: the objective of each.
    """
    from sklearn.tree import DecisionTreeRegressor  # takes two seconds, only here

    names, draw = list(features), np.random.default_rng(0)
    x, y = np.array([features[name] for name in names], dtype=np.float32).T, np.array(values, dtype=np.float64)
    y = (y - y.mean()) / (y.std() or 1.0)
    sums, counts, losses = np.zeros(len(y)), np.zeros(len(y)), np.zeros(len(names))
    for seed in range(_TREES):
        inside = draw.integers(len(y), size=min(len(y), _MOST))
        outside = draw.permutation(np.setdiff1d(np.arange(len(y)), inside))[:_MOST]
        if not len(outside):
            continue
        tree = DecisionTreeRegressor(max_features=0.5, min_samples_leaf=2, random_state=seed).fit(x[inside], y[inside])
        # unchanged, then with each column shuffled, in one call: predictions are cheap, calls are not
        seen = np.repeat(x[outside][None], 1 + len(names), axis=0)
        for i in range(len(names)):
            seen[1 + i, :, i] = draw.permutation(seen[0, :, i])
        predicted = tree.predict(seen.reshape(-1, len(names))).reshape(1 + len(names), -1)
        sums[outside] += predicted[0]
        counts[outside] += 1
        errors = np.square(predicted - y[outside]).mean(axis=1)
        losses += errors[1:] - errors[0]
    met = counts > 0
    explained = 1.0 - float(np.square(sums[met] / counts[met] - y[met]).mean()) if met.any() and y.any() else 0.0
    gains = np.maximum(losses, 0.0)
    return Importance(explained, dict(zip(names, (gains / (gains.sum() or 1.0)).tolist(), strict=True)))


def importance_section(snapshot: StudySnapshot) -> Section | None:
    """A bar for each hyperparameter and objective."""
    trials = [(t.config, c) for t in snapshot.complete if t.config is not None and (c := objectives(t)) is not None]
    features = _features([config for config, _ in trials])
    if not features:
        return None
    if len(trials) < _LEAST:
        title = f"{len(trials)} trials are too few to rank the hyperparameters"
        return Section("importance", title, f"It takes at least {_LEAST} complete trials that fit.")
    name = snapshot.metric_name
    titles = {metric_words(name): metric_title(name), "memory": "Memory", "time": "Time"}
    columns = [[costs[i] for _, costs in trials] for i in range(3)]
    found = {what: importance(features, column) for what, column in zip(titles, columns, strict=True)}
    words = ", ".join(f"{what} {100 * max(one.explained, 0.0):.0f} %" for what, one in found.items())
    note = f"By forests fitted to {len(trials):,} trials. Explained variance of out-of-bag trials: {words}."
    return Section("importance", _title(metric_words(name), titles, found), note, _draw(titles, found))


def _title(metric: str, titles: Mapping[str, str], found: Mapping[str, Importance]) -> str:
    findings = [
        f"{titles[what] if what == metric else what} depends most on {_first(one)}"
        for what, one in found.items()
        if one.explained >= _TRUST
    ]
    if found[metric].explained < _TRUST:
        findings.insert(0, f"It is not clear yet what {metric} depends on")
    return ", ".join(findings)


def _first(one: Importance) -> str:
    name = max(one.shares, key=lambda key: one.shares[key])
    return f"{name} ({100 * one.shares[name]:.0f} %)"


def _draw(titles: Mapping[str, str], found: Mapping[str, Importance]) -> Any:
    """Draw panels side by side that share their rows, sorted by importance for the metric."""
    total = {name: sum(one.shares[name] for one in found.values()) for one in found.values() for name in one.shares}
    names = sorted(
        sorted(total, key=lambda name: -total[name])[:_ROWS], key=lambda n: -next(iter(found.values())).shares[n]
    )
    height, left = 0.21 * len(names) + 0.15, 0.18 + 0.066 * max(map(len, names))
    figure, first = canvas(height, left=left, top=0.28, bottom=0.5)
    place = first.get_position()
    gap, width = 0.045, (place.width - 0.09) / len(found)
    rows, most = np.arange(len(names)), 105 * max(max(one.shares.values()) for one in found.values())
    for i, (what, one) in enumerate(found.items()):
        axes = first if i == 0 else figure.add_axes((0, 0, 1, 1))
        axes.set_position((place.x0 + i * (width + gap), place.y0, width, place.height))
        quiet(axes)
        trusted = one.explained >= _TRUST
        axes.barh(rows, [100 * one.shares[name] for name in names], color=BLUE if trusted else "#d5d5d5", height=0.66)
        axes.set_title(titles[what] if trusted else f"{titles[what]}: ?", fontsize=9, loc="left")
        axes.set_yticks(rows, names if i == 0 else [])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, most)
        axes.locator_params(axis="x", nbins=3)
        axes.tick_params(axis="y", length=0)
    figure.text(
        place.x0 + place.width / 2, 0.08 / (height + 0.78), "share of the importance (%)", ha="center", fontsize=9
    )
    return figure


def _features(configs: Sequence[FarConfig]) -> dict[str, list[float]]:
    """Return the varied hyperparameters by name; those that always vary together are one."""
    if not configs:
        return {}
    columns: dict[str, list[float]] = {
        "learning rate": [c.learning_rate for c in configs],
        "epochs": [c.epochs for c in configs],
        "priming": [c.priming_epochs for c in configs],
        **_fractions(configs),
        "embeddings": [float(c.frozen_embeddings) for c in configs],
        "attention": [c.frozen_head_share for c in configs],
        "bottom layers": [float(c.frozen_bottom_layers) for c in configs],
    }
    return {name: column for name, column in columns.items() if len(set(column)) > 1}


def _fractions(configs: Sequence[FarConfig]) -> dict[str, list[float]]:
    if all(len(set(c.frozen_fractions)) == 1 for c in configs):
        return {"frozen fraction": [c.frozen_fractions[0] for c in configs]}
    columns: dict[str, list[float]] = {}
    first = 0
    for i in range(len(configs[0].frozen_fractions)):
        if i + 1 == len(configs[0].frozen_fractions) or not _together(configs, i):
            name = f"layer {i}" if i == first else f"layers {first} to {i}"
            # the highest of the layers: below it the bottom may be frozen, whatever fraction they share
            columns[name] = [c.frozen_fractions[i] for c in configs]
            first = i + 1
    return columns


def _together(configs: Sequence[FarConfig], i: int) -> bool:
    """Return whether layer ``i`` has the fraction of the next one in all trials without a bottom over it."""
    pairs = [c.frozen_fractions[i : i + 2] for c in configs if c.frozen_bottom_layers <= i]
    return bool(pairs) and all(own == above for own, above in pairs)
