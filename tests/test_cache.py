"""The cache folder: bounded by use, cleared by kind and age, described, and limited to its own files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farsearch.cache import BOUND_MIB, CachedFile, cached_jobs, clear, describe, touch, trim, unused
from farsearch.errors import MissingResource
from farsearch.files import leftovers

MIB = 2**20


def put(path: Path, mib: float = 1.0, used: float = 0.0) -> Path:
    """Create a file of some size that was last used ``used`` seconds after 2001."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(int(mib * MIB))
    os.utime(path, (1e9 + used, 1e9 + used))
    return path


def left(root: Path) -> set[str]:
    """Return the names of the existing files, without locks."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "lock" not in path.name}


def test_least_recently_used_is_removed_first(tmp_path: Path) -> None:
    """Files of any job are removed, no more than necessary."""
    for used, name in enumerate(("a/1.safetensors", "b/1.safetensors", "a/2.optimizer", "b/2.safetensors")):
        put(tmp_path / name, used=used)
    trim(tmp_path, 2.5)
    assert left(tmp_path) == {"a/2.optimizer", "b/2.safetensors"}


def test_use_counts_in_every_process(tmp_path: Path) -> None:
    """A file used by another process is removed last; the last argument is the latest."""
    one, two, three = (put(tmp_path / "a" / f"{i}.safetensors", used=i) for i in range(3))
    code = "import sys; from pathlib import Path; from farsearch.cache import touch; touch(*map(Path, sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, one, tmp_path / "removed", two], check=True)
    assert one.stat().st_mtime_ns <= two.stat().st_mtime_ns
    trim(tmp_path, 2.0)
    assert not three.exists()
    trim(tmp_path, 1.0)
    assert left(tmp_path) == {"a/1.safetensors"}


def test_new_file_is_not_removed(tmp_path: Path) -> None:
    """This holds even if it exceeds the bound, or another file's time is in the future."""
    new = put(tmp_path / "a" / "9.safetensors", mib=5, used=0)
    put(tmp_path / "a" / "8.safetensors", used=100)
    trim(tmp_path, 2.0, spare={new})
    assert left(tmp_path) == {"a/9.safetensors"}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), max_size=12),
    st.integers(0, 40),
    st.sets(st.integers(0, 11)),
)
def test_trimming_respects_the_bound_and_the_order(sizes: list[tuple[int, int]], bound: int, spared: set[int]) -> None:
    """Remaining files are within the bound or spared, older ones are removed first, and none without need."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        files = [put(root / "ab"[i % 2] / f"{i}.safetensors", mib / 8, used) for i, (mib, used) in enumerate(sizes)]
        spare = {path for i, path in enumerate(files) if i in spared}
        trim(root, bound / 8, spare)
        exist = [path.exists() for path in files]
        assert all(exist[i] for i, path in enumerate(files) if path in spare)
        total = sum(mib for (mib, _), there in zip(sizes, exist, strict=True) if there)
        # in order of removal
        free = sorted((sizes[i][1], path, i) for i, path in enumerate(files) if path not in spare)
        removed = [i for _, _, i in free if not exist[i]]
        assert removed == [i for _, _, i in free][: len(removed)]
        assert total <= bound or len(removed) == len(free)
        assert not removed or total + sizes[removed[-1]][0] > bound


def test_foreign_files_are_not_removed(tmp_path: Path) -> None:
    """Locks, descriptions, a link out of the cache and files beside the jobs' folders are not counted either."""
    outside = put(tmp_path / "outside" / "precious.safetensors", mib=9)
    root = tmp_path / "cache" / "priming"
    put(root / "a" / "1.safetensors")
    describe(root / "a", {"task": "sst2"})
    (root / "linked").symlink_to(outside.parent, target_is_directory=True)
    (root / "a" / "2.safetensors").symlink_to(outside)
    put(root / "beside")
    trim(root, 0.0)
    assert not (root / "a" / "1.safetensors").exists()
    assert (root / "a" / "about.json").exists()
    assert (root / "beside").exists()
    assert outside.exists()
    clear(tmp_path / "cache", ["primings"], unused(cached_jobs(tmp_path / "cache"), ["primings"]))
    assert outside.exists()


