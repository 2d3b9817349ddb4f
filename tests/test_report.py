"""Pictures and page of a report: contents, independence of the network, and degenerate studies."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from farsearch.records import Baseline
from farsearch.report import front_figure, make_report, save_front_png
from farsearch.report.interactive import _views
from farsearch.report.points import points_of
from tests.factories import changed, make_baselines, make_measurement, make_settings, make_snapshot, make_trial


def _texts(figure: Figure) -> list[str]:
    """Return the texts inside the axes."""
    return [text.get_text() for text in figure.axes[0].texts]


def test_figure_has_axes_with_units_and_numbers_of_the_front() -> None:
    """Points outside of the front have no number, nor has one that only noise makes better than a cheaper one."""
    figure = front_figure(make_snapshot())
    axes, bar = figure.axes
    assert axes.get_xlabel() == "peak memory on the device (MiB, predicted)"
    assert axes.get_ylabel() == "validation accuracy (%), bars: error of the rows"
    assert bar.get_ylabel() == "time on the device (min, predicted)"
    assert axes.get_title(loc="left") == "sst2 · minilm · jetson-nano"
    assert {text for text in _texts(figure) if text.isdecimal()} == {"0", "2"}


def test_figure_shows_the_memory_limit_or_an_arrow_towards_it() -> None:
    figure = front_figure(make_snapshot())
    assert any(np.asarray(line.get_xdata()).tolist() == [2200.0, 2200.0] for line in figure.axes[0].lines)
    assert "device gives at least 2,200 MiB" in _texts(figure)
    far = front_figure(make_snapshot(budget_mib=64_000.0))
    assert "device gives at least 64,000 MiB →" in _texts(far)
    assert far.axes[0].get_xlim()[1] < 5000
    near = front_figure(make_snapshot(budget_mib=100.0))
    assert "← device gives at least 100 MiB" in _texts(near)


def constant(value: float) -> dict[str, Any]:
    """Return metadata of a study in which a constant answer scores this on the validation rows."""
    scored = {"validation": {"answer": "positive", "value": value}, "dev": {"answer": "positive", "value": 0.51}}
    return {"constant_answer": scored}


def test_figure_shows_the_constant_answer_or_an_arrow_towards_it() -> None:
    """Older studies do not record it."""
    near = front_figure(make_snapshot(meta=constant(0.83)))
    assert any(np.asarray(line.get_ydata()).tolist() == [83.0, 83.0] for line in near.axes[0].lines)
    assert "constant answer 83" in _texts(near)
    far = front_figure(make_snapshot(meta=constant(0.5)))
    assert "constant answer 50 ↓" in _texts(far)
    assert far.axes[0].get_ylim()[0] > 60
    assert not any("constant" in text for text in _texts(front_figure(make_snapshot())))


def test_page_shows_the_score_of_a_constant_answer() -> None:
    """Also as text, and not in the view of the costs."""
    snapshot = make_snapshot(meta={**make_snapshot().meta, **constant(0.83)})
    assert "a constant answer (positive) scores 83.0\N{NO-BREAK SPACE}%" in make_report(snapshot).html
    shown = [
        (any("constant answer 83" in note["text"] for note in view["layout"]["annotations"]),
         any(shape.get("y0") == 83.0 for shape in view["layout"]["shapes"]))
        for _, view in _views(snapshot, points_of(snapshot))
    ]  # fmt: skip
    assert shown == [(True, True), (True, True), (False, False)]


def test_step_line_is_the_best_metric_for_a_memory() -> None:
    """A point that is on the front only for its speed is below the line."""
    trials = [make_trial(0, 0.80, 100.0, 10.0), make_trial(1, 0.78, 110.0, 5.0), make_trial(2, 0.85, 120.0, 20.0)]
    figure = front_figure(make_snapshot(*trials, front={0, 1, 2}, budget_mib=125.0))
    line = next(line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post")
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([80.0, 80.0, 85.0, 85.0])
    assert np.asarray(line.get_xdata()).tolist() == [100.0, 110.0, 120.0, 125.0]


def test_trials_that_learned_nothing_do_not_flatten_the_front() -> None:
    """A trial at chance is a triangle on the lower edge, with its value if it is on the front."""
    good = [make_trial(i, 0.85 + 0.01 * i, 1000.0 + 100 * i, 100.0 + i) for i in range(5)]
    chance = [make_trial(8, 0.51, 900.0, 90.0), make_trial(9, 0.50, 1200.0, 120.0)]
    figure = front_figure(make_snapshot(*good, *chance, front={0, 1, 2, 3, 4, 8}))
    assert figure.axes[0].get_ylim()[0] > 70
    assert "8 (51)" in _texts(figure)


def test_figure_names_the_baselines() -> None:
    """Each has a marker inside the picture and an entry in the legend."""
    snapshot = make_snapshot(baselines=make_baselines())
    axes = front_figure(snapshot).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["full fine-tuning", "LoRA r=8"]
    assert len({handle.get_marker() for handle in legend.legend_handles}) == 2  # type: ignore[union-attr]
    shown = [tuple(place) for marks in axes.collections for place in np.asarray(marks.get_offsets()).tolist()]
    assert (1700.0, pytest.approx(85.3)) in shown
    assert (950.0, pytest.approx(81.23)) in shown
    left, right = axes.get_xlim()
    assert left < 950.0 < 1700.0 < right
    assert front_figure(make_snapshot()).axes[0].get_legend() is None


def test_a_baseline_that_learned_nothing_is_on_the_edge_with_its_value() -> None:
    low = changed(make_baselines()[1], metric=0.5)
    axes = front_figure(make_snapshot(baselines=(low,))).axes[0]
    assert axes.get_ylim()[0] > 70
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["LoRA r=8 (50)"]  # type: ignore[union-attr]


def test_a_study_with_baselines_only_is_drawn() -> None:
    snapshot = make_snapshot(make_trial(0, None, None, None, state="fail"), baselines=make_baselines())
    assert front_figure(snapshot).axes[0].get_legend() is not None
    assert "LoRA r=8" in make_report(snapshot).html


@pytest.mark.parametrize("metric", ["accuracy", "matthews_correlation"])
def test_degenerate_studies_are_drawn(metric: str) -> None:
    """No trial, one trial, equal trials, no error, and a metric that is not finite."""
    one = make_trial(0, 0.8, 1000.0, 100.0, metric_error=0.0)
    for snapshot in (
        make_snapshot(make_trial(0, None, None, None, state="fail"), metric_name=metric),
        make_snapshot(make_trial(0, float("nan"), 10.0, 10.0), front={0}, metric_name=metric),
        make_snapshot(one, front={0}, metric_name=metric),
        make_snapshot(one, front=set(), metric_name=metric),
        make_snapshot(*[make_trial(i, 0.0, 1.0, 0.0) for i in range(3)], front={0, 1, 2}, metric_name=metric),
    ):
        assert front_figure(snapshot).axes
        assert "<html" in make_report(snapshot).html


def test_png_has_1200_by_750_pixels(tmp_path: Path) -> None:
    save_front_png(make_snapshot(), tmp_path / "front.png")
    head = (tmp_path / "front.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")) == (1200, 750)


class _Links(HTMLParser):
    """Collect attributes that make a browser send requests, pictures, and text outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.pictures: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the addresses that ``tag`` would load."""
        found = [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]
        self.fetched += [f"{tag} {value}" for value in found if not value.startswith("data:")]
        self.pictures += [value for value in found if value.startswith("data:image/png;base64,")]

    def handle_data(self, data: str) -> None:
        """Collect text, except scripts and styles."""
        if self.cdata_elem is None:
            self.text.append(data)


def _read(page: str) -> _Links:
    parser = _Links()
    parser.feed(page)
    return parser


def test_page_needs_no_network_and_contains_the_table() -> None:
    """No tag loads anything, and the table is readable without scripts."""
    page = _read(make_report(make_snapshot()).html)
    assert page.fetched == []
    words = " ".join(page.text)
    assert "80.0 ± 1.1 %" in words
    assert "1,500 MiB" in words


def _traces(page: str) -> list[Any]:
    """Return the traces of the figure in a page."""
    call = page[page.rindex("Plotly.newPlot(") :]
    found = re.search(r'"front",\s*(\[.*?\]),\s*\{"', call, re.DOTALL)
    assert found is not None
    return list(json.loads(found.group(1)))


def test_page_shows_baselines_in_figure_and_table() -> None:
    page = make_report(make_snapshot(baselines=make_baselines())).html
    full, lora = _traces(page)[-2:]
    assert (full["name"], full["x"], full["y"]) == ("full fine-tuning", [1700.0], [pytest.approx(85.3)])
    assert (lora["name"], lora["x"], lora["y"]) == ("LoRA r=8", [950.0], [pytest.approx(81.23)])
    assert full["marker"]["symbol"] != lora["marker"]["symbol"]
    assert "LoRA r=8" in _read(page).text


def test_page_draws_the_values_of_the_front() -> None:
    page = make_report(make_snapshot()).html
    call = page[page.rindex("Plotly.newPlot(") :]
    traces = _traces(page)
    front = next(trace for trace in traces if trace["name"] == "front, by trial")
    assert front["x"] == [1000.0, 1200.0]
    assert front["y"] == pytest.approx([80.0, 84.0])
    assert "by time" in call


def test_page_contains_plotly_once_and_every_picture() -> None:
    """Except the front, which is interactive."""
    report = make_report(make_snapshot(baselines=make_baselines()))
    held = {base64.b64decode(picture.partition(",")[2]) for picture in _read(report.html).pictures}
    assert report.html.count("plotly.js v") == 1
    assert held == {picture for name, picture in report.figures.items() if name != "front.png"}
    assert {"front.png", "frozen.png", "memory.png", "time.png", "curves.png"} <= set(report.figures)
    assert all(picture.startswith(b"\x89PNG") for picture in report.figures.values())


def test_page_is_deterministic() -> None:
    """A mirror uploads it only if it has changed."""
    snapshot = make_snapshot(*[make_trial(i, 0.8 + 0.001 * i, 1000.0 + i, 100.0 - i) for i in range(14)], front={0})
    assert make_report(snapshot) == make_report(snapshot)


def test_page_shades_the_infeasible_region_in_every_view() -> None:
    """A distant bound is an arrow."""
    snapshot = make_snapshot(settings=make_settings(max_time_s=400.0))
    points = points_of(snapshot)
    by_memory, by_time, costs = (view["layout"] for _, view in _views(snapshot, points))
    starts = [shape["x0"] for shape in by_memory["shapes"] if shape["type"] == "rect"]
    assert starts == [2200.0]
    assert [shape["x0"] for shape in by_time["shapes"] if shape["type"] == "rect"] == [pytest.approx(400 / 60)]
    assert len([shape for shape in costs["shapes"] if shape["type"] == "rect"]) == 2
    (far,) = _views(make_snapshot(budget_mib=64_000.0), points)[0][1]["layout"]["annotations"]
    assert far["text"] == "fits up to 64,000 MiB →"


def test_page_escapes_names() -> None:
    evil = "<script>alert(1)</script>"
    page = make_report(make_snapshot(metric_name=evil, name=evil)).html
    assert evil not in page
    assert evil.capitalize() not in page


def test_page_escapes_titles_versions_commands_and_boards() -> None:
    evil = "<img src=x onerror=alert(1)>"
    measurement = dataclasses.replace(make_measurement(0), machine=evil, software={evil: evil})
    named = changed(make_baselines()[1], baseline=Baseline("lora8", evil, 5e-4, 1.0))
    meta = {"command": evil, "versions": {evil: evil}, "data_source": evil, "device_title": evil}
    page = make_report(make_snapshot(meta=meta, measurements=(measurement,), baselines=(named,))).html
    assert "<img src=x" not in page
