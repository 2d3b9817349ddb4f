"""Faults of a hub and its network: the right result, or one line with the cause; then a clean run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import safetensors.torch

from tests.hub.clients import Clients, Done
from tests.hub.dataset_files import dataset_files
from tests.hub.faults import Action, Corrupt, Drop, Fault, Hang, Portal, Refuse, Stall, Status, Trickle, Truncate
from tests.hub.model_files import checkpoint, model_files, sharded
from tests.hub.server import GOOD_TOKEN, Hub

pytestmark = pytest.mark.slow

WAIT_S = 15.0
"""A client ends so long after the first fault at the latest."""

BUSY_S = 15.0
"""What a busy machine may add to it."""

MODEL = "google-bert/bert-base-uncased"
GLUE = "nyu-mll/glue"


@dataclass(frozen=True)
class Case:
    """A fault and its allowed results.

    Attributes:
        client: kind of client.
        harm: change to the hub.
        exits: allowed exit codes; with 0 the result is that without faults, or ``says``.
        says: regular expression of the error line.
        name: of the model.
        environment: of the client.
    """

    client: Literal["model", "data"]
    harm: Callable[[Hub], object]
    exits: tuple[int, ...]
    says: str = ""
    name: str = "bert-base-uncased"
    revision: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


CONFIG, TOKENIZER, WEIGHTS = r"/config\.json", r"/(tokenizer\.json|vocab\.txt)", r"GET /_cdn/.*model\.safetensors"
MODEL_API, DATA_API, PARQUET = r"GET /api/models/", r"GET /api/datasets/", r"GET /_cdn/.*\.parquet"
CARD, ANYTHING = r"/README\.md", r"."


def fails(pattern: str, action: Action, *, times: int | None = None) -> Callable[[Hub], object]:
    """Activate a fault."""
    return lambda hub: hub.fail(Fault(pattern, action, times))


def changed(files: Mapping[str, bytes | None]) -> Callable[[Hub], object]:
    """Change files in the model's repository."""
    return lambda hub: hub.repository(MODEL).commit(files)


def _private(hub: Hub) -> None:
    hub.repository(MODEL).private = True


def _gated(hub: Hub) -> None:
    hub.repository(MODEL).gated = True


def _gated_data(hub: Hub) -> None:
    hub.repository(GLUE, "datasets").gated = True


def _xet(hub: Hub) -> None:
    hub.xet = True


def _renamed_weights(rename: Callable[[str], str]) -> dict[str, bytes | None]:
    weights = {rename(name): tensor for name, tensor in checkpoint("bert-base-uncased").items()}
    return {"model.safetensors": safetensors.torch.save(weights, metadata={"format": "pt"})}


def _without(part: str) -> dict[str, bytes | None]:
    weights = {name: tensor for name, tensor in checkpoint("bert-base-uncased").items() if part not in name}
    return {"model.safetensors": safetensors.torch.save(weights, metadata={"format": "pt"})}


_SHARDS = sharded("bert-base-uncased")
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 440449768\n"
_PICKLED = {"model.safetensors": None, "pytorch_model.bin": b"\x80\x02}q\x00."}


def _pull_request(hub: Hub) -> None:
    """Open a pull request that adds safetensors, as the bot or an imitator does."""
    found = hub.repository(MODEL)
    weights = found.at("main").files["model.safetensors"]  # type: ignore[union-attr]
    found.commit(_PICKLED)
    found.commit({"model.safetensors": weights}, ref="refs/pr/1")


UNREACHED = r"the hub at http://127\.0\.0\.1:\d+ (can't be reached|gives no answer|has sent nothing)"
PORTAL_SEEN = r"is no hub|login page"

