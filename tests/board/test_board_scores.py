"""Answer matching against the official script, of which transformers 4.18 has a copy."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from farsearch.runtime.scores import evidence, score
from tests.board.test_board import PYTHON, copy_code

pytestmark = pytest.mark.board

OFFICIAL = """
import json, sys
from types import SimpleNamespace
from transformers.data.metrics.squad_metrics import squad_evaluate
from board.runtime.scores import evidence, score

rows = json.load(sys.stdin)
examples = [
    SimpleNamespace(qas_id=i, answers=[{"text": text} for text in golds]) for i, (_, golds) in enumerate(rows)
]
official = squad_evaluate(examples, {i: said for i, (said, _) in enumerate(rows)}, None)
ours = evidence("squad", [said for said, _ in rows], [[(text, 0) for text in golds] for _, golds in rows])
print(json.dumps([official["exact"], official["f1"], ours, score("squad", ours).value]))
"""
WORDS = (
    "the",
    "The",
    "a",
    "an",
    "Cat",
    "cat",
    "dog's",
    "dogs",
    "New-York",
    "new",
    "york",
    "1,000",
    "1000",
    "–",
    "été",
    "%",
)


@pytest.fixture(scope="module")
def board() -> Path:
    """The board's Python."""
    if not PYTHON.is_file():
        pytest.skip(f"there is no {PYTHON}; make test-board makes it")
    return PYTHON


def test_answers_are_matched_as_by_the_official_script(board: Path, tmp_path: Path) -> None:
    """On 400 random rows, some without an answer; both Pythons compute the same evidence."""
    draw = random.Random(0)

    def text(most: int) -> str:
        return draw.choice((" ", "  ", ", ")).join(draw.choices(WORDS, k=draw.randint(0, most)))

    rows = [[text(4), [text(3) for _ in range(draw.randint(0, 3))]] for _ in range(400)]
    copy_code(tmp_path / "board")
    code = "import sys; sys.path.insert(0, '.')" + OFFICIAL
    done = subprocess.run(
        [board, "-I", "-c", code], cwd=tmp_path, input=json.dumps(rows), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    exact, f1, there, value = json.loads(done.stdout)
    here = evidence("squad", [said for said, _ in rows], [[(gold, 0) for gold in golds] for _, golds in rows])
    assert there == [list(row) for row in here]
    found = score("squad", here)
    assert value == found.value
    assert found.parts == pytest.approx({"exact_match": exact / 100, "f1": f1 / 100})
