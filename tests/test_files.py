"""Atomic writes, and errors of the disk in one line."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from farsearch.errors import MissingResource
from farsearch.files import (
    disk_errors,
    leftovers,
    load_tensors,
    read_json,
    remove,
    save_tensors,
    write_json,
    write_text,
)


def test_files_round_trip(tmp_path: Path) -> None:
    """Text, JSON with sorted keys and tensors are read back unchanged, in new folders."""
    write_text(tmp_path / "a" / "text", "façade\n")
    assert (tmp_path / "a" / "text").read_text(encoding="utf-8") == "façade\n"
    write_json(tmp_path / "a.json", {"b": [1, None], "a": "é"})
    assert read_json(tmp_path / "a.json") == {"a": "é", "b": [1, None]}
    assert (tmp_path / "a.json").read_text().index('"a"') < (tmp_path / "a.json").read_text().index('"b"')
    tensors = {"x": torch.arange(6.0).reshape(2, 3).T, "none": torch.zeros(0, 3), "n": torch.tensor(3)}
    save_tensors(tmp_path / "t.safetensors", tensors, {"key": "value"})
    loaded = load_tensors(tmp_path / "t.safetensors")
    assert loaded is not None
    assert set(loaded) == set(tensors)
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    with safetensors.safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert file.metadata() == {"key": "value"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_empty_set_of_tensors_is_stored(tmp_path: Path) -> None:
    """An optimizer without state differs from a missing file."""
    save_tensors(tmp_path / "empty", {})
    assert load_tensors(tmp_path / "empty") == {}
    assert load_tensors(tmp_path / "missing") is None


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """There is no other file after an exception in the middle of writing."""
    path = tmp_path / "file"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half a file, then \ud800")
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        save_tensors(path, {"a": shared, "b": shared[1:]})
    assert read_json(path) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_files_have_default_permissions(tmp_path: Path) -> None:
    """A new file does not have those of a temporary one, so that the group can read it."""
    plain = tmp_path / "plain"
    plain.touch()
    write_text(tmp_path / "text", "a")
    save_tensors(tmp_path / "tensors", {"a": torch.zeros(1)})
    assert {(tmp_path / name).stat().st_mode for name in ("text", "tensors")} == {plain.stat().st_mode}


@pytest.mark.parametrize("part", [0, 4, 60, 0.5, 0.99])
def test_damaged_tensors_read_as_absent(tmp_path: Path, part: float) -> None:
    """A file truncated anywhere, or of another kind, raises no exception."""
    save_tensors(tmp_path / "intact", {"a": torch.ones(100), "b": torch.ones(50)})
    content = (tmp_path / "intact").read_bytes()
    size = part if isinstance(part, int) else int(part * len(content))
    (tmp_path / "cut").write_bytes(content[:size])
    assert load_tensors(tmp_path / "cut") is None
    (tmp_path / "other").write_text("no tensors at all, but long enough to have a header")
    assert load_tensors(tmp_path / "other") is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_header_raises_no_exception(changes: list[tuple[float, int]]) -> None:
    """With any bytes changed among names, types and offsets of tensors the result is tensors or None."""
    content = bytearray(safetensors.torch.save({"a": torch.ones(10), "b": torch.ones(5, dtype=torch.int64)}))
    header = 8 + int.from_bytes(content[:8], "little")
    for place, value in changes:
        content[int(place * header)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        loaded = load_tensors(path)
        assert loaded is None or all(isinstance(value, torch.Tensor) for value in loaded.values())


def test_folder_reads_as_absent_tensors(tmp_path: Path) -> None:
    assert load_tensors(tmp_path) is None


def test_tensors_outlive_their_file(tmp_path: Path) -> None:
    """They are mapped: a replaced or removed file stays readable to its users, and is not written to."""
    path = tmp_path / "t"
    save_tensors(path, {"x": torch.ones(3)})
    first = load_tensors(path)
    save_tensors(path, {"x": torch.zeros(3)})
    second = load_tensors(path)
    assert first is not None
    assert second is not None
    second["x"] += 5
    again = load_tensors(path)
    path.unlink()
    assert again is not None
    assert [tensors["x"].tolist() for tensors in (first, second, again)] == [[1.0] * 3, [5.0] * 3, [0.0] * 3]


KILLED = """
import os, signal, sys
from pathlib import Path
import safetensors.torch, torch
from farsearch.files import save_tensors
save = safetensors.torch.save_file
def save_and_die(tensors, path, metadata):
    save(tensors, path, metadata)
    Path(path).with_name(".tmp1a2B3c").touch()  # as its own temporary files are called, if it is killed earlier
    os.kill(os.getpid(), signal.SIGKILL)