def test_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    """A temporary folder of any age is removed unless its lock shows that its writer is alive."""
    dead, alive = (tmp_path / "a" / f".{name}.123.0123abcd" for name in ("5.safetensors", "6.safetensors"))
    for folder in (dead, alive):
        put(folder / "part", used=0)
    other = put(tmp_path / "a" / ".hidden")
    assert sorted(leftovers(tmp_path / "a")) == [(dead, "5.safetensors"), (alive, "6.safetensors")]
    with filelock.FileLock(tmp_path / "a" / "6.lock"):
        trim(tmp_path, BOUND_MIB)
        assert (dead.exists(), alive.exists()) == (False, True)
    trim(tmp_path, BOUND_MIB)
    assert not alive.exists()
    assert other.exists()


def test_failed_trimming_raises_no_error(tmp_path: Path) -> None:
    """An error would cost a trial, so the cache may exceed its bound."""
    (tmp_path / "file").touch()
    trim(tmp_path / "file", 0.0)
    trim(tmp_path / "missing", 0.0)
    (tmp_path / "lock").mkdir()
    put(tmp_path / "a" / "1.safetensors")
    trim(tmp_path, 0.0)
    assert (tmp_path / "a" / "1.safetensors").exists()


def test_jobs_are_listed_with_their_descriptions(tmp_path: Path) -> None:
    """They are in order of use, with kind and sizes; a broken description is empty, and an empty folder is no job."""
    put(tmp_path / "priming" / "old" / "5.safetensors", 2.0, used=1)
    put(tmp_path / "priming" / "old" / "5.optimizer", 4.0, used=2)
    put(tmp_path / "baselines" / "new" / "full-0.0001.json", 0.5, used=3)
    put(tmp_path / "devices" / "local.toml")
    describe(tmp_path / "priming" / "old", {"task": "sst2"})
    describe(tmp_path / "priming" / "old", {"task": "another"})
    describe(tmp_path / "priming" / "empty", {"task": "cola"})
    (tmp_path / "baselines" / "new" / "about.json").write_text("{half")
    new, old = cached_jobs(tmp_path)
    assert (new.kind, new.about, new.size_mib, new.last_used) == ("baselines", {}, 0.5, 1e9 + 3)
    assert (old.kind, old.about["task"], old.size_mib, old.last_used) == ("primings", "sst2", 6.0, 1e9 + 2)
    assert {file.path.name for file in old.files} == {"5.safetensors", "5.optimizer"}
    assert cached_jobs(tmp_path / "missing") == []


def test_files_unused_for_days_are_found_by_kind_and_age(tmp_path: Path) -> None:
    """Without an age all files of a kind are found."""
    put(tmp_path / "priming" / "a" / "1.safetensors")
    recent = put(tmp_path / "priming" / "a" / "2.safetensors")
    touch(recent)
    put(tmp_path / "baselines" / "b" / "full-0.0001.json", used=time.time() - 1e9 - 3 * 86400)
    jobs = cached_jobs(tmp_path)

    def names(files: list[CachedFile]) -> set[str]:
        return {file.path.name for file in files}

    assert names(unused(jobs, ["primings"])) == {"1.safetensors", "2.safetensors"}
    assert names(unused(jobs, ["primings"], 0.5)) == {"1.safetensors"}
    assert names(unused(jobs, ["primings", "baselines"], 2.9)) == {"1.safetensors", "full-0.0001.json"}
    assert names(unused(jobs, ["primings", "baselines"], 3.1)) == {"1.safetensors"}


def test_clearing_removes_only_the_given_files(tmp_path: Path) -> None:
    """Files of killed writers are removed too, and missing files are ignored."""
    for kind in ("priming", "baselines"):
        put(tmp_path / kind / "a" / "1.safetensors")
        put(tmp_path / kind / "a" / ".1.safetensors.5.0123abcd" / "1.safetensors")
    linked = tmp_path / "study"
    linked.hardlink_to(tmp_path / "priming" / "a" / "1.safetensors")
    files = unused(cached_jobs(tmp_path), ["primings"])
    assert [file.linked for file in files] == [True]
    for _ in range(2):
        clear(tmp_path, ["primings"], files)
    assert left(tmp_path) == {
        "study", "baselines/a/1.safetensors", "baselines/a/.1.safetensors.5.0123abcd/1.safetensors",
    }  # fmt: skip
    assert linked.stat().st_size == MIB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no file that can not be removed")
def test_file_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    """Earlier files are removed. The test uses a file of the system, which nobody can remove."""
    path = put(tmp_path / "priming" / "a" / "1.safetensors")
    files = unused(cached_jobs(tmp_path), ["primings"])
    stuck = CachedFile(Path("/proc/self/status"), 1.0, 0.0, False)
    with pytest.raises(MissingResource, match="/proc/self/status can't be removed"):
        clear(tmp_path, ["primings"], [*files, stuck])
    assert not path.exists()
