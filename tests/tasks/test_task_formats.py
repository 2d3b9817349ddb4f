"""Realistic files of every form: each loads without options, or with those that its error message suggests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farsearch.errors import DataError
from farsearch.runtime.rows import read_rows
from farsearch.runtime.task import Task
from tests.tasks.forms import CASES, Case, loaded, made

DOCS = Path(__file__).parents[2] / "docs" / "own-data.md"


def test_the_documentation_lists_every_form() -> None:
    """One line each; forms that a board can read are marked."""
    text = DOCS.read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    listed = {cells[0].replace("`", ""): cells[-1] == "yes" for cells in rows if cells[-1] in ("yes", "no")}
    assert listed == {form.split(" / ")[0]: case.board for form, case in CASES.items()}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_every_form_is_read(tmp_path: Path, case: Case) -> None:
    """Options are added one by one, as the error messages suggest; the inferred schema is reported."""
    path, told, options = made(case, tmp_path), list[str](), list(case.options if not case.asked else ())
    for at in range(0, len(case.options) if case.asked else 0, 2):
        option, value = case.options[at : at + 2]
        if options.count(option):  # one message suggests all label columns
            options += [option, value]
            continue
        with pytest.raises(DataError) as caught:
            loaded(path, options, told.append)
        assert option in str(caught.value)
        assert value in str(caught.value)
        assert "\n" not in str(caught.value)
        options += [option, value]
    data = loaded(path, options, told.append)
    assert (data.spec.kind, data.spec.labels) == (case.kind, case.labels)
    assert case.first in {*data.train.texts, *data.dev.texts}
    assert len(data.train) + len(data.dev) == 40
    assert case.noted in "\n".join(told)
    if case.board:
        on_board: list[str] = []
        task = Task.from_dict(json.loads(json.dumps(data.spec.task.to_dict())))
        rows = read_rows(str(path), task, report=on_board.append)
        assert case.noted in "\n".join(on_board)
        parts = (data.train, data.dev)
        found = sorted(row for part in parts for row in zip(part.texts, part.answers, strict=True))
        assert sorted(zip(rows.texts, rows.answers, strict=True)) == found
