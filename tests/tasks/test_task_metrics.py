"""Metrics against scikit-learn, scipy, seqeval and the definitions; standard errors against brute force."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, matthews_corrcoef

from benchmarks.paper_statistics import difference, difference_draws, interval
from farsearch.errors import BadInput
from farsearch.runtime import scores
from farsearch.tasks.evaluate_metrics import get_metric
from farsearch.tasks.metrics import score
from farsearch.tasks.standard_errors import comparable, metric_error, paired_error
from tests.tasks.metric_cases import REFERENCES, TAGS, rows

metrics = pytest.mark.parametrize("metric", REFERENCES)


def draw_rows(data: st.DataObject, metric: str, least: int = 1) -> tuple[list[Any], list[Any], list[Any]]:
    """Draw (prediction, other prediction, truth)."""
    first, second, true = zip(*data.draw(rows(REFERENCES[metric][0], least)), strict=True)
    return list(first), list(second), list(true)


def deleted(metric: str, said: list[Any], true: list[Any]) -> list[float]:
    """Reference values with each row left out."""
    value = REFERENCES[metric][1]
    return [value(said[:i] + said[i + 1 :], true[:i] + true[i + 1 :]) for i in range(len(true))]


def evidence_of(metric: str, said: list[Any], true: list[Any]) -> Any:
    """Per-row contributions, ``[rows, k]``."""
    return np.array(scores.evidence(metric, said, true, TAGS))


@metrics
@settings(max_examples=40)
@given(data=st.data())
def test_values_agree_with_references(metric: str, data: st.DataObject) -> None:
    """The components of a metric agree with its value, too."""
    said, _, true = draw_rows(data, metric)
    found = score(metric, said, true, TAGS)
    assert found.value == pytest.approx(REFERENCES[metric][1](said, true), abs=1e-9)
    rule = scores.METRICS[metric]
    assert tuple(found.parts) == rule.parts
    assert found.value == rule.value_of(dict(found.parts))
    assert found.evidence.shape[0] == len(true)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_classes_are_scored_as_by_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    """Accuracy, and Matthews correlation of several classes."""
    predictions, labels = [p for p, _ in pairs], [t for _, t in pairs]
    assert score("accuracy", predictions, labels).value == accuracy_score(labels, predictions)
    if len(set(labels)) > 1:
        expected = matthews_corrcoef(labels, predictions)
        assert score("matthews_correlation", predictions, labels).value == pytest.approx(expected, abs=1e-12)


@metrics
@settings(max_examples=20)
@given(data=st.data())
def test_errors_agree_with_brute_force(metric: str, data: st.DataObject) -> None:
    """The jackknife equals leaving out row after row; the error of a share is sqrt(p(1-p)/n)."""
    said, _, true = draw_rows(data, metric, least=2)
    error, count = metric_error(metric, evidence_of(metric, said, true)), len(true)
    if metric == "accuracy":
        share = sum(a == b for a, b in zip(said, true, strict=True)) / count
        assert error == pytest.approx(math.sqrt(share * (1 - share) / count), abs=1e-12)
    else:
        assert error == pytest.approx(math.sqrt((count - 1) * np.var(deleted(metric, said, true))), abs=1e-7)


@metrics
@settings(max_examples=20)
@given(data=st.data())
def test_paired_errors_agree_with_brute_force(metric: str, data: st.DataObject) -> None:
    """The error of a difference is symmetric, and exactly 0 between equal predictions."""
    said, others, true = draw_rows(data, metric, least=2)
    first, second = evidence_of(metric, said, true), evidence_of(metric, others, true)
    error, count = paired_error(metric, first, second), len(true)
    assert paired_error(metric, second, first) == pytest.approx(error, abs=1e-12)
    assert paired_error(metric, first, first) == 0
    if metric == "accuracy":
        hits = [float(a == t) - float(b == t) for a, b, t in zip(said, others, true, strict=True)]
        assert error == pytest.approx(np.std(hits) / math.sqrt(count), abs=1e-12)
    else:
        values = np.subtract(deleted(metric, said, true), deleted(metric, others, true))
        assert error == pytest.approx(math.sqrt((count - 1) * np.var(values)), abs=1e-7)


def random_rows(metric: str, count: int, seed: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Two models of different accuracy."""
    draw = np.random.default_rng(seed)
    kind = REFERENCES[metric][0]
    if kind == "regression":
        true = draw.normal(size=count).round(1)
        return [*(true + draw.normal(size=count))], [*(true + 2 * draw.normal(size=count))], [*true]
    make: Callable[[], Any] = {
        "classification": lambda: int(draw.integers(3)),
        "multi-label": lambda: tuple(np.flatnonzero(draw.random(4) < 0.4).tolist()),
        "question-answering": lambda: " ".join(draw.choice(["one", "two", "three"], draw.integers(4))),
        "token-classification": lambda: tuple(draw.integers(0, 3, 4).tolist()),
    }[kind]
    answers = [make() for _ in range(count)]
    first, second = ([one if draw.random() < share else make() for one in answers] for share in (0.7, 0.4))
    return first, second, [((one, 0),) for one in answers] if kind == "question-answering" else answers