safetensors.torch.save_file = save_and_die
save_tensors(Path(sys.argv[1]), {"x": torch.zeros(3)})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the signal is one of POSIX")
def test_files_of_a_killed_writer_are_detected(tmp_path: Path) -> None:
    """The temporary folder names its target, the old file is intact, and the folder can be removed."""
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.ones(3)})
    assert list(leftovers(tmp_path)) == []
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -signal.SIGKILL
    ((left, name),) = leftovers(tmp_path)
    assert name == "t.safetensors"
    assert {".tmp1a2B3c", "t.safetensors"} == {part.name for part in left.iterdir()}
    remove(left)
    assert list(tmp_path.iterdir()) == [path]
    loaded = load_tensors(path)
    assert loaded is not None
    assert loaded["x"].tolist() == [1.0] * 3


def test_foreign_hidden_files_are_not_listed(tmp_path: Path) -> None:
    for name in (".gitignore", ".t.1234", ".t.12.zzzzzzzz", ".t.0123abcd", "t.12.0123abcd", ".t.12.0123abcd.old"):
        (tmp_path / name).touch()
    assert list(leftovers(tmp_path)) == []


def test_files_folders_and_links_are_removed(tmp_path: Path) -> None:
    """The target of a link stays, and a missing file is ignored."""
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder", target_is_directory=True)
    remove(tmp_path / "link")
    assert (tmp_path / "folder" / "inner" / "file").exists()
    remove(tmp_path / "folder")
    remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    """A file has the path of the folder; the error has the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(MissingResource, match=r"inner can't be written: .+; check the folder's permissions"):
        write_text(tmp_path / "file" / "inner", "a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_device_is_reported_in_one_line() -> None:
    """The system's 'no space left' becomes an error of farsearch."""
    with pytest.raises(MissingResource, match="the disk is full: full") as caught, disk_errors(Path("/dev/full")):
        Path("/dev/full").write_text("a" * 100_000)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


ON_A_SMALL_DISK = """
import json, sys
from pathlib import Path
import torch
from farsearch.errors import MissingResource
from farsearch.files import save_tensors, write_json, write_text
folder = Path(sys.argv[1])
before()
write_json(folder / "kept", [1])
errors = []
for write in (
    lambda: write_text(folder / "kept", "a" * 1_000_000),
    lambda: save_tensors(folder / "kept", {"a": torch.zeros(250_000)}),
):
    try:
        write()
    except MissingResource as error:
        errors.append(str(error))
print(json.dumps([errors, (folder / "kept").read_text(), sorted(path.name for path in folder.iterdir())]))
"""


def on_a_small_disk(before: str, folder: Path, *prefix: str) -> list[str]:
    """Write a text and tensors of a megabyte each without space for them; return the errors."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", f"def before():\n {before}\n{ON_A_SMALL_DISK}", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    errors, kept, names = json.loads(done.stdout)
    assert json.loads(kept) == [1], "the old file is damaged"
    assert names == ["kept"], "a part of a file was left behind"
    assert isinstance(errors, list)
    assert len(errors) == 2
    return errors


@pytest.mark.skipif(sys.platform == "win32", reason="the limit is one of POSIX")
def test_file_size_limit_is_reported_and_leaves_the_old_file(tmp_path: Path) -> None:
    """A process has a quota of 64 KiB per file."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))"
    for error in on_a_small_disk(limit, tmp_path):
        assert "can't be written: " in error
        assert "\n" not in error


def test_full_file_system_is_reported_and_leaves_the_old_file(tmp_path: Path) -> None:
    """A real file system of 64 KiB is mounted in its own name space."""
    mount = ["unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size=64k none "{tmp_path}" && exec "$@"', "sh"]
    try:
        mountable = subprocess.run([*mount, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        mountable = False
    if not mountable:
        pytest.skip("this system lets a user mount nothing")
    for error in on_a_small_disk("pass", tmp_path, *mount):
        assert error.startswith("the disk is full: kept can't be written")
        assert "finished trials are kept" in error
