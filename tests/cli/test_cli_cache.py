"""``cache show`` and ``cache clear``: what is kept is said in words and as data, and goes without touching a study."""

from __future__ import annotations

import datetime
import io
import os
import sys
from pathlib import Path

import pytest

from farsearch.cache import describe
from tests.journey import call
from tests.primings import JOB

DAY_S = 86400.0
NOW = 1.9e9
"""A moment in 2030: all of the files below are of the days before."""


def put(path: Path, mib: float, days_ago: float) -> Path:
    """A file of some size, unused for some days."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(int(mib * 2**20))
    os.utime(path, (NOW - days_ago * DAY_S, NOW - days_ago * DAY_S))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a study that has linked a priming, two jobs' primings, and a job's baselines."""
    monkeypatch.setattr("time.time", lambda: NOW)
    cache = tmp_path / ".farsearch" / "cache"
    old, new = (cache / "priming" / name for name in ("0ld", "1234"))
    put(old / "6.safetensors", 90, 40)
    put(old / "6.optimizer", 180, 41)
    put(new / "5.safetensors", 80, 1)
    put(cache / "baselines" / "5678" / "full-0.0001.json", 0.01, 2)
    put(cache / "devices" / "local.toml", 0.01, 50)
    describe(new, JOB.to_dict())
    study = tmp_path / ".farsearch" / "studies" / "demo" / "primings"
    study.mkdir(parents=True)
    os.link(new / "5.safetensors", study / "1234-5.safetensors")
    return tmp_path


def files(folder: Path) -> set[str]:
    """Names of the files in the cache that are no locks and no descriptions."""
    found = (folder / ".farsearch" / "cache").rglob("*.*")
    return {path.name for path in found if path.is_file() and path.suffix != ".lock" and path.name != "about.json"}


def test_show_is_a_table(folder: Path) -> None:
    """A row a job, the latest used first, with what it is, its files, its size and its last use; the bound above."""
    done = call(folder, "cache", "show")
    assert done.code == 0
    title, heads, _, *rows = [line.strip() for line in done.out.splitlines() if line.strip()]
    assert title == ".farsearch/cache; primings take at most 4,096 MiB"
    assert heads.split("  ")[0] == "what"
    assert [row.split("  ")[0] for row in rows] == [
        "primings of sst2, tiny, 40 rows, batch 8, seed 1",
        "baselines of a job that is not described",
        "primings of a job that is not described",
    ]
    day = datetime.datetime.fromtimestamp(NOW - 40 * DAY_S).strftime("%Y-%m-%d %H:%M")
    assert rows[2].split()[-5:] == ["2", "270", "MiB", *day.split()]


def test_show_as_json(folder: Path) -> None:
    """The same as data, unrounded and with the time in UTC."""
    data = call(folder, "cache", "show", "--json").json
    assert (data["schema_version"], data["bound_mib"], data["primings_mib"]) == (1, 4096.0, 350.0)
    assert [entry["kind"] for entry in data["entries"]] == ["primings", "baselines", "primings"]
    assert data["entries"][0] == {
        "kind": "primings", "folder": ".farsearch/cache/priming/1234", "task": "sst2", "model": "tiny",
        "train_samples": 40, "batch_size": 8, "max_length": 16, "seed": 1, "files": 1, "size_mib": 80.0,
        "last_used": datetime.datetime.fromtimestamp(NOW - DAY_S, datetime.timezone.utc).isoformat(),
    }  # fmt: skip
    assert data["entries"][2]["task"] is None


def test_an_empty_cache(tmp_path: Path) -> None:
    """There is nothing to show or to clear, nobody is asked, and nothing is made."""
    assert call(tmp_path, "cache", "show").out == "nothing is cached in .farsearch/cache\n"
    assert call(tmp_path, "cache", "show", "--json").json["entries"] == []
    assert call(tmp_path, "cache", "clear").out == "nothing to remove in .farsearch/cache\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "left", "said"),
    [
        ((), {"full-0.0001.json", "local.toml"}, "3 files, 350 MiB of which 80 MiB stay on the disk because"),
        (("--older-than", "30"), {"full-0.0001.json", "local.toml", "5.safetensors"}, "2 files, 270 MiB\n"),
        (("--older-than", "40.5"), {"full-0.0001.json", "local.toml", "5.safetensors", "6.safetensors"}, "1 file, 180"),
        (("--kind", "all", "--older-than", "1.5"), {"local.toml", "5.safetensors"}, "3 files, 270 MiB\n"),
        (
            ("--kind", "baselines"),
            {"local.toml", "5.safetensors", "6.safetensors", "6.optimizer"},
            "1 file, 0.0 MiB\n",
        ),
        (("--kind", "all"), {"local.toml"}, "4 files, 350 MiB of which 80 MiB stay"),
    ],
)
def test_clear_takes_what_was_asked(folder: Path, options: tuple[str, ...], left: set[str], said: str) -> None:
    """By kind and age; it says what it frees. This machine's profile and the study's files stay."""
    done = call(folder, "cache", "clear", "--yes", *options)
    assert done.code == 0
    assert done.out.startswith(f"removed {said}")
    assert files(folder) == left
    kept = folder / ".farsearch" / "studies" / "demo" / "primings" / "1234-5.safetensors"
    assert kept.stat().st_size == 80 * 2**20


@pytest.mark.parametrize(("answer", "code", "count"), [("n\n", 130, 5), ("y\n", 0, 2), ("", 130, 5)])
def test_clear_asks(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, count: int) -> None:
    """Without --yes it says what would go, and only a yes removes it."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    done = call(folder, "cache", "clear")
    assert "remove 3 files, 350 MiB of which 80 MiB stay on the disk because studies need them from" in done.out
    assert done.code == code
    assert len(files(folder)) == count


@pytest.mark.parametrize("days", ["0", "-1", "soon", "inf"])
def test_days_are_a_number_above_0(tmp_path: Path, days: str) -> None:
    """What is no number of days is refused in one line."""
    done = call(tmp_path, "cache", "clear", "--older-than", days)
    assert (done.code, done.out) == (2, "")
    assert "is not a number above 0 (see farsearch cache clear --help)" in done.err


def test_a_cleared_job_can_be_cached_again(folder: Path) -> None:
    """Descriptions stay for it, and an emptied job is not shown."""
    call(folder, "cache", "clear", "--yes", "--kind", "all")
    assert call(folder, "cache", "show").out == "nothing is cached in .farsearch/cache\n"
    put(folder / ".farsearch" / "cache" / "priming" / "1234" / "5.safetensors", 80, 1)
    assert "sst2, tiny, 40 rows" in call(folder, "cache", "show").out
