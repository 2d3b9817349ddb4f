"""Metrics against scikit-learn and numpy, their errors against brute force."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import evaluate
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, matthews_corrcoef

from farsearch.errors import BadInput
from farsearch.tasks.metrics import get_metric, score

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


def correlation(predictions: list[int], labels: list[int]) -> float:
    """Pearson's correlation of two 0/1 columns, which is Matthews', and 0 where one is constant."""
    if len(set(predictions)) < 2 or len(set(labels)) < 2:
        return 0.0
    return float(np.corrcoef(predictions, labels)[0, 1])


@given(PAIRS)
def test_values_agree_with_independent_formulas(pairs: list[tuple[int, int]]) -> None:
    """Accuracy is the share of equal pairs, Matthews correlation is Pearson's; scikit-learn agrees."""
    predictions, labels = [p for p, _ in pairs], [t for _, t in pairs]
    accuracy = score("accuracy", predictions, labels).value
    assert accuracy == sum(p == t for p, t in pairs) / len(pairs) == accuracy_score(labels, predictions)
    matthews = score("matthews_correlation", predictions, labels).value
    assert matthews == pytest.approx(correlation(predictions, labels), abs=1e-12)
    if len(set(labels)) == 2:
        assert matthews == pytest.approx(matthews_corrcoef(labels, predictions), abs=1e-12)


@given(PAIRS)
def test_errors_agree_with_brute_force(pairs: list[tuple[int, int]]) -> None:
    """The jackknife from four counts is the one that deletes row after row; that of a share is sqrt(p(1-p)/n)."""
    predictions, labels, rows = [p for p, _ in pairs], [t for _, t in pairs], len(pairs)
    deleted = [correlation(predictions[:i] + predictions[i + 1 :], labels[:i] + labels[i + 1 :]) for i in range(rows)]
    expected = math.sqrt((rows - 1) * float(np.var(deleted)))
    assert score("matthews_correlation", predictions, labels).error == pytest.approx(expected, abs=1e-9)
    hits = [float(p == t) for p, t in pairs]
    assert score("accuracy", predictions, labels).error == pytest.approx(np.std(hits) / math.sqrt(rows), abs=1e-12)


def test_the_jackknife_is_what_samples_vary_by() -> None:
    """Over 200 samples of 500 rows, the standard deviation of the metric is the mean of its estimated errors."""
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(200):
        labels = (rng.random(500) < 0.7).astype(int)
        predictions = np.where(rng.random(500) < 0.8, labels, 1 - labels)
        found = score("matthews_correlation", predictions.tolist(), labels.tolist())
        values.append(found.value)
        errors.append(found.error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


@pytest.mark.parametrize(
    ("predictions", "labels"), [([1, 1], [1, 1]), ([0, 0, 0], [0, 1, 0]), ([0, 1], [1, 1]), ([1], [0])]
)
def test_one_class_has_no_correlation_and_no_warning(predictions: list[int], labels: list[int]) -> None:
    """Constant predictions and one class give 0 in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score("matthews_correlation", predictions, labels).value == 0.0


def test_metrics_are_of_evaluate() -> None:
    """They are ``evaluate.Metric`` and work through its own interface, batch by batch too."""
    for name, expected in (("accuracy", 0.75), ("matthews_correlation", 1 / math.sqrt(3))):
        metric = get_metric(name)
        assert isinstance(metric, evaluate.Metric)
        assert metric.compute(predictions=[0, 1, 1, 1], references=[0, 1, 0, 1]) == pytest.approx({name: expected})
        metric.add_batch(predictions=[0, 1], references=[0, 1])
        metric.add_batch(predictions=[1, 1], references=[0, 1])
        assert metric.compute() == pytest.approx({name: expected})


def test_what_can_not_be_scored() -> None:
    """No rows, lengths that differ and an unknown metric are named."""
    with pytest.raises(BadInput, match="0 predictions for 0 labels"):
        score("accuracy", [], [])
    with pytest.raises(BadInput, match="1 predictions for 2 labels"):
        score("accuracy", [1], [1, 0])
    with pytest.raises(BadInput, match="the metric 'f1' is unknown; it must be one of accuracy, matthews_correlation"):
        get_metric("f1")  # type: ignore[arg-type]


def test_nothing_is_written(tmp_path: Path) -> None:
    """Scoring leaves no file in the home folder, nor in the vendors' caches."""
    code = "from farsearch.tasks.metrics import score; print(score('matthews_correlation', [0, 1], [0, 1]).value)"
    folders = {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **folders}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1.0\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
