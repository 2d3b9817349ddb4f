"""With an empty cache everything is downloaded from the hub; afterwards the cache is sufficient."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from farsearch.models.source import known_models
from tests.hub.model_files import PICKLED, checkpoint, hub_name
from tests.hub.server import Hub
from tests.journey import call

pytestmark = pytest.mark.slow

FARSEARCH = Path(sys.executable).with_name("farsearch")

MODELS: Mapping[str, str | None] = {
    "sst2": None,
    "cola": "bert-base-cased",
    "mnli": "google/electra-small-discriminator",
    "mrpc": "roberta-base",
    "qnli": "microsoft/mpnet-base",
    "qqp": "xlm-roberta-base",
    "rte": "answerdotai/ModernBERT-base",
    "stsb": "google/mobilebert-uncased",
    "wnli": "google/bert_uncased_L-2_H-128_A-2",
    "squad": "distilroberta-base",
    "squad_v2": "distilbert-base-uncased",
}
"""Every task that the hub has, each with a model of another kind; None is the one that the command takes unasked."""

LOAD = """
import hashlib, json, sys
from farsearch.errors import FarsearchError
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.load import load_model
from farsearch.models.source import resolve_model
from farsearch.models.tokenizer import load_tokenizer

TEXTS = ["The vet knelt on the floor.", "A warm and clever story, with Ada and a lantern"]
def loaded(name, allow_pickle):
    source = resolve_model(name, allow_pickle)
    tokenizer = load_tokenizer(source)
    rows = tokenizer(TEXTS).input_ids
    model, layout = load_model(source, Head(), ("negative", "positive"), seed=0)
    encoder = getattr(model, model.base_model_prefix)
    return {
        "layers": len(layout.layers),
        "fits": len(tokenizer) <= load_config(source).vocab_size,
        "tokens": sum(map(len, rows)),
        "unknown": sum(row.count(tokenizer.unk_token_id) for row in rows),
        "encoder": {
            key: hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()
            for key, value in encoder.named_parameters() if not key.startswith("pooler.")
        },
    }

for line in sys.argv[1:]:
    try:
        found = loaded(*json.loads(line))
    except FarsearchError as error:
        found = {"error": str(error)}
    print(json.dumps(found), flush=True)
"""


@dataclass(frozen=True)
class Place:
    """A hub, its clients' cache, and working folders: of runs with the hub, and of those without."""

    hub: Hub
    home: Path
    online: Path
    offline: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A fresh place, shared by a module's tests: most of the first run in a folder is creating MLflow's database."""
    from tests.hub.repositories import repositories

    running = Hub(repositories())
    yield Place(running, *(tmp_path_factory.mktemp(name) for name in ("home", "online", "offline")))
    running.stop()


def farsearch(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder."""
    command = [str(FARSEARCH), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def front(folder: Path, study: str) -> list[Any]:
    """The trials on the front of a study."""
    done = call(folder, "pareto", study, "--json")
    assert done.code == 0, done.err
    trials: list[Any] = done.json["trials"]
    return trials


@pytest.mark.parametrize("task", list(MODELS))
def test_the_first_command_completes_with_an_empty_cache(place: Place, task: str) -> None:
    """And again in another folder from the cache alone, without the hub."""
    model = MODELS[task]
    named = () if model is None else ("--model", model)
    command = ("run", "--device", "jetson-nano", "--task", task, *named, "--train-samples", "64", "--n-trials", "2")
    environment = place.hub.environment(place.home)
    place.hub.forget()
    done = farsearch(place.online, environment, *command, "--study", task)
    assert done.returncode == 0, done.stderr
    assert place.hub.requested(r"/resolve/")
    found = front(place.online, task)
    assert found
    with place.hub.stopped():
        again = farsearch(place.offline, environment, *command, "--study", task)
        assert again.returncode == 0, again.stderr
        assert front(place.offline, task) == found


def test_offline_mode_makes_no_requests(place: Place, tmp_path: Path) -> None:
    """With HF_HUB_OFFLINE the cache is sufficient."""
    command = ("run", "--device", "jetson-nano", "--task", "sst2", "--train-samples", "64", "--n-trials", "2")
    first = farsearch(place.online, place.hub.environment(place.home), *command, "--study", "sst2")
    assert first.returncode == 0, first.stderr
    place.hub.forget()
    done = farsearch(tmp_path, place.hub.environment(place.home, HF_HUB_OFFLINE="1"), *command)
    assert done.returncode == 0, done.stderr
    assert place.hub.requests == ()


@pytest.fixture(scope="module")
def loaded(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every known model, loaded from the hub in one process."""
    home = tmp_path_factory.mktemp("models")
    asked = [
        json.dumps([hub_name(known) if known == "minilm" else known, known in PICKLED]) for known in known_models()
    ]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *asked],
        cwd=home,
        env=place.hub.environment(home),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(asked), done.stderr
    return dict(zip(known_models(), lines, strict=True))


@pytest.mark.parametrize("known", known_models())
def test_known_models_load_from_the_hub(loaded: dict[str, Any], known: str) -> None:
    """The tokenizer knows the words and fits the embeddings, and all encoder weights are the checkpoint's."""
    found = loaded[known]
    assert "error" not in found
    assert found["layers"] == 2
    assert found["fits"]
    assert found["tokens"] > 12
    assert found["unknown"] == 0
    there = {hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for tensor in floats(checkpoint(known))}
    drawn = [name for name, digest in found["encoder"].items() if digest not in there]
    assert drawn == []
    assert len(set(found["encoder"].values())) == len(found["encoder"])


def floats(weights: Mapping[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """The floating-point tensors."""
    return (tensor for tensor in weights.values() if tensor.is_floating_point())


@pytest.mark.parametrize("known", sorted(PICKLED))
def test_pickled_weights_need_an_option(place: Place, tmp_path: Path, known: str) -> None:
    """They can contain any code, so they are read on request only."""
    arguments = ("run", "--device", "jetson-nano", "--task", "sst2", "--model", known, "--n-trials", "1")
    done = farsearch(tmp_path, place.hub.environment(place.home), *arguments)
    assert done.returncode == 5
    last = done.stderr.splitlines()[-1]
    assert "no model.safetensors" in last
    assert "--allow-pickle" in last
