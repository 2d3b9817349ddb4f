"""The packages in bundles need only torch and transformers, nothing of farsearch, and parse under old Pythons."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import farsearch.far
import farsearch.runtime
import farsearch.runtime.onnx_engine
import farsearch.runtime.torch_engine

ROOT = Path(farsearch.far.__file__).parents[1]
PACKAGES = {
    "far": farsearch.far,
    "runtime": farsearch.runtime,
    "runtime/onnx_engine": farsearch.runtime.onnx_engine,
    "runtime/torch_engine": farsearch.runtime.torch_engine,
}
FILES = [file for name in ("far", "runtime") for file in sorted((ROOT / name).rglob("*.py"))]
NAMES = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in FILES]
files = pytest.mark.parametrize("file", FILES, ids=[file.relative_to(ROOT).as_posix() for file in FILES])

RUNTIME = [name for name in NAMES if name.split(".")[0] == "runtime" and "_engine" not in name]
ONNX_ENGINE = [name for name in NAMES if name.startswith("runtime.onnx_engine")]


def copied(folder: Path) -> Path:
    """Copy the packages below ``folder``, under the parent package ``board``. Return ``folder``."""
    for name in ("far", "runtime"):
        shutil.copytree(ROOT / name, folder / "board" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def imported(folder: Path, names: list[str], before: str = "pass") -> set[str]:
    """The top-level modules in a Python process after it imported some of the copies."""
    modules = "; ".join(f"import board.{name}" for name in names)
    check = f"{modules}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; {before}; sys.path.insert(0, {str(folder)!r}); {check}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", PACKAGES)
def test_the_docstring_of_a_package_lists_its_modules(name: str) -> None:
    listed = {word for word in (PACKAGES[name].__doc__ or "").split() if word.endswith(".py")}
    assert listed - {"train.py"} == {file.name for file in (ROOT / name).glob("*.py")} - {"__init__.py"}


@files
def test_python_3_6_can_parse_the_packages(file: Path) -> None:
    ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 6))


@files
def test_only_the_engines_libraries_and_the_standard_library_are_imported(file: Path) -> None:
    """Own modules are imported by relative names, because in a bundle the packages have another parent."""
    # all of them are in Python 3.6
    old = {"contextlib", "functools", "inspect", "json", "math", "os", "random", "struct", "sys", "torch", "typing"}
    if ROOT / "runtime" / "onnx_engine" in file.parents:
        old = old - {"torch"} | {"ctypes", "mmap", "numpy", "onnxruntime", "shutil", "tokenizers"}
    elif ROOT / "runtime" in file.parents:
        old |= {
            "argparse", "ast", "binascii", "collections", "ctypes", "datetime", "decimal", "difflib", "gzip", "hashlib",
            "heapq", "importlib", "io", "itertools", "platform", "re", "resource", "shlex", "shutil", "signal",
            "string", "sys", "time", "transformers", "warnings", "zlib",
        }  # fmt: skip
    if file == ROOT / "runtime" / "memory.py":
        old |= {"psutil"}  # where there is no /proc, which boards have
    depth = len(file.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= old
        elif isinstance(node, ast.ImportFrom):
            outside = node.level == depth and str(node.module).split(".")[0] != "far"
            assert (1 <= node.level <= depth and not outside) or (
                node.level == 0 and str(node.module).split(".")[0] in old
            )


def test_copies_work_under_another_name(tmp_path: Path) -> None:
    """All modules of a copy can be imported without farsearch and, until a model is used, without transformers."""
    loaded = imported(copied(tmp_path), NAMES)
    assert {"board", "torch"} <= loaded
    assert not {"farsearch", "transformers", "safetensors"} & loaded


@pytest.mark.parametrize("name", RUNTIME)
def test_the_runtime_is_imported_without_an_engines_libraries(tmp_path: Path, name: str) -> None:
    blocked = "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'numpy', 'onnxruntime', 'tokenizers']))"
    assert "board" in imported(copied(tmp_path), [name], blocked)


def test_the_onnx_engine_is_imported_without_torch_transformers_and_onnx(tmp_path: Path) -> None:
    blocked = "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'onnx']))"
    assert {"board", "numpy"} <= imported(copied(tmp_path), ONNX_ENGINE, blocked)


def python_3_6() -> str | None:
    """Return a working Python 3.6 from the path or from pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for found in (shutil.which("python3.6"), *map(str, sorted(root.glob("versions/3.6.*/bin/python")))):
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    return None


@pytest.mark.board
def test_python_3_6_compiles_the_packages(tmp_path: Path) -> None:
    python = python_3_6()
    if python is None:
        pytest.skip("no Python 3.6 is on the path or in pyenv")
    subprocess.run([python, "-m", "compileall", "-q", str(copied(tmp_path))], check=True)
