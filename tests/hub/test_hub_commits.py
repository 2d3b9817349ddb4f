"""A study is pinned to one commit of its model and one of its data, whatever the hub's branch points at later."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hub.server import Hub

pytestmark = pytest.mark.slow

MODEL, DATA = "distilbert/distilbert-base-uncased", "nyu-mll/glue"

MAKE = """
import json, sys
from pathlib import Path
from farsearch.errors import FarsearchError
from farsearch.resolve import resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store
store, notes = Store(Path(".farsearch")), []
options = SearchSpec(task="sst2", device="jetson-nano", model=sys.argv[1], revision=sys.argv[2] or None)
try:
    job = resolve_job(options, store, notes.append)
    store.open(job.default_name, job.settings, job.meta)
    print(json.dumps({"model": job.settings.job.weights, "data": job.meta["data_commit"], "notes": notes}))
except FarsearchError as error:
    print(json.dumps({"code": error.exit_code, "message": str(error)}))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of the client's caches."""
    return tmp_path / "home"


def make(hub: Hub, home: Path, revision: str = "", **environment: str) -> dict[str, Any]:
    """Make or resume the study of the default name in the folder above ``home``."""
    done = subprocess.run(
        [sys.executable, "-c", MAKE, "distilbert-base-uncased", revision], cwd=home.parent,
        env=hub.environment(home, **environment), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def commits(hub: Hub) -> tuple[str, str]:
    """The commits of ``main`` of model and data."""
    return f"distilbert-base-uncased@{hub.repository(MODEL).main}", hub.repository(DATA, "datasets").main


def move(hub: Hub, drop_old: bool = False) -> None:
    """Push new commits of model and data to the hub."""
    hub.repository(MODEL).commit({"config.json": b"{}"}, drop_old=drop_old)
    hub.repository(DATA, "datasets").commit({"sst2/train-00000-of-00001.parquet": b"gone"}, drop_old=drop_old)


def test_a_study_resumes_at_its_commits(hub: Hub, home: Path) -> None:
    """Even if ``main`` cannot be loaded by now: from the cache, and on a host with an empty one."""
    model, data = commits(hub)
    assert make(hub, home) == {"model": model, "data": data, "notes": []}
    move(hub)
    assert make(hub, home) == {"model": model, "data": data, "notes": []}
    assert make(hub, home.parent / "another home") == {"model": model, "data": data, "notes": []}


def test_a_missing_commit_ends_the_study(hub: Hub, home: Path) -> None:
    """With an empty cache, exit code 4 and the commit's id; with the files in the cache the study resumes."""
    first = make(hub, home)
    move(hub, drop_old=True)
    assert make(hub, home) == first
    lost = make(hub, home.parent / "another home")
    assert lost["code"] == 4
    assert "can't be continued" in lost["message"]
    assert first["model"].partition("@")[2][:12] in lost["message"]


def test_a_missing_commit_of_the_data_ends_the_study(hub: Hub, home: Path) -> None:
    """Also with ``--revision``, which applies to the model only."""
    _, data = commits(hub)
    revision = make(hub, home)["model"].partition("@")[2]
    hub.repository(DATA, "datasets").commit({"sst2/train-00000-of-00001.parquet": b"gone"}, drop_old=True)
    lost = make(hub, home.parent / "another home", revision=revision)
    assert lost["code"] == 4
    assert data[:12] in lost["message"]


def test_without_the_hub_the_cache_is_used(hub: Hub, home: Path) -> None:
    """The same commits, with a line that the hub was not asked; partial downloads are ignored."""
    first = make(hub, home)
    for blobs in (home / "hub").glob("*/blobs"):
        (blobs / "0123abcd.12345678.incomplete").write_bytes(b"half")
    shutil.rmtree(home.parent / ".farsearch")
    told = make(hub, home, HF_HUB_OFFLINE="1")
    assert {**told, "notes": []} == first
    assert len(told["notes"]) == 2
    assert all("HF_HUB_OFFLINE is set; using commit" in note for note in told["notes"])


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, home: Path) -> None:
    """The study records its commit. A revision other than the study's is refused, an unknown one by name."""
    model, _ = commits(hub)
    second = hub.repository(MODEL).commit({"README.md": b"---\nlicense: mit\n---\n"})
    old = model.partition("@")[2]
    assert make(hub, home, revision=old)["model"] == model
    assert make(hub, home, revision=second)["code"] == 4
    unknown = make(hub, home.parent / "another home", revision="nosuch")
    assert (unknown["code"], "no revision 'nosuch'" in unknown["message"]) == (2, True)
