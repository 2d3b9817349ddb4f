"""Unequal classes: their metric, and the weights of the classes in the loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from farsearch.errors import BadInput
from farsearch.resolve import Job, resolve_job
from farsearch.runtime.class_weights import balanced_weights
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store


def write(path: Path, rare: int, common: int) -> Path:
    """Write rows of two classes as a CSV file."""
    lines = [f"text{i} number{i},{'no' if i < common else 'yes'}" for i in range(common + rare)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def resolve(train: Path, model: Path, store: Store, notes: list[str] | None = None, **changes: Any) -> Job:
    """Resolve a job on a user's file."""
    own = {"train": str(train), **changes.pop("own", {})}
    spec = SearchSpec(device="jetson-nano", model=str(model), own=own, **changes)
    return resolve_job(spec, store, (notes if notes is not None else []).append, "s")


@given(st.lists(st.integers(0, 4), min_size=1).filter(lambda targets: set(targets) == set(range(max(targets) + 1))))
def test_balanced_weights_are_those_of_scikit_learn(targets: list[int]) -> None:
    classes = max(targets) + 1
    expected = compute_class_weight("balanced", classes=np.arange(classes), y=np.array(targets))
    assert balanced_weights(targets, classes) == pytest.approx(expected.tolist())


def test_a_class_without_a_row_has_weight_1() -> None:
    assert balanced_weights([0, 0, 0, 2], 3) == pytest.approx((4 / 6, 1.0, 4 / 2))


@pytest.mark.parametrize(("rare", "metric", "weights"), [(9, "macro_f1", "balanced"), (10, "accuracy", "none")])
def test_a_class_under_a_fifth_of_the_commonest_is_weighted_and_measured(
    rare: int, metric: str, weights: str, tiny_bert: Path, tmp_path: Path
) -> None:
    """And both are said; from a fifth on, nothing changes."""
    notes: list[str] = []
    dev = write(tmp_path / "dev.csv", 5, 5)
    job = resolve(write(tmp_path / "a.csv", rare, 50), tiny_bert, Store(tmp_path), notes, own={"dev": str(dev)})
    assert (job.data.spec.metric, job.settings.job.class_weights) == (metric, weights)
    assert any("the rarest class has 9 rows, the commonest 50" in note for note in notes) == (weights == "balanced")


def test_choices_of_the_user_are_kept(tiny_bert: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 10, 90)
    job = resolve(path, tiny_bert, Store(tmp_path), class_weights="none", own={"metric": "accuracy"})
    assert (job.data.spec.metric, job.settings.job.class_weights) == ("accuracy", "none")
    features = job.bench(Store(tmp_path)).train_rows.features
    assert features.class_weights is None


def test_weights_are_those_of_the_trained_rows(tiny_bert: Path, tmp_path: Path) -> None:
    job = resolve(write(tmp_path / "a.csv", 20, 180), tiny_bert, Store(tmp_path))
    rows = job.bench(Store(tmp_path)).train_rows
    assert rows.features.class_weights == balanced_weights(rows.answers, 2)


def test_a_study_of_an_older_version_goes_on_with_its_metric_and_loss(tiny_bert: Path, tmp_path: Path) -> None:
    path, store = write(tmp_path / "a.csv", 10, 90), Store(tmp_path)
    old = resolve(path, tiny_bert, store, class_weights="none", own={"metric": "accuracy"})
    options = {**old.meta["options"], "class_weights": None}
    options["own"] = {**options["own"], "metric": None}
    store.open("s", old.settings, {**old.meta, "options": options})
    notes: list[str] = []
    again = resolve(path, tiny_bert, store, notes)
    assert (again.data.spec.metric, again.settings.job.class_weights) == ("accuracy", "none")
    store.check("s", again.settings, again.meta)
    assert any("is an older one: its metric is accuracy" in note for note in notes)


def test_weights_of_classes_are_for_one_class_per_row(tiny_bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text{i} number{i},{i / 7:.3f}\n" for i in range(60)))
    with pytest.raises(BadInput, match=r"`class_weights` is 'balanced' and the task is regression"):
        resolve(path, tiny_bert, Store(tmp_path), class_weights="balanced")
    with pytest.raises(BadInput, match=r"`label_smoothing` is 0.1 and the task is regression"):
        resolve(path, tiny_bert, Store(tmp_path), label_smoothing=0.1)
    settings = resolve(path, tiny_bert, Store(tmp_path)).settings
    assert dataclasses.asdict(settings.job)["class_weights"] == "none"
    assert "class_weights" not in settings.job.to_dict()
