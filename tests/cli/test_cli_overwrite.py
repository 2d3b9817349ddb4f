"""No command replaces a file that farsearch did not write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.journey import call

_SWEEP = ("estimate", "--device", "jetson-nano", "--model", "minilm", "--sweep", "--png")

WRITERS: Sequence[tuple[tuple[str, ...], str]] = (
    (("report", "--out"), "page.html"),
    (("pareto", "--png"), "front.png"),
    (_SWEEP, "sweep.png"),
    (("devices", "calibrate", "--script"), "script.py"),
    (("devices", "calibrate", "--out"), "board.toml"),
    (("export", "--out"), "bundle.zip"),
    (("export", "--out"), "bundle"),
)
"""Commands that write where a user says."""


@pytest.mark.parametrize(("words", "name"), WRITERS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_foreign_file_is_not_replaced(
    finished_study: Path, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    """Exit code 2 and one line, before any work."""
    (tmp_path / name).write_text("text,label\nmine,1\n")
    done = call(finished_study, *words, tmp_path / name)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert "exists" in done.err
    assert (tmp_path / name).read_text() == "text,label\nmine,1\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("words", "name"), WRITERS[:5], ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_an_unexpected_suffix_is_refused(
    finished_study: Path, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    done = call(finished_study, *words, tmp_path / "data.csv")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"has to end in {Path(name).suffix}" in done.err
    assert not (tmp_path / "data.csv").exists()


@pytest.mark.parametrize(("words", "name"), [WRITERS[0], WRITERS[1], WRITERS[3]], ids=["report", "pareto", "calibrate"])
def test_own_files_are_replaced(finished_study: Path, tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    for _ in range(2):
        done = call(finished_study, *words, tmp_path / name)
        assert done.code == 0, done.err


def test_one_foreign_picture_prevents_all_writes(finished_study: Path, tmp_path: Path) -> None:
    (tmp_path / "memory.png").write_bytes(b"a photo")
    done = call(finished_study, "report", "--out", tmp_path / "page.html", "--figures", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["memory.png"]


def test_a_dangling_link_and_a_folder_are_not_replaced(finished_study: Path, tmp_path: Path) -> None:
    (tmp_path / "a.html").symlink_to(tmp_path / "gone")
    (tmp_path / "b.html").mkdir()
    for name in ("a.html", "b.html"):
        assert call(finished_study, "report", "--out", tmp_path / name).code == 2
    assert (tmp_path / "a.html").is_symlink()
