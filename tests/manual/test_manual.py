"""The manual of ``make docs``: complete references, links that lead somewhere, and nothing from other hosts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml

import farsearch
from farsearch.cli import cli

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]


class _Page(HTMLParser):
    """Links, loaded files and anchors of a page.

    Attributes:
        links: addresses in ``href`` of links, which a reader may follow.
        loaded: addresses of scripts, styles, icons and pictures, which the page needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev") and "href" in given:
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])

    def handle_data(self, data: str) -> None:
        self.text += data


@cache
def read(path: Path) -> _Page:
    """Parse a page."""
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built manual."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    folder = tmp_path_factory.mktemp("manual") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def pages(site: Path) -> list[Path]:
    """Return all pages but that of missing ones, whose links begin at a server's root."""
    return sorted(path for path in site.rglob("*.html") if path.name != "404.html")


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{path} {name}")


def _listed(entries: Any) -> Iterator[str]:
    """Yield the pages of a navigation."""
    if isinstance(entries, str):
        yield entries
    else:
        for entry in entries.values() if isinstance(entries, dict) else entries:
            yield from _listed(entry)


def test_every_page_is_in_the_navigation() -> None:
    listed = set(_listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= listed


@pytest.mark.slow
def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = read(site / "reference/commands.html")
    for path, command in _commands(cli, "farsearch"):
        assert path.replace(" ", "-") in page.anchors
        shown = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        assert [name for p in shown for name in p.opts if name not in page.text] == []


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = read(site / "reference/api.html")
    assert {f"farsearch.{name}" for name in farsearch.__all__} <= page.anchors
    for name in farsearch.__all__:
        first = str(getattr(farsearch, name).__doc__).partition(".")[0].replace("``", "")
        assert " ".join(first.split()) in " ".join(page.text.split())


@pytest.mark.slow
def test_no_link_is_dead(site: Path) -> None:
    dead = []
    found = 0
    for path in pages(site):
        page = read(path)
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            found += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            exists = target.is_file()
            if not exists or (target.suffix == ".html" and unquote(parts.fragment) not in read(target).anchors):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert found > 1000
    assert dead == []


@pytest.mark.slow
def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    foreign = [address for path in pages(site) for address in read(path).loaded if urlsplit(address).netloc]
    assert foreign == []
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*", style.read_text(encoding="utf-8")) == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_pages_fit_their_window(site: Path, browser: Browser, width: int) -> None:
    """No page scrolls sideways or requests another host, and every picture is shown."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    wide = []
    for path in pages(site):
        page.goto(path.as_uri())
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(str(path.relative_to(site)))
        broken = "[...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
        assert page.evaluate(broken) == []
    context.close()
    assert wide == []
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []
