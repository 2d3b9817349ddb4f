"""Hooks of MkDocs: pages that are generated from the code, and links from the docs to the rest of the repository.

The site must not need a repository's address, so what the docs link to outside of their folder becomes part of it:
documents and source files as pages, everything else as a file.
"""

from __future__ import annotations

import dataclasses
import html
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import farsearch
from farsearch.cli import cli
from farsearch.search_spec import SearchSpec
from tools.command_reference import command_reference, escaped

__all__ = ["on_config", "on_files", "on_page_markdown"]

ROOT = Path(__file__).parents[1]
DOCUMENTS = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
"""Documents beside the docs, with their page; the README's is the manual's first one."""

_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")
_LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
_NODE = re.compile(r'^ *\w+\["([^"]+)"\]$', re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw the layers here: MkDocs would load a program for it from another host."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "mermaid", "class": "layers", "format": _layers}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and what the docs link to."""
    pages = {"reference/commands.md": command_reference(cli, "farsearch"), "reference/api.md": api_reference()}
    for name, page in DOCUMENTS.items():
        if files.get_file_from_path(page) is None:
            pages[page] = _rebased((ROOT / name).read_text(encoding="utf-8"), name)
    for path in sorted({path for file in files.documentation_pages() for path in _outside(file)}):
        pages.update(_source_pages(path))
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for path in sorted({path for file in files.documentation_pages() for path in _outside(file)}):
        if path.is_file() and path.suffix not in _LANGUAGES:
            name = f"source/{path.relative_to(ROOT).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links that lead out of the docs."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def inside(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[1]))
        return (
            match[1]
            if target.startswith("docs/")
            else posixpath.relpath(
                _page_of(ROOT / target), page.file.src_uri[:0] or posixpath.dirname(page.file.src_uri) or "."
            )
        )

    return _LINK.sub(inside, markdown)


def api_reference() -> str:
    """Return the page of the public names, which mkdocstrings fills with their docstrings."""
    lines = [
        "# Library",
        "",
        "The public names of `farsearch`, from their docstrings. [The library](../library.md) explains their use.",
        "",
    ]
    for name in farsearch.__all__:
        lines += [f"::: farsearch.{name}", *_OPTIONS.get(name, ()), ""]
        if name == "SearchSpec":
            lines += [*_settings(), ""]
    lines += ["## Errors", "", "::: farsearch.errors", "    options:", "      show_root_heading: false", ""]
    return "\n".join(lines)


_OPTIONS = {
    "SearchSpec": ("    options:", "      members: false", "      show_signature: false"),
}
"""Its settings are a list, with their texts."""


def _settings() -> list[str]:
    """Return the list of a search's settings."""
    rows = []
    for field in dataclasses.fields(SearchSpec):
        made: Any = field.default_factory
        default: Any = field.default if made is dataclasses.MISSING else made()
        shown = "required" if default is dataclasses.MISSING else f"default: `{default!r}`"
        rows.append(f"- **`{field.name}`** (`{field.type}`, {shown}) – {escaped(field.metadata['help'])}")
    return rows


def _outside(file: File) -> list[Path]:
    """Return the paths outside of the docs that a page links to, but for the documents."""
    folder = posixpath.dirname(f"docs/{file.src_uri}")
    targets = [posixpath.normpath(posixpath.join(folder, link)) for link in _LINK.findall(file.content_string)]
    outside = [target for target in targets if not target.startswith("docs/") and target not in DOCUMENTS]
    return [ROOT / target for target in outside]


def _page_of(path: Path) -> str:
    """Return the site's source for a path of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name in DOCUMENTS:
        return DOCUMENTS[name]
    if path.is_dir():
        return f"source/{name}/index.md"
    return f"source/{name}.md" if path.suffix in _LANGUAGES else f"source/{name}"


def _source_pages(path: Path) -> dict[str, str]:
    """Return the pages of a source file, or of a folder with its source files."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        held = sorted(file for file in path.iterdir() if file.suffix in _LANGUAGES)
        index = "\n".join([f"# {name}/", "", *(f"- [{file.name}]({file.name}.md)" for file in held), ""])
        return {_page_of(path): index} | {key: text for file in held for key, text in _source_pages(file).items()}
    if path.suffix not in _LANGUAGES:
        return {}
    source = path.read_text(encoding="utf-8").rstrip("\n")
    return {_page_of(path): f"# {name}\n\n````{_LANGUAGES[path.suffix]}\n{source}\n````\n"}


def _rebased(text: str, name: str) -> str:
    """Return a document of the repository as a page of the docs."""
    return _LINK.sub(
        lambda match: match[1].removeprefix("docs/") if match[1].startswith("docs/") else f"../{match[1]}", text
    )


def _layers(source: str, *_arguments: Any, **_options: Any) -> str:
    """Return a chain of nodes of a Mermaid flowchart as a list."""
    items = "".join(f"<li>{html.escape(label)}</li>" for label in _NODE.findall(source))
    return f'<ol class="layers">{items}</ol>'
