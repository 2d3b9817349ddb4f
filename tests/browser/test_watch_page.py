"""The page of ``farsearch watch`` in a real browser, while a search runs."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.journey import SPACE, call, start, until
from tests.services import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

_PATIENCE_MS = 180_000


@contextmanager
def _watch(folder: Path) -> Iterator[str]:
    """Run ``farsearch watch``, end it by Ctrl-C, and yield the page's address."""
    with start(folder, "watch", "--port", free_port(), "--no-browser") as child:
        assert child.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/", child.stdout.readline())
        assert address is not None
        yield address.group()
        os.killpg(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.strip() == "interrupted"


@contextmanager
def _opened(browser: Browser, address: str) -> Iterator[Page]:
    """Open a page, which may request nothing from other hosts and log no error."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(_PATIENCE_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else problems.append(r.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    yield page
    context.close()
    assert problems == []


def test_watch_follows_a_search(browser: Browser, tmp_path: Path, tiny_bert: Path) -> None:
    """From what is trained to the end of the search, without moving what the reader looks at."""
    (tmp_path / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    with start(tmp_path, "run", "--device", "jetson-nano", "--task", "reviews", "--model", tiny_bert, "--study", "seen",
               "--space", "tiny.yaml", "--epochs", 60, "--train-samples", 128, "--batch-size", 16, "--max-length", 16,
               "--n-trials", 3) as search:  # fmt: skip
        until(lambda: "seen" in call(tmp_path, "studies", "list").out)
        with _watch(tmp_path) as address, _opened(browser, address) as page:
            progress = page.locator("#progress")
            progress.get_by_text(re.compile(r"trial \d")).first.wait_for()
            assert progress.get_by_text(re.compile("priming|preparing|training|evaluating")).first.is_visible()
            page.locator("#report #front .main-svg").first.wait_for()  # after the first trial
            page.evaluate("scrollTo(0, 600)")
            progress.get_by_text("The search is finished: 3 of 3 trials are done").wait_for()
            page.locator("#report", has_text="3 of 3 trials").wait_for()
            page.wait_for_timeout(500)
            assert page.evaluate("scrollY") > 400  # what is above may grow
            assert page.locator("#report .main-svg").first.is_visible()
        search.communicate(timeout=600)
    assert search.returncode == 0
