"""``ui``: MLflow's pages on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time

import click

from farsearch.cli.options import open_workspace, storage_option, study_argument, tracking_option

__all__ = ["COMMANDS"]


@click.command()
@study_argument
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", default=5000, show_default=True,
              help="Port to listen on.")  # fmt: skip
@click.option("--browser/--no-browser", default=None, help="Open a browser.  [default: on a terminal]")
@storage_option
@tracking_option
def ui(study: str | None, port: int, browser: bool | None, storage: str | None, tracking_uri: str) -> None:
    """Open MLflow's UI on this machine, at the study's trials.

    It listens on 127.0.0.1 only and ends with Ctrl-C.

    \b
    Examples:
      farsearch ui
      farsearch ui demo --port 5050
    """
    from farsearch.tracking import open_tracking

    snapshots = open_workspace(storage).open_study(study).with_auxiliary()
    tracker = open_tracking(tracking_uri)
    for snapshot in snapshots:
        tracker.sync(snapshot, report=True)
    path = tracker.experiment_url_path(snapshots[0].name)
    show_page = sys.stdout.isatty() if browser is None else browser
    if tracking_uri.startswith("http"):
        url = f"{tracking_uri.rstrip('/')}/{path}"
        click.echo(url)
        if show_page:
            click.launch(url)
        return
    _serve(tracking_uri, port, path, show_page)


def _serve(tracking_uri: str, port: int, path: str, show_page: bool) -> None:
    """Run MLflow's server until it ends, and print the page's address once it answers."""
    from farsearch.errors import MissingResource
    from farsearch.tracking import UI_ENVIRONMENT, ui_command

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise MissingResource(f"port {port} is in use; give another with --port") from error
    # in an empty folder: MLflow starts further processes with python -m, which imports from the working folder first
    with tempfile.TemporaryDirectory(prefix="farsearch-ui-") as empty:
        server = subprocess.Popen(ui_command(tracking_uri, port), env={**os.environ, **UI_ENVIRONMENT}, cwd=empty)
        try:
            while server.poll() is None and not _answers(port):
                time.sleep(0.2)
            if server.poll() is None:
                url = f"http://127.0.0.1:{port}/{path}"
                click.echo(f"MLflow: {url}  (Ctrl-C ends it)")
                if show_page:
                    click.launch(url)
            code = server.wait()
        finally:
            server.terminate()
            server.wait()
    if code:
        raise MissingResource(f"MLflow's server ended with code {code}; its reason is above")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


COMMANDS = (ui,)
