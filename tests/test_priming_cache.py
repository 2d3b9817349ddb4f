"""The cache of primings: shared, bounded, and rebuilt if files are damaged, foreign or missing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from farsearch.cache import cached_jobs, trim
from farsearch.errors import MissingResource
from farsearch.files import leftovers, load_tensors, save_tensors
from farsearch.priming import Primed, retain
from farsearch.records import Priming
from tests.primings import JOB, make_cache, prime, same
from tests.tiny import make_model

OTHER = dataclasses.replace(JOB, seed=2)
"""A job with a folder of its own in the cache."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Primed]:
    """Return intact primings of 5 and of 20 steps."""
    return {epochs: prime(tmp_path_factory.mktemp("reference"), epochs) for epochs in (1.0, 4.0)}


def replaced(path: Path, content: bytes) -> None:
    """Replace a file; a process that has mapped the old one still reads it."""
    beside = path.with_name("beside")
    beside.write_bytes(content)
    os.replace(beside, path)


def replaced_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Replace a file of tensors in the same way."""
    save_tensors(path, {name: value.clone() for name, value in tensors.items()})


# damage


@settings(deadline=None, max_examples=15)
@given(st.floats(0, 1, exclude_max=True), st.booleans())
def test_truncated_file_is_primed_again(reference: dict[float, Primed], share: float, weights: bool) -> None:
    """Truncated weights or optimizer, after a full disk or a bad copy, count as missing.

    A longer priming continues from an intact optimizer only.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = prime(Path(folder), 1.0).path
        path = path if weights else path.with_suffix(".optimizer")
        replaced(path, path.read_bytes()[: int(share * path.stat().st_size)])
        notes: list[str] = []
        again = prime(Path(folder), 1.0, notes=notes)
        assert notes == (["priming 5 steps, cached for all trials"] if weights else [])
        assert again.from_cache == (not weights)
        assert same(again, reference[1.0])
        longer = prime(Path(folder), 4.0, notes=notes)
        assert notes[-1] == f"priming 20 steps, {'5 of them done before, ' if weights else ''}cached for all trials"
        assert same(longer, reference[4.0])