@metrics
def test_the_interval_agrees_with_the_bootstrap(metric: str) -> None:
    """Its ends are those of 2,000 resamples, up to sampling error."""
    said, others, true = random_rows(metric, 80, 1)
    first, second = evidence_of(metric, said, true), evidence_of(metric, others, true)
    low, high = interval(difference_draws(metric, [first], [second]))
    draw, found = np.random.default_rng(2), []
    for _ in range(2000):
        chosen = draw.integers(0, len(true), len(true))
        found.append(
            scores.score(metric, first[chosen].tolist()).value - scores.score(metric, second[chosen].tolist()).value
        )
    ends = np.percentile(found, [2.5, 97.5])
    assert (low, high) == pytest.approx(ends, abs=0.12 * (ends[1] - ends[0]))
    expected = score(metric, said, true, TAGS).value - score(metric, others, true, TAGS).value
    assert difference(metric, [first], [second]) == pytest.approx(expected, abs=1e-12)
    assert low < expected < high
    assert not difference_draws(metric, [first], [first]).any()
    # the error by which a search compares its trials is a quarter of the interval
    assert 4 * paired_error(metric, first, second) == pytest.approx(high - low, rel=0.15)


@pytest.mark.parametrize("metric", ["matthews_correlation", "accuracy_f1", "pearson_spearman", "micro_f1"])
def test_the_error_estimates_the_spread_of_samples(metric: str) -> None:
    """Over 200 samples of 300 rows, the metric's standard deviation is the mean of its estimated errors."""
    samples = [evidence_of(metric, said, true) for said, _, true in (random_rows(metric, 300, i) for i in range(200))]
    values = [scores.score(metric, sample.tolist()).value for sample in samples]
    assert np.mean([metric_error(metric, sample) for sample in samples]) == pytest.approx(np.std(values), rel=0.15)


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [([1, 1], [1, 1]), ([0, 0, 0], [0, 1, 0]), ([0, 1], [1, 1]), ([1], [0]), ([2, 2], [0, 1])],
)
@pytest.mark.parametrize("metric", ["matthews_correlation", "pearson", "spearman", "pearson_spearman"])
def test_constant_values_have_correlation_0_without_warnings(
    metric: str, predictions: list[int], labels: list[int]
) -> None:
    """Constant predictions and one class, also where the mean is not exactly representable."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in (1, 1 if metric == "matthews_correlation" else 0.1):
            found = score(metric, [scale * p for p in predictions], [scale * t for t in labels])
            assert found.value == 0.0
            assert scores.score(metric, found.evidence.tolist()).value == 0.0
            assert metric_error(metric, found.evidence) >= 0


@pytest.mark.parametrize("metric", ["f1", "micro_f1", "entity_f1"])
def test_f1_without_positives_is_0(metric: str) -> None:
    """As with scikit-learn's ``zero_division=0`` and in seqeval; no warning, and no error from rounding noise."""
    answers: dict[str, list[Any]] = {"f1": [0, 2], "micro_f1": [(), ()], "entity_f1": [(0, 0), ()]}
    nothing = answers[metric]
    found = score(metric, nothing, nothing, TAGS)
    assert (found.value, found.error) == (0.0, 0.0)
    assert scores.score(metric, found.evidence.tolist()).value == 0.0


@pytest.mark.parametrize("metric", ["pearson", "spearman", "pearson_spearman"])
def test_non_finite_predictions_have_correlation_0(metric: str) -> None:
    """A diverged model has no spread, and can be paired with another."""
    true = [0.0, 1.0, 2.0, 3.0]
    lost, good = score(metric, [math.nan, 1.0, math.inf, 2.0], true), score(metric, [0.0, 1.0, 2.5, 3.0], true)
    assert (lost.value, lost.error) == (0.0, 0.0)
    assert scores.score(metric, lost.evidence.tolist()).value == 0.0
    assert difference(metric, [good.evidence], [lost.evidence]) == pytest.approx(good.value)
    assert paired_error(metric, good.evidence, lost.evidence) == pytest.approx(good.error)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
