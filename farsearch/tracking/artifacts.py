"""The files that a study's own run carries: its front as data, table, picture and page, and what the study is."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from farsearch.records import StudySnapshot
from farsearch.tables import baseline_rows, front_markdown, front_rows, trials_json

__all__ = ["write_files"]


def write_files(snapshot: StudySnapshot, folder: Path) -> None:
    """Writes ``front.json``, ``.csv``, ``.md``, ``.png`` and ``.html``, and ``study.json``, into ``folder``."""
    from farsearch.report import front_html, save_front_png  # half a second that reading MLflow need not wait for

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    write("front.json", json.dumps(trials_json(snapshot, snapshot.front), indent=1))
    write("front.md", front_markdown(snapshot))
    write("front.html", front_html(snapshot))
    about = {"settings": snapshot.settings.to_dict(), "rejected": dict(snapshot.rejected), "meta": dict(snapshot.meta)}
    write("study.json", json.dumps(about, indent=1, default=str))
    save_front_png(snapshot, folder / "front.png")
    rows = [*front_rows(snapshot), *baseline_rows(snapshot)]
    with (folder / "front.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]) if rows else ["trial"])
        table.writeheader()
        table.writerows(rows)
