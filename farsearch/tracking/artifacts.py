"""Artifacts of a study's run: its front as data, table and picture, its settings, its report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from farsearch.formatting import baseline_rows, front_markdown, front_rows
from farsearch.records import StudySnapshot
from farsearch.trials_json import trials_json

__all__ = ["write_files", "write_report"]


def write_files(snapshot: StudySnapshot, folder: Path) -> None:
    """Write ``front.json``, ``.csv``, ``.md`` and ``.png``, and ``study.json``, into ``folder``."""
    from farsearch.report import save_front_png  # takes half a second, only here

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    write("front.json", json.dumps(trials_json(snapshot, snapshot.front), indent=1))
    write("front.md", front_markdown(snapshot))
    about = {"settings": snapshot.settings.to_dict(), "rejected": dict(snapshot.rejected), "meta": dict(snapshot.meta)}
    write("study.json", json.dumps(about, indent=1, default=str))
    save_front_png(snapshot, folder / "front.png")
    rows = [*front_rows(snapshot), *baseline_rows(snapshot)]
    with (folder / "front.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["trial"])
        table.writeheader()
        table.writerows(rows)


def write_report(snapshot: StudySnapshot, folder: Path) -> None:
    """Write ``report.html`` and its pictures, ``figures/*.png``, into ``folder``: 5 MB, takes seconds."""
    from farsearch.report import make_report

    report = make_report(snapshot)
    (folder / "report.html").write_text(report.html, encoding="utf-8")
    (folder / "figures").mkdir()
    for name, picture in report.figures.items():
        (folder / "figures" / name).write_bytes(picture)
