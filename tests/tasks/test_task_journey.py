"""Every task from its files to a fine-tuned bundle: a search of three trials with a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from farsearch.bundle.read import finetune, read_bundle
from farsearch.bundle.write import write_bundle
from farsearch.far.loop import predict
from farsearch.records import flat
from farsearch.runtime.encoding import predictions
from farsearch.runtime.scores import METRICS
from farsearch.runtime.scores import score as plain_score
from farsearch.runtime.torch_engine.model import model_class
from farsearch.study.predictions import trial_folder
from farsearch.tasks.metrics import score
from farsearch.tasks.spec import study_task
from farsearch.tasks.standard_errors import metric_error
from tests.journey import chdir
from tests.tasks.layouts import NAMES, write_task
from tests.tasks.searches import Searched, search_task, write_user_rows

_EACH_RUN = ("cola", "mrpc", "stsb", "mnli", "squad_v2")
"""Tasks with one and two texts, classes, numbers and answers, one and several metrics, one and two development sets."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if name in _EACH_RUN else pytest.mark.slow) for name in NAMES],
)
def searched(
    request: pytest.FixtureRequest, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Searched]:
    """A search of each official task; those that differ from others in names alone are for the whole suite."""
    folder = tmp_path_factory.mktemp(request.param)
    data = write_task(folder, request.param)
    with chdir(folder):
        yield search_task(folder, tiny_bert, task=request.param, data_dir=data)


def test_each_task_completes_a_search(searched: Searched) -> None:
    """Three trials complete with a metric in its range, its standard error, and the components of composite metrics."""
    snapshot = searched.snapshot
    spec = study_task(snapshot.meta, snapshot.settings.job.task)
    assert spec == searched.bench.data.spec
    assert [flat(trial).state for trial in snapshot.trials] == ["complete"] * 3
    for trial in snapshot.trials:
        metric = flat(trial).metric
        assert flat(trial).metric_error is not None
        assert flat(trial).dev_metric is not None
        assert metric is not None
        assert -1 <= metric <= 1
        parts = METRICS[spec.metric].parts
        expected = {*parts, *(f"dev/{part}" for part in parts)} if len(parts) > 1 else set()
        if spec.name == "mnli":
            expected |= {"dev_mismatched/accuracy"}
        assert set(flat(trial).parts) == expected
        assert all(point.loss > 0 for point in flat(trial).curve)


def test_stored_predictions_reproduce_the_metric(searched: Searched) -> None:
    """The evidence saved with a trial's weights gives its metric and standard error again."""
    metric = searched.bench.data.spec.metric
    for trial in searched.snapshot.trials:
        evidence = load_file(trial_folder(searched.search.folder, trial.number) / "logits.safetensors")
        rows = evidence["validation_evidence"].numpy()
        assert len(rows) == len(searched.bench.validation_rows.answers)
        assert plain_score(metric, rows.tolist()).value == pytest.approx(flat(trial).metric)
        assert metric_error(metric, rows) == pytest.approx(flat(trial).metric_error)
        assert plain_score(metric, evidence["dev_evidence"].tolist()).value == pytest.approx(flat(trial).dev_metric)


def test_the_bundle_equals_its_trial_and_can_be_fine_tuned(searched: Searched, tmp_path: Path) -> None:
    """The exported model, loaded by transformers, has the trial's metric; its FAR phase runs on the task's files.

    The metric that the phase reports on the development file equals that of the saved model, computed here.
    """
    bench, trial = searched.bench, searched.snapshot.front[0]
    out = tmp_path / "bundle"
    write_bundle(searched.snapshot, trial, searched.search.folder, out, "a test", home=tmp_path / "home")
    kind, rows = bench.data.spec.kind, bench.dev_rows

    def dev_metric(folder: Path) -> float:
        model = model_class(kind).from_pretrained(folder, dtype=torch.float32)
        logits = predict(model, rows.features, bench.pad_id)
        return score(bench.data.spec.metric, predictions(rows, logits), rows.answers, bench.task.labels).value

    assert dev_metric(out / "model") == pytest.approx(trial.outcome.dev_metric)
    says = json.loads((out / "far.json").read_text(encoding="utf-8"))["phase"]
    assert says["task"]["kind"] == kind
    assert says["segments"] == (len(bench.data.spec.texts) == 2)
    train, dev = (write_user_rows(tmp_path, bench, part) for part in ("train", "dev"))
    bundle = read_bundle(out)
    tuned = finetune(bundle, train, dev, tmp_path / "tuned", epochs=0.5)
    assert tuned.metric is not None
    assert tuned.metric.value == pytest.approx(dev_metric(tmp_path / "tuned"))
    names = model_class(kind).from_pretrained(tmp_path / "tuned").config.id2label
    if bench.data.spec.labels:
        assert tuple(names.values()) == bench.data.spec.labels
