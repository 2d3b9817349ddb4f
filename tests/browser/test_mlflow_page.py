"""MLflow's own pages of a study in a real browser, as ``farsearch ui`` and a plain ``mlflow ui`` open them.

The tests also take the screenshots for the documentation, of the study that is made for it:

    FARSEARCH_BROWSER_STUDY=FOLDER FARSEARCH_SCREENSHOTS=docs/pictures pytest tests/browser
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from farsearch.formatting import human_time
from farsearch.tracking import UI_ENVIRONMENT
from farsearch.tracking.views import saved_view_id
from tests.journey import SPACE, call, start, until
from tests.services import free_port

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

_PATIENCE_MS = 90_000
_FRONT_FILTER = "tags.`farsearch.on_front` = 'true'"
"""As the README has it."""


@dataclass(frozen=True)
class Shown:
    """A study in MLflow's interface.

    Attributes:
        address: printed by ``farsearch ui``.
        root: prefix of every address.
        trials: printed by ``farsearch trials --json``.
    """

    study: str
    address: str
    root: str
    trials: list[dict[str, Any]]

    def names(self, front: bool) -> set[str]:
        """Return names of the runs of all trials, or of those on the front."""
        return {_name_of(trial) for trial in self.trials if trial["on_front"] or not front}

    @property
    def runs(self) -> str:
        """Address of the table of runs, without search and order."""
        return re.sub(r"\?.*", "?workflowType=machine_learning", self.address)

    @property
    def view(self) -> str:
        """Address of the saved view of all trials."""
        return f"{self.runs}&viewStateShareKey={saved_view_id(self.study, 'trials')}"


def _figures_of(trial: dict[str, Any]) -> str:
    """Return ``82.1 % · 1.03 GiB · 23 s`` for a trial of an accuracy."""
    metric = "stopped" if trial["state"] == "pruned" else f"{100 * trial['metric']:.1f} %"
    return f"{metric} · {trial['peak_memory_mib'] / 1024:.2f} GiB · {human_time(trial['wall_time_s'])}"


def _name_of(trial: dict[str, Any]) -> str:
    return f"{_figures_of(trial)} · trial {trial['number']:03d}{' · front' * trial['on_front']}"


@pytest.fixture(scope="session")
def seen_study(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Working directory with a small study of the embedded task, or with the one in the environment."""
    given = os.environ.get("FARSEARCH_BROWSER_STUDY")
    if given is not None:
        return Path(given).absolute()
    folder = tmp_path_factory.mktemp("seen")
    (folder / "tiny.yaml").write_text(SPACE, encoding="utf-8")
    done = call(folder, "run", "--device", "jetson-nano", "--task", "reviews", "--model", tiny_bert, "--study", "seen",
                "--space", "tiny.yaml", "--train-samples", 128, "--batch-size", 16, "--max-length", 16,
                "--device-samples", 100_000, "--n-trials", 6)  # fmt: skip
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="session")
def shown(seen_study: Path) -> Iterator[Shown]:
    """A running ``farsearch ui``, which is ended by Ctrl-C."""
    read = call(seen_study, "trials", "--json").json
    with start(seen_study, "ui", "--port", free_port(), "--no-browser") as child:
        try:
            assert child.stdout is not None
            address = re.search(
                r"^MLflow: ((http://127\.0\.0\.1:\d+/)\S+)  \(Ctrl-C ends it\)", child.stdout.readline()
            )
            assert address is not None
            yield Shown(read["study"], address.group(1), address.group(2), read["trials"])
        finally:
            os.killpg(child.pid, signal.SIGINT)
            child.communicate(timeout=60)
    assert child.returncode == 130


@pytest.fixture(scope="session")
def plain(shown: Shown, seen_study: Path) -> Iterator[str]:
    """Address of a plain ``mlflow ui`` in the study's working directory, after the mirror is up to date."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port)]
    server = subprocess.Popen(command, cwd=seen_study, env={**os.environ, **UI_ENVIRONMENT}, start_new_session=True)
    address = f"http://127.0.0.1:{port}/"
    try:
        until(lambda: _answers(address))
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page that may not request other hosts, without MLflow's assistant, which opens at the first visit."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(_PATIENCE_MS)
    context.add_init_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
    page = context.new_page()
    foreign: list[str] = []
    page.on(
        "request",
        lambda r: None if r.url.startswith(("http://127.0.0.1:", "blob:", "data:")) else foreign.append(r.url),
    )
    yield page
    context.close()
    assert foreign == []


@pytest.fixture
def screenshot(page: Page) -> Callable[[str], None]:
    """Take a screenshot if the environment has a folder for it."""

    def write(name: str) -> None:
        folder = os.environ.get("FARSEARCH_SCREENSHOTS")
        if folder is not None:
            page.wait_for_timeout(2000)  # animation of the charts
            path = page.get_by_text(re.compile("^Path:"))  # a path of this machine
            page.screenshot(path=Path(folder) / f"mlflow-{name}.png", mask=[path], mask_color="white")

    return write


def _names(page: Page) -> set[str]:
    """Return names of the runs in the table."""
    return {text.strip() for text in page.locator(".ag-row a[href*='/runs/']").all_inner_texts()}


def _wait(page: Page, what: Callable[[], bool], told: Callable[[], object]) -> None:
    """Wait until the condition ``what`` is true; ``told`` explains a timeout."""
    deadline = time.monotonic() + _PATIENCE_MS / 1000
    while not what():
        assert time.monotonic() < deadline, told()
        page.wait_for_timeout(200)


def _wait_for_names(page: Page, wanted: set[str]) -> None:
    _wait(page, lambda: _names(page) == wanted, lambda: f"{_names(page)}, not {wanted}")


_HIDDEN = """(link, length) => {
  const text = document.createTreeWalker(link, NodeFilter.SHOW_TEXT).nextNode(), part = document.createRange();
  part.setStart(text, 0);
  part.setEnd(text, length);
  const cell = link.closest(".ag-cell").getBoundingClientRect(), clip = link.getBoundingClientRect();
  return part.getBoundingClientRect().right - Math.min(cell.right, clip.right);
}"""
"""Pixels by which the first characters of a link in the table are cut off; at most 0 where they are readable."""


def _assert_readable(page: Page, trials: list[dict[str, Any]]) -> None:
    """Check that metric, memory and time of every trial can be read in the table."""
    for trial in trials:
        figures = _figures_of(trial)
        link = page.locator(".ag-row a[href*='/runs/']", has_text=_name_of(trial)).first
        assert link.is_visible()
        assert link.evaluate(_HIDDEN, len(figures)) <= 0, figures


def _open_run(page: Page, shown: Shown, artifact: str = "") -> None:
    """Open the study's own run by its link in the table, then one of its artifacts."""
    page.goto(shown.runs)
    link = page.locator(".ag-row a[href*='/runs/']", has_text=re.compile(f"^{re.escape(shown.study)}$"))
    target = f"{shown.root}{link.get_attribute('href')}"
    page.goto(f"{target}{artifact and f'/artifacts/{artifact}'}?workflowType=machine_learning")
    page.reload()  # a change of the fragment does not load a page
    page.get_by_role("heading", name=shown.study).first.wait_for()


