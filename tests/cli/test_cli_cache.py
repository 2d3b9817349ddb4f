"""``cache show`` and ``cache clear``: tables, JSON, and removal that leaves studies intact."""

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
    """Create a file of this size, last used so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(int(mib * 2**20))
    os.utime(path, (NOW - days_ago * DAY_S, NOW - days_ago * DAY_S))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a study that links to a priming, primings of two jobs, and baselines of one."""
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
    """Return names of cached files, without locks and descriptions."""
    found = (folder / ".farsearch" / "cache").rglob("*.*")
    return {path.name for path in found if path.is_file() and path.suffix != ".lock" and path.name != "about.json"}


def test_show_prints_a_table_of_jobs(folder: Path) -> None:
    """Sorted by last use, the latest first, below the bound of the cache."""
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


def test_show_prints_json(folder: Path) -> None:
    """Values are unrounded, times in UTC."""
    data = call(folder, "cache", "show", "--json").json
    assert (data["schema_version"], data["bound_mib"], data["primings_mib"]) == (1, 4096.0, 350.0)
    assert [entry["kind"] for entry in data["entries"]] == ["primings", "baselines", "primings"]
    assert data["entries"][0] == {
        "kind": "primings", "folder": ".farsearch/cache/priming/1234", "task": "sst2", "model": "tiny",
        "train_samples": 40, "batch_size": 8, "max_length": 16, "seed": 1, "files": 1, "size_mib": 80.0,
        "last_used": datetime.datetime.fromtimestamp(NOW - DAY_S, datetime.timezone.utc).isoformat(),
    }  # fmt: skip
    assert data["entries"][2]["task"] is None


def test_an_empty_cache_has_nothing_to_show_or_clear(tmp_path: Path) -> None:
    """No confirmation is requested, and no file created."""
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
def test_clear_selects_by_kind_and_age(folder: Path, options: tuple[str, ...], left: set[str], said: str) -> None:
    """The profile of this machine and files that a study links to remain."""
    done = call(folder, "cache", "clear", "--yes", *options)
    assert done.code == 0
    assert done.out.startswith(f"removed {said}")
    assert files(folder) == left
    kept = folder / ".farsearch" / "studies" / "demo" / "primings" / "1234-5.safetensors"
    assert kept.stat().st_size == 80 * 2**20


@pytest.mark.parametrize(("answer", "code", "count"), [("n\n", 130, 5), ("y\n", 0, 2), ("", 130, 5)])
def test_clear_asks_for_confirmation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, count: int
) -> None:
    """Without ``--yes``, only the answer yes removes files."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    done = call(folder, "cache", "clear")
    assert "remove 3 files, 350 MiB of which 80 MiB stay on the disk because studies need them from" in done.out
    assert done.code == code
    assert len(files(folder)) == count


@pytest.mark.parametrize("days", ["0", "-1", "soon", "inf"])
def test_an_invalid_number_of_days_is_refused(tmp_path: Path, days: str) -> None:
    done = call(tmp_path, "cache", "clear", "--older-than", days)
    assert (done.code, done.out) == (2, "")
    assert "is not a number above 0 (see farsearch cache clear --help)" in done.err


def test_a_cleared_job_can_be_cached_again(folder: Path) -> None:
    """Its description remains, but an empty job is not shown."""
    call(folder, "cache", "clear", "--yes", "--kind", "all")
    assert call(folder, "cache", "show").out == "nothing is cached in .farsearch/cache\n"
    put(folder / ".farsearch" / "cache" / "priming" / "1234" / "5.safetensors", 80, 1)
    assert "sst2, tiny, 40 rows" in call(folder, "cache", "show").out
