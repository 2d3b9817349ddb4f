"""Fine-tuned models in MLflow's model registry: predictions through MLflow, and links to their trials."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from mlflow import MlflowClient

from farsearch.records import StudySnapshot
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from farsearch.tracking.registry import Registered, register_model
from tests.journey import call
from tests.services import MlflowServer

TEXTS = ["a good film", "boring and dull, the worst plot", "great acting in this very long story, " * 5]


@pytest.fixture(scope="module")
def bundle(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the study's most accurate trial."""
    out = tmp_path_factory.mktemp("registry") / "bundle"
    done = call(finished_study, "export", "--prefer", "accuracy", "--out", out)
    assert done.code == 0, done.err
    return out


def snapshot(folder: Path) -> StudySnapshot:
    """Read the study ``tiny`` of a working directory."""
    return snapshot_of(Store(folder / ".farsearch").load("tiny"))


def expected(model_folder: Path) -> list[tuple[str, float]]:
    """Return label and probability of each text, computed with transformers alone."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    with torch.no_grad():
        batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
        shares = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.softmax(1)
    return [(model.config.id2label[int(row.argmax())], float(row.max())) for row in shares]


def test_a_registered_model_predicts_the_same_as_the_bundle(
    finished_study: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded by its alias with ``mlflow.transformers`` and ``mlflow.pyfunc``; no file is a pickle.

    The database is new, so the study is mirrored first, and the version is linked to the run of its trial.
    """
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    study = snapshot(finished_study)
    trial = max(study.front, key=lambda t: t.outcome.metric or 0.0)
    made = register_model(uri, study, trial, bundle / "model", "reviews-far")
    assert made == Registered("reviews-far", 1, "deployed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of MLflow on its type hints
        import mlflow.pyfunc
        import mlflow.transformers

        pipeline = mlflow.transformers.load_model(made.uri)
        table = mlflow.pyfunc.load_model(made.uri).predict(TEXTS)
    wanted = expected(bundle / "model")
    said = pipeline(TEXTS, truncation=True, max_length=16)
    for label, score, (right, share) in zip(table["label"], table["score"], wanted, strict=True):
        assert label == right
        assert score == pytest.approx(share, abs=1e-6)
    assert [each["label"] for each in said] == [label for label, _ in wanted]
    assert [each["score"] for each in said] == pytest.approx([share for _, share in wanted], abs=1e-6)
    client = MlflowClient(tracking_uri=uri)
    version = client.get_model_version_by_alias("reviews-far", "deployed")
    run = client.get_run(str(version.run_id))
    assert run.data.tags["farsearch.trial"] == version.tags["farsearch.trial"] == str(trial.number)
    assert run.outputs is not None
    (output,) = run.outputs.model_outputs
    assert client.get_logged_model(output.model_id).source_run_id == version.run_id
    assert output.model_id in str(version.source)
    kept = tmp_path / "mlartifacts"
    files = [path for path in kept.rglob("*") if path.is_file() and output.model_id in str(path)]
    assert [path.name for path in files if path.suffix == ".safetensors"] == ["model.safetensors"]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".yaml", ".txt", ".md", ""}
    assert not [path for path in files if path.read_bytes()[:1] == b"\x80"]
    said_of = [path.read_text() for path in files if path.suffix in (".yaml", ".txt", ".md") or path.name == "MLmodel"]
    assert not [text for text in said_of if str(bundle.parent) in text], "no path of this machine"


@pytest.mark.service
def test_a_server_registers_and_serves_a_model(
    finished_study: Path, bundle: Path, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Artifacts are proxied."""
    study = snapshot(finished_study)
    trial = max(study.front, key=lambda t: t.outcome.metric or 0.0)
    made = register_model(mlflow_server.uri, study, trial, bundle / "model", "reviews-far", "field")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        table = mlflow.pyfunc.load_model("models:/reviews-far@field").predict(TEXTS)
    assert made.uri == "models:/reviews-far@field"
    wanted = [(label, pytest.approx(share, abs=1e-6)) for label, share in expected(bundle / "model")]
    assert list(zip(table["label"], table["score"], strict=True)) == wanted


def test_each_export_is_a_new_version_and_takes_the_alias(finished_study: Path, tmp_path: Path) -> None:
    """The default name of the model is that of the study, the default alias ``deployed``."""
    folder = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    first = call(folder, "export", "--out", "one", "--register")
    second = call(folder, "export", "--prefer", "accuracy", "--out", "two", "--register", "tiny", "--alias", "field")
    third = call(folder, "export", "--out", "three", "--register")
    assert (first.code, second.code, third.code) == (0, 0, 0), first.err + second.err + third.err
    assert "registered in sqlite:///mlflow.db: tiny, version 1, as models:/tiny@deployed" in first.out
    assert "tiny, version 2, as models:/tiny@field" in second.out
    assert "tiny, version 3, as models:/tiny@deployed" in third.out
    aliases = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").get_registered_model("tiny").aliases
    assert {name: int(version) for name, version in aliases.items()} == {"deployed": 3, "field": 2}
    assert call(folder, "sync").out.count("9 were right"), "the mirror is not disturbed"


def test_a_final_model_is_registered_with_its_own_metric(finished_study: Path, tmp_path: Path) -> None:
    """That of the development set, which it was not trained on; the trial's validation metric is not its own."""
    folder = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    assert call(folder, "export", "--refit", "--out", "bundle", "--register").code == 0
    version = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db").get_model_version_by_alias("tiny", "deployed")
    assert {"accuracy", "dev_accuracy"} & set(version.tags) == {"dev_accuracy"}
    assert "480 rows" in str(version.description)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--register", "a/b"), "--register 'a/b' has other characters than letters"),
        (("--register", "--alias", "latest"), "--alias 'latest' is MLflow's own; give another, such as deployed"),
        (("--register", "--alias", "v2"), "--alias 'v2' is MLflow's own"),
        (("--register", "--delta"), "--delta leaves the model away and --register needs it; give one of them"),
    ],
)
def test_names_are_checked_before_anything_is_written(
    finished_study: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    """Exit code 2, one line, and no bundle."""
    done = call(finished_study, "export", *options, "--out", tmp_path / "b")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err
    assert not list(tmp_path.iterdir())