def test_the_printed_address_shows_all_trials(page: Page, shown: Shown, screenshot: Callable[[str], None]) -> None:
    """The front first, their figures readable, and no banner."""
    page.goto(shown.address)
    _wait_for_names(page, shown.names(front=False))
    assert 0 < len(shown.names(front=True)) < len(shown.trials)
    _assert_readable(page, shown.trials)
    top = page.locator(".ag-row[row-index='0'] a[href*='/runs/']").first.inner_text()
    assert top.strip() in shown.names(front=True)
    assert page.get_by_text("shared view").count() == 0
    screenshot("trials")


def test_a_click_on_the_experiment_shows_every_trial(
    page: Page, shown: Shown, plain: str, screenshot: Callable[[str], None]
) -> None:
    """In a plain ``mlflow ui``, in its view for model training: metric, memory and time are readable."""
    page.goto(f"{plain}#/experiments")
    page.get_by_text("Model training", exact=True).click()  # MLflow remembers it in the browser
    page.get_by_role("link", name=shown.study, exact=True).first.click()
    _wait_for_names(page, {shown.study} | shown.names(front=False))
    _assert_readable(page, shown.trials)
    screenshot("plain")


def test_a_new_browser_has_a_link_to_all_trials(page: Page, shown: Shown, plain: str) -> None:
    """In a plain ``mlflow ui`` a new browser is in the view for agents, in which an experiment opens without runs."""
    page.goto(f"{plain}#/experiments")
    page.get_by_role("link", name=shown.study, exact=True).first.click()
    # not by its role, which MLflow's first hint to a new user hides
    address = page.locator("a", has_text="All trials").first.get_attribute("href")
    assert address is not None
    page.goto(f"{plain}{address[address.index('#') :]}")
    page.reload()  # a change of the fragment does not load a page
    _wait_for_names(page, shown.names(front=False))
    _assert_readable(page, shown.trials)


def test_the_saved_view_has_the_objectives_as_columns(page: Page, shown: Shown) -> None:
    """In units that people read."""
    page.goto(shown.view)
    _wait_for_names(page, shown.names(front=False))
    for column in ("accuracy_percent", "memory_gib", "time_s"):
        assert page.get_by_test_id(f"sort-header-{column}").count() or page.get_by_text(column).count()


def test_the_filter_of_the_readme_selects_the_front(page: Page, shown: Shown) -> None:
    """Among the child runs."""
    page.goto(shown.runs)
    _wait_for_names(page, {shown.study} | shown.names(front=False))
    box = page.get_by_test_id("search-box")
    box.click()
    box.press_sequentially(_FRONT_FILTER)
    box.press("Escape")  # closes the suggestions
    box.press("Enter")
    page.wait_for_url(re.compile(r"searchFilter=tags"))
    _wait_for_names(page, shown.names(front=True))


def test_the_charts_show_the_objectives(page: Page, shown: Shown, screenshot: Callable[[str], None]) -> None:
    """Both scatter plots of the saved view."""
    page.goto(shown.view)
    _wait_for_names(page, shown.names(front=False))
    page.locator("label:has(input[value='CHART'])").first.click()
    plots = page.locator(".js-plotly-plot")
    _wait(page, lambda: plots.count() >= 2, lambda: page.inner_text("body"))
    assert page.get_by_text("Objectives").first.is_visible()
    screenshot("charts")


def test_the_run_of_a_study_shows_its_front(page: Page, shown: Shown, screenshot: Callable[[str], None]) -> None:
    _open_run(page, shown, "front.png")
    pictures = page.locator("img[src^='blob:']")
    pictures.first.wait_for()
    assert max(pictures.evaluate_all("all => all.map(one => one.naturalWidth)")) > 600
    screenshot("picture")


def test_the_report_opens_among_the_artifacts(page: Page, shown: Shown, screenshot: Callable[[str], None]) -> None:
    _open_run(page, shown, "report.html")
    page.locator("iframe").first.wait_for()
    body: Locator = page.frame_locator("iframe").first.locator("body")
    _wait(page, lambda: "How it was made" in body.inner_text(), body.inner_text)
    text = body.inner_text().lower()
    assert "memory and time are estimates" in text
    assert "jetson" in text or "raspberry" in text
    screenshot("report")