CASES: dict[str, Case] = {
    # answers of the hub
    "401 of all": Case("model", fails(ANYTHING, Status(401)), (5,), "HF_TOKEN"),
    "private": Case("model", _private, (5,), rf"{MODEL}|bert-base-uncased.*HF_TOKEN"),
    "gated": Case("model", _gated, (5,), r"bert-base-uncased.*HF_TOKEN"),
    "gated, with a token that was not let in": Case(
        "model", _gated, (5,), r"bert-base-uncased.*HF_TOKEN", environment={"HF_TOKEN": "hf_other"}
    ),
    "gated, with a good token": Case("model", _gated, (0,), environment={"HF_TOKEN": GOOD_TOKEN}),
    "403 of all": Case("model", fails(ANYTHING, Status(403)), (5,), "HF_TOKEN"),
    "404 of the repository": Case("model", lambda _: None, (5,), "nobody/nothing", name="nobody/nothing"),
    "404 of the revision": Case("model", lambda _: None, (2,), "no revision 'v9'", revision="v9"),
    "404 of the configuration": Case("model", changed({"config.json": None}), (5,), "no config.json"),
    "404 of the tokenizer": Case(
        "model",
        changed({"tokenizer.json": None, "tokenizer_config.json": None, "vocab.txt": None}),
        (5,),
        "no tokenizer",
    ),
    "429 with a long wait": Case("model", fails(ANYTHING, Status(429, {"Retry-After": "120"})), (5,), r"429.*120 s"),
    "429 with a short wait": Case("model", fails(MODEL_API, Status(429, {"Retry-After": "1"}), times=1), (0,)),
    "500 of the configuration": Case("model", fails(CONFIG, Status(500)), (5,), "500"),
    "500 of the hub's API": Case("model", fails(MODEL_API, Status(500)), (5,), "500"),
    "502 of the weights": Case("model", fails(WEIGHTS, Status(502)), (5,), "502"),
    "503 of the tokenizer": Case("model", fails(TOKENIZER, Status(503)), (5,), "503"),
    "503 of the tokenizer once": Case("model", fails(TOKENIZER, Status(503), times=1), (0,)),
    "503 of the tokenizer's settings once": Case("model", fails("tokenizer_config", Status(503), times=1), (0,)),
    "504 of all": Case("model", fails(ANYTHING, Status(504)), (5,), "504"),
    # network faults
    "nobody listens": Case("model", Hub.stop, (5,), UNREACHED),
    "closed without an answer": Case("model", fails(ANYTHING, Refuse()), (5,), UNREACHED),
    "reset without an answer": Case("model", fails(ANYTHING, Refuse(reset=True)), (5,), UNREACHED),
    "reset once": Case("model", fails(CONFIG, Refuse(reset=True), times=1), (0,)),
    "no answer at all": Case("model", fails(ANYTHING, Hang()), (5,), UNREACHED),
    "no answer for the tokenizer": Case("model", fails(TOKENIZER, Hang()), (5,), UNREACHED),
    "weights dropped": Case("model", fails(WEIGHTS, Drop()), (5,), "the hub at"),
    "weights dropped once": Case("model", fails(WEIGHTS, Drop(), times=1), (0,)),
    "weights reset": Case("model", fails(WEIGHTS, Drop(reset=True)), (5,), "the hub at"),
    "weights reset once": Case("model", fails(WEIGHTS, Drop(reset=True), times=1), (0,)),
    "weights stall": Case("model", fails(WEIGHTS, Stall()), (5,), "the hub at"),
    "weights stall once": Case("model", fails(WEIGHTS, Stall(), times=1), (0,)),
    "weights trickle": Case("model", fails(WEIGHTS, Trickle()), (5,), "the hub at"),
    "configuration trickles": Case("model", fails(CONFIG, Trickle(4)), (5,), "the hub at"),
    "weights truncated": Case("model", fails(WEIGHTS, Truncate()), (5,), "the hub at"),
    "weights truncated once": Case("model", fails(WEIGHTS, Truncate(), times=1), (0, 5), "the hub at"),
    "tokenizer truncated": Case("model", fails(TOKENIZER, Truncate()), (5,), "the hub at|hash"),
    "weights corrupt": Case("model", fails(WEIGHTS, Corrupt()), (5,), "model.safetensors.*hash"),
    "weights corrupt once": Case("model", fails(WEIGHTS, Corrupt(), times=1), (0,)),
    "configuration corrupt": Case("model", fails("GET .*/config.json", Corrupt()), (5,), "config.json.*hash"),
    "vocabulary corrupt once": Case("model", fails(r"GET .*/vocab\.txt", Corrupt(), times=1), (0,)),
    "captive portal": Case("model", fails(ANYTHING, Portal()), (5,), PORTAL_SEEN),
    "captive portal for the weights": Case("model", fails(WEIGHTS, Portal()), (5,), f"{PORTAL_SEEN}|the hub at|hash"),
    "captive portal for the API": Case("model", fails(MODEL_API, Portal()), (5,), PORTAL_SEEN),
    "xet blocked": Case("model", _xet, (0,)),
    # repository contents
    "in shards": Case("model", changed(_SHARDS), (0,), "the same weights"),
    "a shard missing": Case(
        "model",
        changed({**_SHARDS, "model-00002-of-00002.safetensors": None}),
        (5,),
        "lacks model-00002-of-00002.safetensors",
    ),
    "pickled weights alone": Case("model", changed(_PICKLED), (5,), "no model.safetensors.*`allow_pickle`"),
    "safetensors in a bot's pull request": Case("model", _pull_request, (5,), "no model.safetensors.*`allow_pickle`"),
    "a pointer of Git LFS": Case("model", changed({"model.safetensors": _POINTER}), (5,), "Git LFS pointer"),
    "the prefix module.": Case("model", changed(_renamed_weights("module.{}".format)), (2,), r"prefix 'module\."),
    "a layer missing": Case("model", changed(_without("layer.1.output")), (2,), "lack .*layer.1.output"),
    "weights that are text": Case("model", changed({"model.safetensors": b"not a tensor" * 99}), (5,), "can't be load"),
    "a configuration that is no JSON": Case("model", changed({"config.json": b'{"model_type": '}), (5,), "is no JSON"),
    # data sets
    "data: 401": Case("data", fails(ANYTHING, Status(401)), (5,), "HF_TOKEN"),
    "data: gated": Case("data", _gated_data, (5,), "HF_TOKEN"),
    "data: 404": Case("data", fails("/datasets/", Status(404, {"X-Error-Code": "RepoNotFound"})), (5,), GLUE),
    "data: 429": Case("data", fails("/datasets/", Status(429, {"Retry-After": "120"})), (5,), r"429.*120 s"),
    "data: 500 of the API": Case("data", fails(DATA_API, Status(500)), (5,), "500"),
    "data: 502 of the card": Case("data", fails(CARD, Status(502)), (5,), "502"),
    "data: 503 of the rows": Case("data", fails(PARQUET, Status(503)), (5,), "503"),
    "data: 503 of the rows once": Case("data", fails(PARQUET, Status(503), times=1), (0,)),
    "data: 504 of all": Case("data", fails(ANYTHING, Status(504)), (5,), "504"),
    "data: nobody listens": Case("data", Hub.stop, (5,), UNREACHED),
    "data: reset": Case("data", fails(ANYTHING, Refuse(reset=True)), (5,), UNREACHED),
    "data: no answer of the API": Case("data", fails(DATA_API, Hang()), (5,), UNREACHED),
    "data: rows dropped": Case("data", fails(PARQUET, Drop()), (5,), "the hub at"),
    "data: rows dropped once": Case("data", fails(PARQUET, Drop(), times=1), (0,)),
    "data: rows truncated": Case("data", fails(PARQUET, Truncate()), (5,), "the hub at"),
    "data: rows corrupt": Case("data", fails(PARQUET, Corrupt()), (5,), "hash"),
    "data: rows corrupt once": Case("data", fails(PARQUET, Corrupt(), times=1), (0,)),
    "data: rows stall": Case("data", fails(PARQUET, Stall()), (5,), "the hub at"),
    "data: rows trickle": Case("data", fails(PARQUET, Trickle(64)), (5,), "the hub at"),
    "data: captive portal": Case("data", fails(ANYTHING, Portal()), (5,), PORTAL_SEEN),
    "data: captive portal for the rows": Case("data", fails(PARQUET, Portal()), (5,), f"{PORTAL_SEEN}|the hub at|hash"),
}


@dataclass(frozen=True)
class Place:
    """A hub, and clients of it with a cache of their own."""

    hub: Hub
    clients: Clients
    home: Path

    def run(self, client: str, *, name: str = "bert-base-uncased", revision: str = "", **environment: str) -> Done:
        """Load the model, or the data of SST-2."""
        return self.clients.run(client, *((name, revision) if client == "model" else ("sst2",)), **environment)

    def fresh(self) -> None:
        """Empty the cache, and restore the hub's initial state."""
        self.hub.heal()
        self.hub.forget()
        for path in self.home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A hub with one model and GLUE, and its clients, for which xet is not disabled."""
    hub = Hub({("models", MODEL): model_files("bert-base-uncased"), ("datasets", GLUE): dataset_files(GLUE)})
    home = tmp_path_factory.mktemp("home")
    environment = hub.environment(home)
    del environment["HF_HUB_DISABLE_XET"]
    clients = Clients(environment, tmp_path_factory.mktemp("clients"))
    yield Place(hub, clients, home)
    clients.close()
    hub.stop()


@pytest.fixture
def place(shared: Place) -> Place:
    """The shared place without faults and with an empty cache."""
    shared.fresh()
    return shared


@pytest.fixture(scope="module")
def clean(shared: Place) -> dict[str, str]:
    """The results without faults."""
    shared.fresh()
    done = {client: shared.run(client) for client in ("model", "data")}
    assert {client: (each.code, each.err) for client, each in done.items()} == {"model": (0, ""), "data": (0, "")}
    return {client: each.out for client, each in done.items()}


def weights_of(out: str) -> str:
    """The weights that the client of models printed."""
    return out.split()[-1]


@pytest.mark.parametrize("name", list(CASES))
def test_faults_give_one_line_or_the_right_result(clean: dict[str, str], place: Place, name: str) -> None:
    """Either way, the same command succeeds with the same cache after the fault is removed."""
    case, hub = CASES[name], place.hub
    case.harm(hub)
    done = place.run(case.client, name=case.name, revision=case.revision, **case.environment)
    faulty = [request.at_s for request in hub.requests if request.fault is not None]
    hub.heal()
    assert done.code in case.exits, done.err
    if done.code == 0:
        assert done.err == ""
        if case.says == "the same weights":  # of another commit
            assert weights_of(done.out) == weights_of(clean[case.client])
        else:
            assert done.out == clean[case.client]
    else:
        (line,) = done.err.splitlines()
        assert re.search(case.says, line), line
    if faulty:
        assert done.ended_s - faulty[0] < WAIT_S + BUSY_S
    again = place.run(case.client)
    assert (again.code, again.err, again.out) == (0, "", clean[case.client])


def test_files_of_a_model_are_of_one_commit(place: Place) -> None:
    """``main`` moves after the request for the configuration: the other files are of the earlier commit."""
    repository = place.hub.repository(MODEL)
    before = repository.main
    other = {**_without("no such part"), "vocab.txt": b"\n".join(b"word%d" % i for i in range(500))}
    place.hub.when(TOKENIZER, lambda: repository.commit(other))
    done = place.run("model")
    assert repository.main != before
    assert (done.code, done.out.split()[:1]) == (0, [before]), done.err


def test_the_default_is_the_newest_commit_of_main(place: Place) -> None:
    """A requested commit is read from the cache after the hub has dropped it, and reported if the cache is empty."""
    first = place.run("model")
    repository = place.hub.repository(MODEL)
    before = repository.main
    after = repository.commit({"README.md": b"---\nlicense: mit\n---\n"}, drop_old=True)
    newest = place.run("model")
    assert (newest.code, newest.out.split()[:1]) == (0, [after]), newest.err
    pinned = place.run("model", revision=before)
    assert (pinned.code, pinned.out) == (0, first.out), pinned.err
    shutil.rmtree(place.home / "hub")
    gone = place.run("model", revision=before)
    assert gone.code == 2
    (line,) = gone.err.splitlines()
    assert before[:12] in line


@pytest.mark.parametrize("client", ["model", "data"])
def test_partial_downloads_in_the_cache_are_ignored(clean: dict[str, str], place: Place, client: str) -> None:
    """Killed processes leave such files; here the hub is not reachable."""
    assert place.run(client).code == 0
    blobs = list(place.home.rglob("blobs"))
    assert blobs
    for folder in blobs:
        (folder / f"{'0' * 64}.incomplete").write_bytes(b"half")
    with place.hub.stopped():
        done = place.run(client)
    assert (done.code, done.err, done.out) == (0, "", clean[client])


def test_a_corrupt_cached_file_is_downloaded_again(clean: dict[str, str], place: Place) -> None:
    """Its hash differs; without the hub, it is reported instead of read."""
    assert place.run("model").code == 0
    (link,) = place.home.rglob("model.safetensors")
    blob = link.resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with place.hub.stopped():
        away = place.run("model")
    assert away.code == 5
    (line,) = away.err.splitlines()
    assert "model.safetensors" in line
    done = place.run("model")
    assert (done.code, done.err, done.out) == (0, "", clean["model"])


def test_weights_of_a_pull_request_are_never_requested(place: Place) -> None:
    """Anyone could imitate the bot and offer other weights; only files of the repository are requested."""
    assert place.run("model").code == 0
    _pull_request(place.hub)
    assert place.run("model").code == 5
    assert place.hub.requested(r"discussions|refs/pr|refs%2Fpr|commits") == ()