def _other_shape(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = torch.zeros(3, 5)


def _other_type(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name].half()


def _other_name(tensors: dict[str, Tensor], name: str) -> None:
    tensors[f"{name}_"] = tensors.pop(name)


def _missing(tensors: dict[str, Tensor], name: str) -> None:
    tensors.pop(name)


def _more(tensors: dict[str, Tensor], name: str) -> None:
    tensors[f"{name}.more"] = torch.zeros(1)


@pytest.mark.parametrize("change", [_other_shape, _other_type, _other_name, _missing, _more])
@pytest.mark.parametrize("name", ["bert.pooler.dense.bias", "scores.0", "second_half.1", "seconds"])
def test_file_of_another_model_is_primed_again(
    reference: dict[float, Primed], tmp_path: Path, change: Any, name: str
) -> None:
    """Intact files whose tensors differ from the model in name, shape or type are not loaded and raise no error."""
    path = prime(tmp_path, 1.0).path
    tensors = load_tensors(path)
    assert tensors is not None
    change(tensors, name)
    replaced_tensors(path, tensors)
    again = prime(tmp_path, 1.0)
    assert not again.from_cache
    assert same(again, reference[1.0])


@pytest.mark.parametrize("change", [_other_shape, _other_name, _missing, _more])
@pytest.mark.parametrize("name", ["0.exp_avg", "3.step"])
def test_foreign_optimizer_is_not_continued(
    reference: dict[float, Primed], tmp_path: Path, change: Any, name: str
) -> None:
    """A priming does not continue from an incomplete state of the optimizer."""
    path = prime(tmp_path, 1.0).path.with_suffix(".optimizer")
    tensors = load_tensors(path)
    assert tensors is not None
    change(tensors, name)
    replaced_tensors(path, tensors)
    notes: list[str] = []
    assert same(prime(tmp_path, 4.0, notes=notes), reference[4.0])
    assert notes == ["priming 20 steps, cached for all trials"]


def test_files_with_other_names_are_ignored(reference: dict[float, Primed], tmp_path: Path) -> None:
    """A user's copies beside the files are neither read nor removed."""
    path = prime(tmp_path, 1.0).path
    for name in ("5 copy.optimizer", "x.optimizer", "-1.optimizer", "y.lock"):
        shutil.copy(path, path.with_name(name))
    assert same(prime(tmp_path, 4.0), reference[4.0])
    assert path.with_name("5 copy.optimizer").exists()


@pytest.mark.parametrize("kind", ["safetensors", "optimizer"])
def test_folder_at_the_path_of_a_file_is_removed(reference: dict[float, Primed], tmp_path: Path, kind: str) -> None:
    """The trained steps can then be stored."""
    folder = make_cache(tmp_path).folder / f"5.{kind}"
    (folder / "inner").mkdir(parents=True)
    first = prime(tmp_path, 1.0)
    assert same(first, reference[1.0])
    assert folder.is_file()
    assert prime(tmp_path, 1.0).from_cache


@contextlib.contextmanager
def somebody() -> Iterator[Path]:
    """Return a folder, with the rights of a user who is not root, because root ignores permissions."""
    if sys.platform == "win32":
        pytest.skip("folders have no owners' permissions here")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_unreadable_file_is_replaced(reference: dict[float, Primed]) -> None:
    """It is primed again if the folder is writable."""
    with somebody() as folder:
        path = prime(folder, 1.0).path
        path.chmod(0)
        again = prime(folder, 1.0)
        assert not again.from_cache
        assert same(again, reference[1.0])
        assert prime(folder, 1.0).from_cache


def test_read_only_folder_still_serves_existing_primings() -> None:
    """A new priming is an error of one line, raised before the first step."""
    with somebody() as folder:
        path = prime(folder, 1.0).path
        path.parent.chmod(0o555)
        assert prime(folder, 1.0).from_cache
        notes: list[str] = []
        with pytest.raises(
            MissingResource, match="can't be written: Permission denied; check the folder's permissions"
        ):
            prime(folder, 2.0, notes=notes)
        assert notes == []
        path.parent.chmod(0o755)


def test_cache_that_cannot_be_created_is_reported_in_one_line(tmp_path: Path) -> None:
    """The error names the folder."""
    (tmp_path / "cache").touch()
    with pytest.raises(MissingResource, match="can't be written"):
        prime(tmp_path / "cache", 1.0)


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is one of POSIX")
def test_full_disk_is_reported_in_one_line(reference: dict[float, Primed], tmp_path: Path) -> None:
    """There is no space for the optimizer after the weights; later primings are correct."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(MissingResource, match="can't be written") as caught:
            prime(tmp_path, 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    folder = make_cache(tmp_path).folder
    assert {path.name for path in folder.iterdir() if path.suffix != ".lock"} == {"about.json", "5.safetensors"}
    notes: list[str] = []
    assert same(prime(tmp_path, 1.0, notes=notes), reference[1.0])
    assert same(prime(tmp_path, 4.0, notes=notes), reference[4.0])
    assert notes == ["priming 20 steps, cached for all trials"]


def test_failed_priming_leaves_no_file(tmp_path: Path) -> None:
    """A diverged priming is not stored, and its lock is released."""
    wild = dataclasses.replace(JOB, priming=Priming(optimizer="sgd", learning_rate=1e30, warmup_steps=0))
    for _ in range(2):
        with pytest.raises(FloatingPointError):
            prime(tmp_path, 1.0, wild)
    assert not list(tmp_path.rglob("*.safetensors"))


# workers


class Worker(threading.Thread):
    """A worker that primes its own model, and can be paused before its first step."""

    def __init__(self, folder: Path, epochs: float, held: bool = False, fails: bool = False) -> None:
        super().__init__(daemon=True)
        self.notes: list[str] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.found: Primed | None = None
        self._cache, self._epochs, self._fails = make_cache(folder), epochs, fails
        if not held:
            self.go_on.set()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(FloatingPointError):
            self.found = self._cache.get(make_model("bert")[0], self._epochs, self._tell)

    def _tell(self, note: str) -> None:
        self.notes.append(note)
        self.begun.set()
        if note.startswith("priming"):
            assert self.go_on.wait(120)
            if self._fails:
                raise FloatingPointError("as a loss that is not finite")

    def ended(self) -> Primed | None:
        self.join(120)
        assert not self.is_alive()
        return self.found


def test_workers_share_one_priming(tmp_path: Path) -> None:
    """Of four simultaneous workers one primes; the others wait, with a note, and read its file."""
    first = Worker(tmp_path, 0.4, held=True)
    assert first.begun.wait(120)
    others = [Worker(tmp_path, 0.4) for _ in range(3)]
    assert all(other.begun.wait(120) for other in others)
    first.go_on.set()
    found = [worker.ended() for worker in (first, *others)]
    assert first.notes == ["priming 2 steps, cached for all trials"]
    assert all(other.notes == ["another worker primes 2 steps, waiting for it"] for other in others)
    assert [primed is not None and primed.from_cache for primed in found] == [False, True, True, True]
    assert all(one is not None and other is not None and same(one, other) for one in found for other in found)


def test_short_priming_does_not_wait_for_a_long_one(reference: dict[float, Primed], tmp_path: Path) -> None:
    """While a worker runs 20 steps another gets its 5, and a third 15, which can't continue more than 7."""
    long = Worker(tmp_path, 4.0, held=True)
    assert long.begun.wait(120)
    short, between = Worker(tmp_path, 1.0).ended(), Worker(tmp_path, 3.0).ended()
    assert long.is_alive()
    assert long.found is None
    long.go_on.set()
    assert between is not None
    assert between.steps == 15
    for found, epochs in ((short, 1.0), (long.ended(), 4.0)):
        assert found is not None
        assert same(found, reference[epochs])


def test_long_priming_waits_for_a_short_one_and_continues_it(reference: dict[float, Primed], tmp_path: Path) -> None:
    """The steps of the other worker are not run twice."""
    short = Worker(tmp_path, 1.0, held=True)
    assert short.begun.wait(120)
    long = Worker(tmp_path, 4.0)
    assert long.begun.wait(120)
    assert long.notes == ["another worker primes 5 steps, waiting for it"]
    short.go_on.set()
    found = long.ended()
    assert long.notes[1:] == ["priming 20 steps, 5 of them done before, cached for all trials"]
    assert found is not None
    assert same(found, reference[4.0])


def test_long_priming_runs_all_steps_if_the_short_one_fails(reference: dict[float, Primed], tmp_path: Path) -> None:
    short = Worker(tmp_path, 1.0, held=True, fails=True)
    assert short.begun.wait(120)
    long = Worker(tmp_path, 4.0)
    assert long.begun.wait(120)
    short.go_on.set()
    assert short.ended() is None
    found = long.ended()
    assert long.notes[-1] == "priming 20 steps, cached for all trials"
    assert found is not None
    assert same(found, reference[4.0])


KILLED = """
import os, signal, sys
from pathlib import Path
import farsearch.priming
from tests.primings import network, prime

network()  # made before the forks, which then share it
def prime_until(folder, module, name, at):
    function, calls = getattr(module, name), 0
    def killed(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    setattr(module, name, killed)
    prime(folder, 1.0)

for word in sys.argv[2:]:
    module, name, at = word.split(":")
    child = os.fork()
    if not child:
        prime_until(Path(sys.argv[1]) / word, {"os": os, "priming": farsearch.priming}[module], name, int(at))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

KILLS = ("priming:_copy:1", "os:fsync:1", "os:replace:1", "os:fsync:2", "os:replace:2", "os:fsync:3", "os:replace:3")
"""In the middle of the steps, and before each of the three files is complete and renamed."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_kill_at_any_moment_leaves_the_cache_usable(reference: dict[float, Primed], tmp_path: Path) -> None:
    """After SIGKILL no lock blocks the next worker, and no incomplete file is read or left."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), *KILLS]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads do not survive a fork
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.split() == ["-9"] * len(KILLS)
    for kill in KILLS:
        folder = make_cache(tmp_path / kill).folder
        assert (folder / "5.lock").exists()
        assert bool(list(leftovers(folder))) == kill.startswith("os:")
        notes: list[str] = []
        assert same(prime(tmp_path / kill, 1.0, notes=notes), reference[1.0])
        assert same(prime(tmp_path / kill, 4.0, notes=notes), reference[4.0])
        assert not any("waiting" in note for note in notes)
        assert list(leftovers(folder)) == []
        assert {path.name for path in folder.iterdir() if path.suffix != ".lock"} == {
            "about.json", "5.safetensors", "20.safetensors", "20.optimizer",
        }  # fmt: skip


# bound and retained primings


def test_cache_stays_within_its_bound(tmp_path: Path) -> None:
    """Each priming makes room for itself: another job's is removed; recently used ones and the new one stay."""
    root = tmp_path / "priming"
    one = prime(root, 1.0).path
    size = sum(path.stat().st_size for path in (one, one.with_suffix(".optimizer"))) / 2**20
    other = prime(root, 1.0, OTHER, bound_mib=2.2 * size).path
    assert prime(root, 1.0).from_cache
    assert one.exists()
    assert other.exists()
    last = prime(root, 0.4, bound_mib=1.5 * size).path
    assert (one.exists(), other.exists(), last.exists()) == (True, False, True)
    assert size < sum(job.size_mib for job in cached_jobs(tmp_path)) <= 1.5 * size
    prime(root, 2.0, bound_mib=0.0)
    (job,) = cached_jobs(tmp_path)
    assert {file.path.name for file in job.files} == {"10.safetensors", "10.optimizer"}
    assert prime(root, 2.0, bound_mib=0.0).from_cache


def test_optimizer_is_removed_before_its_weights(tmp_path: Path) -> None:
    """It only saves steps of a longer priming, and is useless without weights."""
    path = prime(tmp_path, 1.0).path
    trim(tmp_path, path.stat().st_size / 2**20)
    assert path.exists()
    assert not path.with_suffix(".optimizer").exists()


def test_priming_in_use_can_be_evicted(reference: dict[float, Primed], tmp_path: Path) -> None:
    """A trial continues with the mapped priming, and the next one primes again."""
    one = prime(tmp_path, 1.0)
    trim(tmp_path, 0.0)
    assert not one.path.exists()
    assert same(one, reference[1.0])
    assert not prime(tmp_path, 1.0).from_cache


@pytest.mark.parametrize("when", ["before it is retained", "after it is retained"])
def test_retained_priming_outlives_the_cache(tmp_path: Path, when: str) -> None:
    """The study's folder has the complete priming, although other jobs evicted it from the cache."""
    one = prime(tmp_path / "cache", 1.0)
    if when == "after it is retained":
        retain(one, tmp_path / "retained")
    prime(tmp_path / "cache", 1.0, OTHER, bound_mib=0.0)
    assert not one.path.exists()
    retained = retain(one, tmp_path / "retained")
    loaded = load_tensors(retained)
    assert loaded is not None
    assert set(loaded) == set(one.tensors())
    assert all(torch.equal(loaded[name], value) for name, value in one.tensors().items())
    assert [path.name for path in (tmp_path / "retained").iterdir()] == [retained.name]


def test_retaining_is_idempotent(tmp_path: Path) -> None:
    """A link takes no space, another job's priming has its own name, and a damaged one is replaced."""
    one, other = prime(tmp_path / "cache", 1.0), prime(tmp_path / "cache", 1.0, OTHER)
    retained = [
        retain(one, tmp_path / "retained"),
        retain(one, tmp_path / "retained"),
        retain(other, tmp_path / "retained"),
    ]
    assert retained[0] == retained[1] != retained[2]
    assert retained[0].samefile(one.path)
    replaced(retained[0], b"half")
    assert retain(one, tmp_path / "retained") == retained[0]
    assert load_tensors(retained[0]) is not None


def test_retaining_copies_where_links_do_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links fail across disks and on some file systems."""

    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    one = prime(tmp_path / "cache", 1.0)
    retained = retain(one, tmp_path / "retained")
    loaded = load_tensors(retained)
    assert loaded is not None
    assert not retained.samefile(one.path)
    assert all(torch.equal(loaded[name], value) for name, value in one.tensors().items())


def test_description_has_everything_that_a_priming_depends_on(tmp_path: Path) -> None:
    """``farsearch cache show`` prints it."""
    prime(tmp_path / "priming", 1.0)
    (job,) = cached_jobs(tmp_path)
    assert (job.kind, job.about["task"], job.about["model"], job.about["torch"]) == (
        "primings", "sst2", "tiny", torch.__version__,
    )  # fmt: skip
