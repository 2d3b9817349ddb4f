"""The contract of an engine, on each: the run of a bundle, its folders, savepoints and errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForSequenceClassification

from farsearch.runtime.bundle_files import BundleFiles, BundleProblem, open_bundle
from farsearch.runtime.job import Interrupted, Options, Result
from farsearch.runtime.memory import is_out_of_memory
from farsearch.runtime.run import Engine, Model, load_engine, run_bundle, write_tuned
from tests.engines.bundles import ENGINES, make_bundle, sign

STEPS = 16
"""60 rows in batches of 8, two epochs."""


def run(bundle: Path, rows: Path, out: Path, stopping: Callable[[], bool] = lambda: False, **options: Any) -> Result:
    """Run a bundle by its engine."""
    files = open_bundle(str(bundle))
    return run_bundle(
        load_engine(files), files, Options(str(rows), str(out), **options), lambda _: None, lambda *_: None, stopping
    )


def after(steps: int) -> Callable[[], bool]:
    """True from the call after that many steps on."""
    left = iter(range(steps - 1))
    return lambda: next(left, None) is None


def test_the_output_is_an_ordinary_model_with_a_measurement(bundle: Path, rows: Path, tmp_path: Path) -> None:
    result = run(bundle, rows, tmp_path / "out", dev=str(rows))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "measurement.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    }  # fmt: skip
    assert not (tmp_path / "out.partial").exists()
    names = json.loads((bundle / "far.json").read_text())["phase"]["weights"]["names"]
    assert sorted(load_file(tmp_path / "out" / "model.safetensors")) == sorted(names)
    measured = result.measurement["measured"]
    assert len(result.log.losses) == len(result.log.seconds) == measured["steps"] == STEPS
    assert measured["peak_memory_mib"] > measured["process_memory_mib"] > 0
    assert result.predictions is not None
    accuracy = np.mean([a == b for a, b in zip(result.predictions, result.answers, strict=True)])
    assert measured["metric"] == pytest.approx(accuracy)


def test_the_loss_falls(bundle: Path, rows: Path, tmp_path: Path) -> None:
    losses = run(bundle, rows, tmp_path / "out", epochs=20.0).log.losses
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_the_same_run_gives_the_same_weights(bundle: Path, rows: Path, tmp_path: Path) -> None:
    one, other = (run(bundle, rows, tmp_path / name) for name in ("one", "other"))
    assert one.log.losses == other.log.losses
    assert_same_weights(tmp_path / "one", tmp_path / "other")


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit by bit."""
    ours, theirs = (load_file(path / "model.safetensors") for path in (one, other))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name])


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_a_stopped_run_resumes_to_the_same_weights(
    bundle: Path, rows: Path, tmp_path: Path, micro_batch_size: int | None
) -> None:
    whole = run(bundle, rows, tmp_path / "whole", micro_batch_size=micro_batch_size)
    with pytest.raises(Interrupted):
        run(bundle, rows, tmp_path / "cut", after(5), micro_batch_size=micro_batch_size)
    assert {path.name for path in (tmp_path / "cut.partial").iterdir()} == {"savepoint.safetensors"}
    rest = run(bundle, rows, tmp_path / "cut", micro_batch_size=micro_batch_size)
    assert (rest.log.first_step, rest.log.losses) == (5, whole.log.losses[5:])
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("given", [3, None])
def test_a_resumed_run_keeps_its_micro_batch(bundle: Path, rows: Path, tmp_path: Path, given: int | None) -> None:
    """Whatever memory is free by then; its dropout masks depend on it. Another size is refused."""
    with pytest.raises(Interrupted):
        run(bundle, rows, tmp_path / "cut", after(5), micro_batch_size=3)
    with pytest.raises(FileExistsError, match="--micro-batch 2: its run has 3 rows at once"):
        run(bundle, rows, tmp_path / "cut", micro_batch_size=2)
    run(bundle, rows, tmp_path / "cut", micro_batch_size=given)
    run(bundle, rows, tmp_path / "whole", micro_batch_size=3)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("damage", ["other epochs", "cut", "other tensors"])
def test_another_or_damaged_savepoint_is_not_resumed(bundle: Path, rows: Path, tmp_path: Path, damage: str) -> None:
    with pytest.raises(Interrupted):
        run(bundle, rows, tmp_path / "out", after(2))
    savepoint = tmp_path / "out.partial" / "savepoint.safetensors"
    data = savepoint.read_bytes()
    if damage == "cut":
        savepoint.write_bytes(data[:-1])
    elif damage == "other tensors":
        savepoint.write_bytes(data.replace(b'"weight/', b'"weighx/', 1))
    with pytest.raises(FileExistsError, match="can't be resumed"):
        run(bundle, rows, tmp_path / "out", epochs=1.0 if damage == "other epochs" else None)


def test_micro_batches_learn_the_same(bundle: Path, rows: Path, tmp_path: Path) -> None:
    """Without dropout: whole batches, and parts of three rows."""
    whole, parts = (run(bundle, rows, tmp_path / str(size), micro_batch_size=size).log.losses for size in (None, 3))
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-4)


