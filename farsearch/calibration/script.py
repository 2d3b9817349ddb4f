"""The single file that measures a board, joined from the parts of ``farsearch.calibration.measure``."""

from __future__ import annotations

import ast
from importlib import resources

__all__ = ["PARTS", "board_script"]

PARTS = ("cases", "workloads", "timing", "machine", "memory", "command")
"""In an order in which each part uses only names of those before."""

_TITLE = '''"""Measure this machine: the time and memory of operations of fine-tuning a BERT-like model.

This file is part of farsearch, and runs alone: it requires Python 3.6 and torch 1.10 or later.

    python3 calibrate.py --out result.json

writes the measurements; ``farsearch devices import result.json`` on a workstation makes a device profile from them.
Leave the machine idle meanwhile: other programs make its figures too slow.
"""
'''


def board_script() -> str:
    """Return the source of the file: the imports of all parts, then their definitions."""
    folder = resources.files("farsearch.calibration.measure")
    imports: set[str] = set()
    definitions = []
    for part in PARTS:
        source = (folder / f"{part}.py").read_text(encoding="utf-8")
        first, *statements = ast.parse(source).body
        assert isinstance(first, ast.Expr), "a part begins with its docstring"
        header = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
        imports |= {
            f"{prefix}{ast.unparse(name)}" for s in header if (prefix := _prefix(s)) is not None for name in s.names
        }
        after = next(s for s in statements if s not in header and not _is_all(s))
        definitions.append("".join(source.splitlines(keepends=True)[after.lineno - 1 :]))
    top = "\n".join([_TITLE, *sorted(imports), ""])
    return "\n\n".join([top, *definitions, 'if __name__ == "__main__":\n    main()\n'])


def _prefix(statement: ast.Import | ast.ImportFrom) -> str | None:
    """The beginning of an import of one name; None for a name of another part."""
    if isinstance(statement, ast.Import):
        return "import "
    return None if statement.level else f"from {statement.module} import "


def _is_all(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"
