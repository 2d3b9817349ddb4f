"""Find and strictly read the YAML files of search_spaces/ and of users."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from farsearch.errors import SpaceError
from farsearch.far.display import PATH, shown, shown_text
from farsearch.runtime.near_names import did_you_mean
from farsearch.runtime.records import json_reason

__all__ = ["SIZES", "list_spaces", "read_yaml", "retired_text", "shipped_text", "space_text", "yaml_text"]

SIZES = "sizes"
"""The file of search_spaces/ that is not a space: defaults by model size."""


_MOST_CHARACTERS = 1_000_000


class _Loader(yaml.SafeLoader):
    """Safe YAML that rejects duplicate keys, and reads ``1e-5`` as a number.

    It has no merge keys (``<<``), which can expand aliases to more entries than fit into memory.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not read; write the entries out", key.start_mark
                )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {shown(key)} is given twice", node.value[i][0].start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(where: str, text: str) -> Any:
    """Parse YAML. ``where`` names the text in messages.

    Raises:
        SpaceError: for invalid YAML, naming the line.
    """
    if len(text) > _MOST_CHARACTERS:
        raise SpaceError(f"{where} has {len(text):,} characters; a space has at most {_MOST_CHARACTERS:,}")
    try:
        return yaml.load(text, Loader=_Loader)
    except (ValueError, OverflowError, RecursionError) as error:  # a number that is too large, an invalid date
        raise SpaceError(f"{where}: no valid YAML: {json_reason(error)}; correct it") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" line {mark.line + 1}"
        reason = shown_text(" ".join(str(getattr(error, "problem", None) or error).split()), 160)
        raise SpaceError(f"{where}{line}: no valid YAML: {reason}; correct that line") from error


def yaml_text(data: Any) -> str:
    """Return ``data`` as YAML, in its own order."""
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)


def _folder() -> Path:
    """Return the folder of the shipped files: inside the installed package, next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def list_spaces() -> list[str]:
    """Return the names of the shipped spaces."""
    return sorted(path.stem for path in _folder().glob("*.yaml") if path.stem != SIZES)


def shipped_text(name: str) -> str:
    """Return the text of a shipped file by name."""
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def retired_text(name: str) -> str | None:
    """Return the text of a space as it was shipped before, for the studies that were begun with it; None if unknown."""
    path = _folder() / "retired" / f"{name}.yaml"
    # the name is a user's
    return path.read_text(encoding="utf-8") if name.isalpha() and path.is_file() else None


def space_text(name: str) -> str:
    """Return the YAML of a shipped or retired space by name, or of a user's space by a path that ends in .yaml.

    Raises:
        SpaceError: for an unknown name or an unreadable file.
    """
    if name in list_spaces():
        return shipped_text(name)
    if (retired := retired_text(name)) is not None:
        return retired
    if not name.endswith((".yaml", ".yml")):
        hint = did_you_mean(name, list_spaces())
        raise SpaceError(
            f"the space {shown(name, PATH)} is unknown; known are {', '.join(list_spaces())}, or pass a "
            f"path to a .yaml{hint and '; ' + hint}"
        )
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise SpaceError(
            f"the space file {shown(name, PATH)} can't be read: {error.strerror}; check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise SpaceError(f"the space file {shown(name, PATH)} is no UTF-8 text; save it as UTF-8") from error
