"""``report``: a study as one page."""

from __future__ import annotations

from pathlib import Path

import click

from farsearch.cli.options import open_workspace, storage_option, study_argument

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
    files = open_workspace(storage).open_study(study).report(out, figures=figures)
    click.echo(f"report: {files.page} ({files.page.stat().st_size / 1e6:.1f} MB)")
    if figures is not None:
        click.echo(f"pictures: {len(files.figures)} in {figures}")
    if browser:
        click.launch(str(files.page.resolve()))


COMMANDS = (report,)
