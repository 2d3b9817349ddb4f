"""The workflow and the files for contributors agree with the Makefile and the package."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import farsearch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]  # only there on Python 3.10

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
JOBS: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]


def _commands(job: str) -> list[tuple[str, list[str]]]:
    """Return the condition and the words of each command of a job."""
    return [(step.get("if", ""), shlex.split(step["run"])) for step in JOBS[job]["steps"] if "run" in step]


def _variable(name: str) -> str:
    """Return a variable of the Makefile with the variables in it."""
    match = re.search(rf"^{name} \??= (.*)$", MAKEFILE, re.MULTILINE)
    assert match is not None
    return re.sub(r"\$\((\w+)\)", lambda inner: _variable(inner[1]), match[1])


def test_every_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    used = {words[1] for job in JOBS for _, words in _commands(job) if words[0] == "make"}
    assert used >= {"check", "test", "docs", "wheel"}
    assert used <= targets


def test_windows_runs_the_commands_of_make_test() -> None:
    install, test = (words for condition, words in _commands("test") if "== 'Windows'" in condition)
    assert install[-1] == ".[dev]"
    assert install[install.index("--constraint") + 1] == "constraints.txt"
    assert test == ["python", *shlex.split(_variable("PYTEST")), "-m", _variable("MARKERS")]


def test_three_systems_and_all_supported_versions_are_tested() -> None:
    matrix = JOBS["test"]["strategy"]["matrix"]
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}
    with open(ROOT / "pyproject.toml", "rb") as file:
        supported = SpecifierSet(tomllib.load(file)["project"]["requires-python"])
    latest = max(int(version.partition(".")[2]) for version in matrix["python"])
    assert matrix["python"] == [f"3.{minor}" for minor in range(latest + 1) if f"3.{minor}" in supported]
    assert latest >= 13


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == farsearch.__version__
    assert {"message", "title", "authors"} <= citation.keys()


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_forms_have_what_github_requires(form: Path) -> None:
    """Name, description, and fields with a label and an identity of their own."""
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert content["name"]
    assert content["description"]
    names = [field["id"] for field in content["body"]]
    assert len(set(names)) == len(names)
    for field in content["body"]:
        assert field["type"] in {"checkboxes", "dropdown", "input", "textarea"}
        assert field["attributes"]["label"]