@pytest.mark.parametrize("outlier", [1e3, 1e9])
def test_correlations_are_numerically_stable(scale: float, outlier: float) -> None:
    """Far from 0, beside an outlier, and near the limits of a float's range."""
    draw = np.random.default_rng(0)
    true = draw.normal(size=30)
    said = 1000 + true + draw.normal(size=30)
    said[7] = outlier
    without = [score("pearson", np.delete(said, i).tolist(), np.delete(true, i).tolist()).value for i in range(30)]
    found = score("pearson", (scale * said).tolist(), (scale * true).tolist())
    assert found.value == pytest.approx(np.corrcoef(said, true)[0, 1], abs=1e-12)
    assert scores.score("pearson", found.evidence.tolist()).value == pytest.approx(found.value, abs=1e-12)
    assert found.error == pytest.approx(math.sqrt(29 * np.var(without)), rel=1e-6)


def test_metrics_implement_the_evaluate_interface() -> None:
    """They are ``evaluate.Metric`` objects, and support batches."""
    cases: dict[str, tuple[list[Any], list[Any], dict[str, float]]] = {
        "accuracy": ([0, 1, 1, 1], [0, 1, 0, 1], {"accuracy": 0.75}),
        "matthews_correlation": ([0, 1, 1, 1], [0, 1, 0, 1], {"matthews_correlation": 1 / math.sqrt(3)}),
        "f1": ([0, 1, 1, 2], [0, 1, 0, 1], {"f1": 0.5}),
        "macro_f1": ([0, 1, 1, 2], [0, 1, 0, 1], {"macro_f1": (2 / 3 + 1 / 2 + 0) / 3}),
        "accuracy_f1": ([0, 1, 1, 1], [0, 1, 0, 1], {"accuracy": 0.75, "f1": 0.8}),
        "pearson": ([0.0, 1.0, 2.0, 5.0], [0.0, 2.0, 1.0, 3.0], {"pearson": 7 / math.sqrt(14 * 5)}),
        "spearman": ([0.0, 1.0, 2.0, 5.0], [0.0, 2.0, 1.0, 3.0], {"spearman": 0.8}),
        "pearson_spearman": (
            [0.0, 1.0, 2.0, 5.0], [0.0, 2.0, 1.0, 3.0], {"pearson": 7 / math.sqrt(14 * 5), "spearman": 0.8},
        ),
        "micro_f1": (
            [[0], [0, 1], [], [2]], [[0], [1], [2], []],
            {"precision": 0.5, "recall": 2 / 3, "f1": 4 / 7, "exact_match": 0.25},
        ),
        "squad": (
            ["the cat", "", "dog", "red dog"], [["Cat.", "a dog"], [], [], ["dog"]],
            {"exact_match": 0.5, "f1": (1 + 1 + 0 + 2 / 3) / 4},
        ),
        "entity_f1": (
            [["B-X", "I-X"], ["O"], ["I-Y"], ["B-X", "O"]], [["B-X", "I-X"], ["B-X"], ["B-Y"], ["B-X", "I-X"]],
            {"precision": 2 / 3, "recall": 0.5, "f1": 4 / 7},
        ),
    }  # fmt: skip
    assert cases.keys() == scores.METRICS.keys()
    for name, (said, true, expected) in cases.items():
        metric = get_metric(name)
        assert isinstance(metric, evaluate.Metric)
        assert metric.compute(predictions=said, references=true) == pytest.approx(expected)
        metric.add_batch(predictions=said[:2], references=true[:2])
        metric.add_batch(predictions=said[2:], references=true[2:])
        assert metric.compute() == pytest.approx(expected)


def test_invalid_inputs_are_refused() -> None:
    """No rows, different lengths, an unknown metric."""
    with pytest.raises(BadInput, match="0 predictions for 0 labels"):
        score("accuracy", [], [])
    with pytest.raises(BadInput, match="1 predictions for 2 labels"):
        score("accuracy", [1], [1, 0])
    with pytest.raises(
        BadInput, match="the metric 'bleu' is unknown; it must be one of accuracy, matthews_correlation"
    ):
        score("bleu", [1], [1])


def test_evidence_of_other_rows_is_not_comparable() -> None:
    """A different number of rows, or different true values."""
    three, two = (evidence_of("accuracy", [1] * count, [0, 1, 1][:count]) for count in (3, 2))
    other = evidence_of("accuracy", [1, 1, 1], [1, 1, 1])
    assert comparable("accuracy", three, three)
    for evidence in (two, other):
        assert not comparable("accuracy", three, evidence)
    said, right = (evidence_of("micro_f1", [labels], [(1,)]) for labels in ((0,), (1,)))
    assert comparable("micro_f1", said, right)


@pytest.mark.slow
def test_scoring_writes_no_files(tmp_path: Path) -> None:
    """Neither in the home folder nor in the vendors' caches."""
    code = "from farsearch.tasks.metrics import score; print(score('matthews_correlation', [0, 1], [0, 1]).value)"
    folders = {"HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **folders}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1.0\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
