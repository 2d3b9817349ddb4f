"""The docs name existing files, and show the layers that import-linter enforces."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import farsearch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # only there on Python 3.10

ROOT = Path(__file__).parents[1]
# outside of ROOT if the tests run against the wheel
PACKAGE = Path(farsearch.__file__).parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_FOLDERS = "farsearch|tests|docs|benchmarks|tools|search_spaces"
_PATH = re.compile(rf"(?<![\w./:-])((?:{_FOLDERS})/[\w./-]*\w|(?:{_FOLDERS})/)(?![\w*<{{])")
_LINK = re.compile(r"\]\(([^)#\s]+)")
_PLACEHOLDER = re.compile(r"/[A-Z]{3,}[^/]*$")
# the log names modules that existed at its time
_HISTORY = {"log.md"}


def _exists(path: str) -> bool:
    """Return whether a path of the repository exists: of a placeholder the folder, of a module also without suffix."""
    if _PLACEHOLDER.search(path):
        path = path.rpartition("/")[0]
    folder, _, rest = path.partition("/")
    found = (PACKAGE if folder == "farsearch" else ROOT / folder) / rest
    return found.exists() or found.with_suffix(".py").exists()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.name))
def test_paths_and_links_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in _LINK.findall(text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    paths = [] if document.name in _HISTORY else sorted(set(_PATH.findall(prose)))
    assert [path for path in paths if not _exists(path)] == []


def _layers() -> list[str]:
    """Return the layers of the first contract, from the top."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        settings: dict[str, Any] = tomllib.load(file)
    return [str(layer) for layer in settings["tool"]["importlinter"]["contracts"][0]["layers"]]


def test_the_picture_of_the_layers_equals_the_contract() -> None:
    nodes = "\n".join(f'    L{i}["{layer.replace(" | ", " · ")}"]' for i, layer in enumerate(_layers()))
    arrows = " --> ".join(f"L{i}" for i in range(len(_layers())))
    picture = f"<!-- layers -->\n```mermaid\nflowchart TB\n{nodes}\n    {arrows}\n```\n<!-- /layers -->"
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert picture in text, f"docs/architecture.md needs this picture:\n{picture}"