class Small(Model):
    """A model that trains some steps with more than four rows at once, and then has no memory left."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __getattribute__(self, name: str) -> Any:
        own = name in ("model", "train")
        return object.__getattribute__(self, name) if own else getattr(self.model, name)

    def train(
        self, features: Any, epochs: Any, micro_batch_size: Any, on_step: Any, savepoints: Any, watch: Any = None
    ) -> Any:
        if micro_batch_size is None or micro_batch_size > 4:
            with pytest.raises(Interrupted):
                self.model.train(
                    features,
                    epochs,
                    micro_batch_size,
                    on_step,
                    savepoints._replace(path=None, stopping=after(3)),
                    watch,
                )
            raise MemoryError
        return self.model.train(features, epochs, micro_batch_size, on_step, savepoints, watch)


def with_little_memory(files: BundleFiles) -> Engine:
    """The engine of a bundle, whose models are ``Small``."""
    engine = load_engine(files)
    load = engine.load
    engine.load = lambda *arguments: Small(load(*arguments))  # type: ignore[method-assign]
    return engine


def test_out_of_memory_halves_the_micro_batch_and_starts_again(bundle: Path, rows: Path, tmp_path: Path) -> None:
    whole = run(bundle, rows, tmp_path / "whole", micro_batch_size=2)
    files, told = open_bundle(str(bundle)), list[str]()
    options = Options(str(rows), str(tmp_path / "small"))
    result = run_bundle(with_little_memory(files), files, options, told.append, lambda *_: None)
    assert told == ["memory ran out with 8 rows at once; continuing with 4"]
    np.testing.assert_allclose(result.log.losses, whole.log.losses, rtol=1e-3, atol=1e-4)


def test_memory_that_runs_out_with_one_row_is_an_error(bundle: Path, rows: Path, tmp_path: Path) -> None:
    class None_(Small):
        def train(self, *_: Any) -> Any:
            raise MemoryError

    files = open_bundle(str(bundle))
    engine = load_engine(files)
    load = engine.load
    engine.load = lambda *arguments: None_(load(*arguments))  # type: ignore[method-assign]
    options = Options(str(rows), str(tmp_path / "out"), micro_batch_size=1)
    with pytest.raises(MemoryError) as caught:
        run_bundle(engine, files, options, lambda _: None, lambda *_: None)
    assert is_out_of_memory(caught.value)


def test_a_loss_that_is_not_finite_is_an_error(bundle: Path, rows: Path, tmp_path: Path) -> None:
    broken = with_start(bundle, tmp_path, lambda weights: weights["classifier.bias"].fill(np.nan))
    with pytest.raises(FloatingPointError, match="the loss of step 0 is nan"):
        run(broken, rows, tmp_path / "out")


def with_start(bundle: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of the bundle with other start weights."""
    other = copy_of(bundle, folder)
    start = other / json.loads((other / "far.json").read_text())["phase"]["weights"]["start"]
    weights = load_file(start)
    change(weights)
    save_file(weights, start)
    return sign(other)


def copy_of(bundle: Path, folder: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(bundle, folder / "copy" / "bundle"))


def test_start_weights_that_do_not_fit_are_one_line(bundle: Path, rows: Path, tmp_path: Path) -> None:
    broken = with_start(bundle, tmp_path, lambda weights: weights.pop("classifier.bias"))
    with pytest.raises(BundleProblem, match=r"it lacks 'classifier\.bias'"):
        run(broken, rows, tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_a_tokenizer_with_other_ids_is_refused(bundle: Path, rows: Path, tmp_path: Path) -> None:
    files = open_bundle(str(bundle))
    settings = files.phase["tokenizer"]
    proof = [[text, [1, 2, 3]] for text, _ in settings["proof"]]
    other = files._replace(phase={**files.phase, "tokenizer": {**settings, "proof": proof}})
    with pytest.raises(BundleProblem, match="other token ids than the bundle's"):
        run_bundle(
            load_engine(other), other, Options(str(rows), str(tmp_path / "out")), lambda _: None, lambda *_: None
        )


def test_an_output_in_use_is_refused(bundle: Path, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="not empty"):
        run(bundle, rows, tmp_path / "out")


def test_the_tuned_model_is_written_without_training(bundle: Path, tmp_path: Path) -> None:
    files = open_bundle(str(bundle))
    write_tuned(load_engine(files), files, str(tmp_path / "tuned"))
    assert_same_weights(Path(files.path("model")), tmp_path / "tuned")


def test_engines_learn_the_same(tmp_path: Path, rows: Path) -> None:
    """The same losses, predictions and weights of the merged model, which transformers loads."""
    results = {}
    for engine in ENGINES:
        bundle = make_bundle(tmp_path / engine, engine)
        results[engine] = run(bundle, rows, tmp_path / f"{engine}-out", dev=str(rows))
    one, other = results.values()
    np.testing.assert_allclose(one.log.losses, other.log.losses, rtol=1e-4, atol=1e-5)
    assert one.predictions == other.predictions
    ours, theirs = (load_file(tmp_path / f"{engine}-out" / "model.safetensors") for engine in ENGINES)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-2, atol=1e-3)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "onnx-out")
