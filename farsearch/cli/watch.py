"""``watch``: a page that follows a search."""

from __future__ import annotations

import sys

import click

from farsearch.cli.options import open_workspace, storage_option, study_argument

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True,
              help="Address to listen on. Any but this machine's own lets others read the study.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", default=5080, show_default=True,
              help="Port to listen on.")  # fmt: skip
@click.option("--browser/--no-browser", default=None, help="Open a browser.  [default: on a terminal]")
@storage_option
def watch(study: str | None, host: str, port: int, browser: bool | None, storage: str | None) -> None:
    """Follow a search on a page that refreshes itself: what is trained now, the time left, and the report so far.

    It reads the study and changes nothing, needs no other host, and ends with Ctrl-C; the search goes on.

    \b
    Examples:
      farsearch watch
      farsearch watch demo --port 5081
    """

    def ready(url: str) -> None:
        click.echo(f"watching study {opened.name}: {url}  (Ctrl-C ends it)")
        if sys.stdout.isatty() if browser is None else browser:
            click.launch(url)

    opened = open_workspace(storage).open_study(study)
    opened.watch(host=host, port=port, ready=ready)


COMMANDS = (watch,)
