"""``farsearch report``: the page and the pictures of a real small study, and how it opens in a browser."""

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


def test_the_report_is_one_file_that_is_named_with_its_size(finished_study: Path, tmp_path: Path) -> None:
    """The page lies where it is asked for, its pictures in their folder, and stdout says so."""
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
    trials = call(finished_study, "trials", "--json").json["trials"]
    front = [trial["number"] for trial in trials if trial["on_front"]]
    assert all(f"<td>{number}</td>" in text for number in front)


def test_the_report_holds_the_command_that_goes_on(finished_study: Path, tmp_path: Path) -> None:
    """The command on the page is one that ``run`` takes, and it asks for this study."""
    call(finished_study, "report", "--out", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    command = text.split("To resume or repeat it:</p><pre>")[1].split("</pre>")[0]
    words = shlex.split(command)
    with cli.make_context("farsearch", words[1:]) as parent:
        context = cli.commands["run"].make_context("run", words[2:], parent=parent)
        assert (context.params["study"], context.params["n_trials"]) == ("tiny", 9)


def test_the_report_goes_into_the_working_directory(finished_study: Path, tmp_path: Path) -> None:
    """Without --out it is named after the study."""
    folder = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    done = call(folder, "report")
    assert done.out.startswith("report: report-tiny.html (")
    assert (folder / "report-tiny.html").is_file()


def test_a_page_that_can_t_be_written_is_one_line(finished_study: Path, tmp_path: Path) -> None:
    """A file where a folder should be is told by name, for the page and for the pictures."""
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
def test_a_browser_opens_it_without_a_complaint(tmp_path: Path, width: int) -> None:
    """Chromium has nothing to say on its console, not even of a request that the page's policy refused.

    All three views are pressed, nothing is wider than the window, and all complete trials and baselines are drawn.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("Chromium is not installed")
    study = make_snapshot(baselines=make_baselines(), measurements=(make_measurement(0),))
    (tmp_path / "page.html").write_text(
        make_report(study).html.replace("</body>", f"{_PRESS}</body>"), encoding="utf-8"
    )
    # a window is never narrower than 500 pixels, a frame is
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
