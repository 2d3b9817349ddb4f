"""The single file that measures a board, joined from the modules that it needs."""

from __future__ import annotations

import ast
import textwrap
from importlib import resources

from farsearch.records import Engine

__all__ = ["board_script"]

_HOST = (
    "calibration/measure/host", "calibration/measure/memory", "calibration/measure/rounds",
    "calibration/measure/session",
)  # fmt: skip
_PARTS: dict[Engine, tuple[str, ...]] = {
    "torch": (
        *_HOST, "calibration/measure/cases", "calibration/measure/workloads", "calibration/measure/timing",
        "calibration/measure/machine", "runtime/imports", "calibration/measure/torch_memory",
        "calibration/measure/command",
    ),
    "onnx": (
        *_HOST, "far/display", "runtime/program_file", "runtime/onnx_engine/dropout", "runtime/onnx_engine/optimizer",
        "runtime/onnx_engine/buffers", "runtime/onnx_engine/program", "calibration/measure/onnx_timing",
        "calibration/measure/onnx_command",
    ),
}  # fmt: skip
"""Modules by engine, in an order in which each uses only names of those before."""

_NEEDS: dict[Engine, str] = {
    "torch": "torch 1.10 or later", "onnx": "numpy and onnxruntime 1.10 or later",
}  # fmt: skip

_TITLE = '''"""Measure this machine: the time and memory of operations of fine-tuning a BERT-like model.

This file is part of farsearch, and runs alone: it requires Python 3.6 and {needs}.

    python3 calibrate.py --out result.json

writes the measurements; ``farsearch devices import result.json`` on a workstation makes a device profile from them.
Leave the machine idle meanwhile: other programs make its figures too slow.
"""
'''


def board_script(engine: Engine = "torch") -> str:
    """Return the source of the file: the imports of all modules, then their definitions.

    The file for ``onnx`` has the graphs that it measures in it, because a board has nothing to make them with.
    """
    imports: set[str] = set()
    names: set[str] = set()
    definitions = []
    for part in _PARTS[engine]:
        source = resources.files("farsearch").joinpath(f"{part}.py").read_text(encoding="utf-8")
        first, *statements = ast.parse(source).body
        assert isinstance(first, ast.Expr), "a part begins with its docstring"
        header = [s for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
        imports |= {
            f"{prefix}{ast.unparse(name)}" for s in header if (prefix := _prefix(s)) is not None for name in s.names
        }
        after = next(s for s in statements if s not in header and not _is_all(s))
        twice = names & (defined := set(_defined(statements)))
        assert not twice, f"{part} defines {min(twice)}, as a part before it does"
        names |= defined
        definitions.append("".join(source.splitlines(keepends=True)[after.lineno - 1 :]))
    top = "\n".join([_TITLE.format(needs=_NEEDS[engine]), *sorted(imports), ""])
    return "\n\n".join([top, *definitions, _end(engine)])


def _end(engine: Engine) -> str:
    """The last lines: the start of the command line."""
    if engine == "torch":
        return 'if __name__ == "__main__":\n    main()\n'
    # imported here: it needs the extra onnx
    from farsearch.calibration.payload import engine_payload

    lines = textwrap.wrap(engine_payload(), 110)
    text = "\n".join(f'    "{line}"' for line in lines)
    return f'_PAYLOAD = (\n{text}\n)\n\n\nif __name__ == "__main__":\n    main(_PAYLOAD)\n'


def _defined(statements: list[ast.stmt]) -> list[str]:
    """The names that a module binds, without those that it imports."""
    names: list[str] = []
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            names.append(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and not _is_all(statement):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names += [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return names


def _prefix(statement: ast.Import | ast.ImportFrom) -> str | None:
    """The beginning of an import of one name; None for a name of another part."""
    if isinstance(statement, ast.Import):
        return "import "
    return None if statement.level else f"from {statement.module} import "


def _is_all(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"
