"""The folder is copied to boards: it needs torch, nothing else of farsearch, and runs on old Pythons."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import farsearch.far
import farsearch.far.board

FOLDER = Path(farsearch.far.__file__).parent
BOARD = FOLDER / "board"
FILES = sorted(FOLDER.rglob("*.py"))
files = pytest.mark.parametrize("file", FILES, ids=[file.relative_to(FOLDER).as_posix() for file in FILES])


def test_all_files_are_listed() -> None:
    """The docstrings of both packages list their modules."""
    for folder, package in ((FOLDER, farsearch.far), (BOARD, farsearch.far.board)):
        listed = {word for word in (package.__doc__ or "").split() if word.endswith(".py")}
        assert listed - {"train.py"} == {file.name for file in folder.glob("*.py")} - {"__init__.py"}


@files
def test_python_3_6_can_parse_it(file: Path) -> None:
    """No syntax that is younger than Python 3.6."""
    ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 6))


@files
def test_it_imports_torch_and_the_standard_library_only(file: Path) -> None:
    """And its own modules by relative names: on a board the folder has another parent.

    What runs a bundle there needs transformers too, and imports it where it is used: a bundle is checked without.
    """
    # all of them are in Python 3.6
    old = {"contextlib", "functools", "inspect", "json", "math", "os", "random", "struct", "typing"}
    if file.parent == BOARD:
        old |= {
            "argparse", "ast", "binascii", "collections", "ctypes", "datetime", "decimal", "difflib", "gzip", "hashlib",
            "importlib", "io", "itertools", "platform", "re", "resource", "shlex", "shutil", "signal", "string", "sys",
            "time", "transformers", "warnings", "zlib",
        }  # fmt: skip
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= old | {"torch"}
        elif isinstance(node, ast.ImportFrom):
            assert 1 <= node.level <= 1 + (file.parent == BOARD) or (
                node.level == 0 and str(node.module).split(".")[0] in old | {"torch"}
            )


def test_it_works_under_another_name(tmp_path: Path) -> None:
    """Copied alone and imported from there, it brings no module of farsearch or transformers with it."""
    shutil.copytree(FOLDER, tmp_path / "board")
    names = [file.relative_to(FOLDER).with_suffix("").as_posix().replace("/", ".") for file in FILES]
    modules = "; ".join(f"import board.{name}" for name in names if not name.endswith("__init__"))
    check = f"{modules}; import sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {check}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "board" in done.stdout.split()
    assert not {"farsearch", "transformers", "safetensors"} & set(done.stdout.split())


def python_3_6() -> str | None:
    """Return a working Python 3.6 of this machine, from the path or from pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for found in (shutil.which("python3.6"), *map(str, sorted(root.glob("versions/3.6.*/bin/python")))):
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    return None


@pytest.mark.board
def test_python_3_6_compiles_it(tmp_path: Path) -> None:
    """Python 3.6 compiles every file of a copy."""
    python = python_3_6()
    if python is None:
        pytest.skip("there is no Python 3.6 on the path or in pyenv")
    shutil.copytree(FOLDER, tmp_path / "board", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([python, "-m", "compileall", "-q", str(tmp_path / "board")], check=True)
