"""The examples run, print the output in the documentation, and are typed."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

EXAMPLES = Path(__file__).parents[1] / "examples"


def block(text: str, kind: str) -> str:
    """Return the first fenced block of a kind."""
    match = re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match[1]


def shape(text: str) -> list[str]:
    """Return lines without figures and reasons of choices, which depend on the last digits of trainings."""
    lines = [re.sub(r"-?\d[\d.,]*", "#", line) for line in text.splitlines()]
    return [
        " ".join(re.sub("True|False", "", line).split())
        for line in lines
        if not line.startswith(("Trial", "front:", "Beside"))
    ]


@pytest.mark.parametrize(("page", "example"), [("library", "search"), ("quickstart", "quickstart")])
def test_the_documentation_shows_the_example(page: str, example: str) -> None:
    """Mypy checks the file, and so the block in the documentation."""
    code = (EXAMPLES / f"{example}.py").read_text(encoding="utf-8").partition("\n\n")[2]
    assert block(Path(f"docs/{page}.md").read_text(encoding="utf-8"), "python") == code


@pytest.mark.slow
def test_the_example_prints_what_the_documentation_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = block(Path("docs/library.md").read_text(encoding="utf-8"), "text")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "search.py"))
    output = capsys.readouterr()
    assert shape(output.out)[:8] == shape(printed)[:8]
    assert output.out.splitlines()[-1] == "report.html"
    assert "[4/4] trial 3  " in output.err
    assert {path.name for path in tmp_path.iterdir()} == {".farsearch", "bundle", "front.png", "report.html"}


@pytest.mark.slow
def test_the_quickstart_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one short training in place of six long ones."""
    printed = block(Path("docs/quickstart.md").read_text(encoding="utf-8"), "text").splitlines()
    code = (EXAMPLES / "quickstart.py").read_text(encoding="utf-8")
    for given, short in (("epochs=3", "epochs=0.1"), ("n_trials=6", "n_trials=1")):
        assert given in code
        code = code.replace(given, short)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "quickstart.py", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == (printed[0], printed[-1])
    assert (tmp_path / "bundle" / "train.py").is_file()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code cells run in order, in one namespace."""
    notebook = json.loads((EXAMPLES / "search.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for code in cells:
        exec(compile(code, "search.ipynb", "exec"), namespace)
    assert (tmp_path / "bundle" / "model").is_dir()
    assert (tmp_path / "report.html").is_file()
