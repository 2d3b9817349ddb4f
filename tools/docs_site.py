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

SOURCES = "source/"
"""Folder of the pages of source files, whose text is left as it is."""

_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")
_LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
_NODE = re.compile(r'^ *\w+\["([^"]+)"\]$', re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw the layers here: MkDocs would load a program for it from another host."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    fences["custom_fences"] = [{"name": "mermaid", "class": "layers", "format": _layers}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and what the pages link to."""
    pages = {"reference/commands.md": command_reference(cli, "farsearch"), "reference/api.md": api_reference()}
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        pages[DOCUMENTS[name]] = _LINK.sub(lambda match: posixpath.relpath(match[1], "docs"), text)
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for path in sorted({path for file in files.documentation_pages() for path in _outside(file)}):
        for name, text in _source_pages(path).items():
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, content=text))
        if path.is_file() and path.suffix not in _LANGUAGES:
            files.append(File.generated(config, _page_of(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links that lead out of the docs."""
    name = page.file.src_uri
    if name.startswith(SOURCES):
        return markdown

    def inside(match: re.Match[str]) -> str:
        path = _target(name, match[1])
        return match[1] if path is None else posixpath.relpath(_page_of(path), posixpath.dirname(name) or ".")

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
        lines += [f"::: farsearch.{name}"]
        if name == "SearchSpec":
            lines += ["    options:", "      members: false", "      show_signature: false", "", *_settings()]
        lines += [""]
    lines += ["::: farsearch.select.Intent", "", "::: farsearch.errors", ""]
    return "\n".join(lines)


def _settings() -> list[str]:
    """Return the list of a search's settings."""
    rows = []
    for field in dataclasses.fields(SearchSpec):
        made: Any = field.default_factory
        default: Any = field.default if made is dataclasses.MISSING else made()
        shown = "required" if default is dataclasses.MISSING else f"default: `{default!r}`"
        rows.append(f"- **`{field.name}`** (`{field.type}`, {shown}) – {escaped(field.metadata['help'])}")
    return rows


def _target(page: str, link: str) -> Path | None:
    """Return the path that a link of a page leads to; None if it is in the docs."""
    name = posixpath.normpath(posixpath.join(posixpath.dirname(f"docs/{page}"), link))
    return None if name.startswith("docs/") else ROOT / name


def _outside(file: File) -> list[Path]:
    """Return the paths outside of the docs that a page links to, but for the documents."""
    if file.src_uri.startswith(SOURCES):
        return []
    paths = [_target(file.src_uri, link) for link in _LINK.findall(file.content_string)]
    return [path for path in paths if path is not None and _page_of(path) not in DOCUMENTS.values()]


def _page_of(path: Path) -> str:
    """Return the site's source for a path of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name in DOCUMENTS:
        return DOCUMENTS[name]
    if path.is_dir():
        return f"{SOURCES}{name}/index.md"
    return f"{SOURCES}{name}.md" if path.suffix in _LANGUAGES else f"{SOURCES}{name}"


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


def _layers(source: str, *_arguments: Any, **_options: Any) -> str:
    """Return a chain of nodes of a Mermaid flowchart as a list."""
    items = "".join(f"<li>{html.escape(label)}</li>" for label in _NODE.findall(source))
    return f'<ol class="layers">{items}</ol>'
