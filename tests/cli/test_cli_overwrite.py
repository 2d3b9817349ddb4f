"""Files of a user are not replaced, whatever command is told to write there."""

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
def test_a_file_of_another_is_not_replaced(
    finished_study: Path, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    """One line, exit 2, before any work; the file is as it was."""
    (tmp_path / name).write_text("text,label\nmine,1\n")
    done = call(finished_study, *words, tmp_path / name)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert "exists" in done.err
    assert (tmp_path / name).read_text() == "text,label\nmine,1\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("words", "name"), WRITERS[:5], ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_a_name_of_another_type_is_refused(
    finished_study: Path, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    """``--png data.csv`` is a slip."""
    done = call(finished_study, *words, tmp_path / "data.csv")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"has to end in {Path(name).suffix}" in done.err
    assert not (tmp_path / "data.csv").exists()


@pytest.mark.parametrize(("words", "name"), [WRITERS[0], WRITERS[1], WRITERS[3]], ids=["report", "pareto", "calibrate"])
def test_what_farsearch_wrote_is_replaced(
    finished_study: Path, tmp_path: Path, words: tuple[str, ...], name: str
) -> None:
    """The same command again is no error."""
    for _ in range(2):
        done = call(finished_study, *words, tmp_path / name)
        assert done.code == 0, done.err


def test_pictures_do_not_replace_others(finished_study: Path, tmp_path: Path) -> None:
    """One picture that is not farsearch's, and nothing is written."""
    (tmp_path / "memory.png").write_bytes(b"a photo")
    done = call(finished_study, "report", "--out", tmp_path / "page.html", "--figures", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["memory.png"]


def test_a_link_to_nowhere_and_a_folder_are_not_replaced(finished_study: Path, tmp_path: Path) -> None:
    """What is no file can't be one of ours."""
    (tmp_path / "a.html").symlink_to(tmp_path / "gone")
    (tmp_path / "b.html").mkdir()
    for name in ("a.html", "b.html"):
        assert call(finished_study, "report", "--out", tmp_path / name).code == 2
    assert (tmp_path / "a.html").is_symlink()
