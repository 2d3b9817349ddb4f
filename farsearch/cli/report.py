"""``farsearch report``: a study as one page."""

from __future__ import annotations

import re
from pathlib import Path

import click

from farsearch.cli.options import storage_option, study_argument

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The page.  [default: report-STUDY.html]")
@click.option("--figures", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Also write its pictures into this folder, as PNG.")  # fmt: skip
@click.option("--open/--no-open", "browser", default=False, show_default=True, help="Open the page in a browser.")
@storage_option
def report(study: str | None, out: Path | None, figures: Path | None, browser: bool, storage: str | None) -> None:
    """Write a study as one HTML page, complete in itself: it opens without a network, also on a phone.

    It shows the front with its baselines, what is frozen in each layer, what memory and time consist of, which
    hyperparameters matter, how the search and its trainings went, what was measured, and the commands and versions that
    made it.

    \b
    Examples:
      farsearch report
      farsearch report demo --out demo.html --figures pictures/ --open
    """
    from farsearch.cli.inspect import read_snapshot
    from farsearch.files import check_new_file, write_bytes, write_text
    from farsearch.report import make_report

    snapshot = read_snapshot(study, storage)
    page = out or Path(f"report-{_file_name(snapshot.name)}.html")
    check_new_file(page, ".html")
    made = make_report(snapshot)
    pictures = {} if figures is None else {figures / name: picture for name, picture in made.figures.items()}
    for path in pictures:
        check_new_file(path, ".png")
    write_text(page, made.html)
    click.echo(f"report: {page} ({len(made.html.encode()) / 1e6:.1f} MB)")
    for path, picture in pictures.items():
        write_bytes(path, picture)
    if figures is not None:
        click.echo(f"pictures: {len(pictures)} in {figures}")
    if browser:
        click.launch(str(page.resolve()))


def _file_name(study: str) -> str:
    """A study's name as a file's: the siblings of a study have a slash in theirs."""
    return re.sub(r"[^A-Za-z0-9._+-]", "-", study)


COMMANDS = (report,)
