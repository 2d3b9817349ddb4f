"""``devices submit``: a calibrated profile as an anonymous file, for farsearch to ship."""

from __future__ import annotations

from pathlib import Path

import click

from farsearch.api import HOME

__all__ = ["devices_submit"]


@click.command("submit")
@click.argument("name")
@click.option("--board", required=True, metavar="NAME", help="Shipped profile of the same board and power mode, or a "
              "new name: MAKER-MODEL, and the mode where it is not the fastest.")  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="File to write.  [default: BOARD-measured.toml]")  # fmt: skip
def devices_submit(name: str, board: str, out: Path | None) -> None:
    """Write a calibrated profile as an anonymous file, for farsearch to ship.

    The file has figures, measured rates, versions, the models of board and processor, clocks, and the date. It has no
    name of a machine, user or folder, and no text of yours. A calibration of a busy machine, or with implausible
    figures, is refused. Nothing is sent: attach the file to an issue of the form "A device".

    \b
    Example:
      farsearch devices submit my-nano --board jetson-nano
    """
    from farsearch.calibration.local import find_profile
    from farsearch.devices.contributed import anonymous, check_contributed, contributed_name
    from farsearch.devices.profile import write_profile
    from farsearch.devices.registry import shipped_board
    from farsearch.files import check_new_file

    submitted = anonymous(find_profile(name, HOME, lambda text: click.echo(text, err=True)), contributed_name(board))
    derived = shipped_board(board)
    check_contributed(submitted, derived)
    path = out or Path(f"{submitted.name}.toml")
    check_new_file(path, ".toml")
    write_profile(submitted, path)
    click.echo(f"wrote {path}: {submitted.title}")
    if derived is None:
        click.echo(f"no shipped profile is called {board}; a new board is welcome")
    click.echo("read it, then attach it to an issue of the form 'A device' (CONTRIBUTING.md)")
