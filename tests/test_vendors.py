from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import farsearch

PACKAGE = Path(farsearch.__file__).parent


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(trees: dict[Path, ast.Module]) -> set[str]:
    """Return private attributes that farsearch defines: methods, class attributes, and assignments to ``self``."""
    names: set[str] = set()
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.ClassDef):
                fields = [target for line in node.body for target in getattr(line, "targets", [])]
                fields += [line.target for line in node.body if isinstance(line, ast.AnnAssign)]
                names.update(target.id for target in fields if isinstance(target, ast.Name))
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return names


def private_uses(tree: ast.Module, vendor: str, own: set[str]) -> Iterator[str]:
    """Yield private modules and names of a vendor, and private attributes of objects that are not farsearch's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == vendor:
            path = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from (f"import of {part}" for part in path if is_private(part))
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == vendor]
            yield from (f"import of {name}" for name in names if any(map(is_private, name.split("."))))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            of_self = ast.unparse(node.value) in ("self", "cls", "super()")
            if not (of_self and node.attr in own):
                yield f"{ast.unparse(node)} in line {node.lineno}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)):
                yield f"{ast.unparse(node)} in line {node.lineno}"


@pytest.mark.parametrize(
    ("vendor", "home", "adapters"),
    [("optuna", "study", ["optuna_adapter.py"]), ("mlflow", "tracking", ["database.py", "fetch.py"])],
)
def test_private_names_of_a_vendor_are_used_only_in_its_adapters(vendor: str, home: str, adapters: list[str]) -> None:
    trees = {path: ast.parse(path.read_text()) for path in (PACKAGE / home).glob("*.py")}
    own = own_names({path: tree for path, tree in trees.items() if path.name not in adapters})
    uses = {path.name: list(private_uses(tree, vendor, own)) for path, tree in trees.items()}
    assert all(uses.pop(adapter) for adapter in adapters), "an adapter that uses no private name is none"
    assert {name: found for name, found in uses.items() if found} == {}


def test_no_other_package_uses_private_attributes_of_optuna() -> None:
    adapter = ast.parse((PACKAGE / "study" / "optuna_adapter.py").read_text())
    private = {node.attr for node in ast.walk(adapter) if isinstance(node, ast.Attribute) and is_private(node.attr)}
    assert {"_storage", "_trial_id", "_study_id"} <= private
    uses = {
        path.relative_to(PACKAGE).as_posix(): ast.unparse(node)
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "study"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in private and ast.unparse(node.value) != "self"
    }
    assert uses == {}
