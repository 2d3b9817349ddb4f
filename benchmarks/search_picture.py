"""The picture of search_efficiency: share of the closed gap against seconds of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.grid_replay import Replay

__all__ = ["save_picture"]

_COLOURS = ("#999999", "#56b4e9", "#e69f00", "#cc79a7", "#d55e00", "#009e73", "#0072b2")
"""Okabe and Ito's, safe for colour-blind eyes."""


def save_picture(runs: Mapping[tuple[str, str], Sequence[Replay]], path: Path) -> None:
    """Draw the median over the seeds, a panel for each task. The score of an ended replay stays constant.

    Args:
        runs: by task and way to search, in the order of the legend.
    """
    tasks = list(dict.fromkeys(task for task, _ in runs))
    figure = Figure(figsize=(5.2 * len(tasks) + 0.4, 4.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    names = list(dict.fromkeys(name for _, name in runs))
    for panel, task in zip(panels, tasks, strict=True):
        longest = max(
            run.seconds[-1] for (of, _), replays in runs.items() if of == task for run in replays if run.seconds
        )
        grid = np.linspace(0.0, longest, 400)
        for name, colour in zip(names, _COLOURS, strict=False):
            scores = np.array([[run.score_at(float(s)) for s in grid] for run in runs.get((task, name), ())])
            if len(scores):
                width = 2.4 if name == "farsearch" else 1.3
                panel.step(grid, np.median(scores, axis=0), where="post", color=colour, label=name, linewidth=width)
        panel.axhline(0.9, color="#262626", linewidth=0.8, linestyle=":")
        panel.set_title(task, loc="left", fontsize=10, fontweight="bold")
        panel.set_xlabel("seconds of training after the baselines, one thread")
        panel.set_ylim(0.0, 1.02)
        panel.set_xlim(0.0, longest)
        panel.grid(color="#ececec", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of the hypervolume gap closed, median")
    panels[-1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path)
