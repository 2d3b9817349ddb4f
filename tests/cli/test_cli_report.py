"""``farsearch report``: page and pictures of a real small study, and the page in a browser."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from farsearch.cli import cli
from farsearch.report import make_report
from tests.factories import make_baselines, make_measurement, make_snapshot
from tests.journey import call


def test_report_writes_one_page_and_prints_its_size(finished_study: Path, tmp_path: Path) -> None:
    """Pictures go to the requested folder."""
    page, folder = tmp_path / "tiny.html", tmp_path / "pictures" / "deep"
    done = call(finished_study, "report", "tiny", "--out", page, "--figures", folder)
    assert (done.code, done.err) == (0, "")
    text = page.read_text(encoding="utf-8")
    names = {picture.name for picture in folder.iterdir()}
    assert done.out.splitlines() == [
        f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)",
        f"pictures: {len(names)} in {folder}",
    ]
    assert {"front.png", "frozen.png", "memory.png", "time.png", "hypervolume.png", "curves.png"} <= names
    choices = call(finished_study, "pareto", "--json").json["choices"]
    assert all(f"<td>{choice['trial']}</td>" in text for choice in choices)


def test_the_report_has_a_command_that_resumes_the_study(finished_study: Path, tmp_path: Path) -> None:
    """``run`` can parse it."""
    call(finished_study, "report", "--out", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    command = text.split("To resume or repeat it:</p><pre>")[1].split("</pre>")[0]
    words = shlex.split(command)
    with cli.make_context("farsearch", words[1:]) as parent:
        context = cli.commands["run"].make_context("run", words[2:], parent=parent)
        assert (context.params["study"], context.params["n_trials"]) == ("tiny", 9)


def test_the_default_name_of_the_report_is_that_of_the_study(finished_study: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    done = call(folder, "report")
    assert done.out.startswith("report: report-tiny.html (")
    assert (folder / "report-tiny.html").is_file()


def test_a_page_that_can_not_be_written_is_reported_in_one_line(finished_study: Path, tmp_path: Path) -> None:
    """Also a picture."""
    (tmp_path / "file").write_text("")
    for words in (
        ["--out", tmp_path / "file" / "r.html"],
        ["--out", tmp_path / "r.html", "--figures", tmp_path / "file"],
    ):
        done = call(finished_study, "report", *words)
        assert (done.code, done.err.count("\n")) == (5, 1)
        assert "file" in done.err


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_reports_no_error_on_the_page(tmp_path: Path, width: int) -> None:
    """Chromium logs nothing to its console, not even a request that the page's policy blocks.

    All three views work, nothing is wider than the window, and all complete trials and baselines are drawn.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("Chromium is not installed")
    study = make_snapshot(baselines=make_baselines(), measurements=(make_measurement(0),))
    (tmp_path / "page.html").write_text(
        make_report(study).html.replace("</body>", f"{_PRESS}</body>"), encoding="utf-8"
    )
    # a window has at least 500 pixels, a frame may have fewer
    frame = (
        f'<title>none</title><iframe src="page.html" style="border:0;width:{width}px;height:5000px"></iframe>{_HEAR}'
    )
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    heard = json.loads(done.stdout.split("<title>")[1].split("</title>")[0])
    assert heard == {"points": 7, "views": 3, "overflow": False, "requests": []}


_PRESS = """<script>addEventListener("load", async () => {
  const plot = document.getElementById("front"), views = new Set();
  for (const button of plot.layout.updatemenus[0].buttons) {
    await Plotly.update(plot, ...button.args);
    views.add(plot.layout.xaxis.title.text + plot.layout.yaxis.title.text);
  }
  const points = plot.querySelectorAll(".scatterlayer path.point").length;
  const asked = performance.getEntriesByType("resource").map(entry => entry.name);
  parent.postMessage({points: points, views: views.size, requests: asked.filter(name => !name.startsWith("data:")),
    overflow: document.documentElement.scrollWidth > innerWidth}, "*");
});</script>"""
_HEAR = '<script>addEventListener("message", event => document.title = JSON.stringify(event.data))</script>'
