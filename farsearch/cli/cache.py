"""``cache``: show and clear the cache."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING, Any

import click

from farsearch.api import HOME
from farsearch.cli.options import AboveZero, json_option
from farsearch.cli.terminal import print_rows

if TYPE_CHECKING:
    from farsearch.cache import CachedJob

__all__ = ["COMMANDS"]

_FOLDER = HOME / "cache"
_ABOUT = ("task", "model", "train_samples", "batch_size", "max_length", "seed")


@click.group()
def cache() -> None:
    """Show and clear the cached primings, results of baselines, and traces of models for their prices.

    Primings take no more than a bound, and those that were not used for the longest time go first. What studies need
    they store in their own folders.
    """


@cache.command("show")
@json_option
def cache_show(as_json: bool) -> None:
    """List the cached jobs, the most recently used first.

    \b
    Examples:
      farsearch cache show
      farsearch cache show --json | jq '.entries[] | select(.size_mib > 1000)'
    """
    from farsearch.cache import BOUND_MIB, cached_jobs
    from farsearch.formatting import human_memory

    jobs = cached_jobs(_FOLDER)
    if as_json:
        entries = [_entry(job) for job in jobs]
        sizes = {"bound_mib": BOUND_MIB, "primings_mib": sum(job.size_mib for job in jobs if job.kind == "primings")}
        click.echo(json.dumps({"schema_version": 1, "folder": str(_FOLDER), **sizes, "entries": entries}, indent=1))
        return
    rows = [
        {
            "what": f"{job.kind} of {_description(job)}",
            "files": str(len(job.files)),
            "size": _size(job.size_mib),
            "last used": datetime.datetime.fromtimestamp(job.last_used).strftime("%Y-%m-%d %H:%M"),
        }
        for job in jobs
    ]
    print_rows(rows, f"{_FOLDER}; primings take at most {human_memory(BOUND_MIB)}", f"nothing is cached in {_FOLDER}")


@cache.command("clear")
@click.option(
    "--kind",
    type=click.Choice(["primings", "baselines", "traces", "all"]),
    default="primings",
    show_default=True,
    help="Kind of files to remove. Without a baseline's results, trials can't be compared with its predictions.",
)
@click.option("--older-than", type=AboveZero(), metavar="DAYS", help="Only files that were not used for so many days.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def cache_clear(kind: str, older_than: float | None, yes: bool) -> None:
    """Remove cached files. Studies are unchanged; a search computes missing files again.

    \b
    Examples:
      farsearch cache clear
      farsearch cache clear --kind all --older-than 30 --yes
    """
    from farsearch.cache import KINDS, cached_jobs, clear, unused

    kinds = tuple(KINDS) if kind == "all" else (kind,)
    files = unused(cached_jobs(_FOLDER), kinds, older_than or 0.0)
    size = sum(file.size_mib for file in files)
    linked = sum(file.size_mib for file in files if file.linked)
    what = f"{len(files)} file{'s' * (len(files) != 1)}, {_size(size)}"
    if linked:
        what += f" of which {_size(linked)} stay on the disk because studies need them"
    if files and not yes:
        click.confirm(f"remove {what} from {_FOLDER}?", abort=True)
    clear(_FOLDER, kinds, files)
    click.echo(f"removed {what}" if files else f"nothing to remove in {_FOLDER}")


def _entry(job: CachedJob) -> dict[str, Any]:
    used = datetime.datetime.fromtimestamp(job.last_used, datetime.timezone.utc)
    return {
        "kind": job.kind,
        "folder": str(job.folder),
        **{key: job.about.get(key) for key in _ABOUT},
        "files": len(job.files),
        "size_mib": job.size_mib,
        "last_used": used.isoformat(timespec="seconds"),
    }


def _description(job: CachedJob) -> str:
    about = job.about
    if job.kind == "traces" and about:
        return f"{about['model']}, {about['layers']} layers"
    if any(key not in about for key in _ABOUT):
        return "a job that is not described"
    numbers = f"{about['train_samples']} rows, batch {about['batch_size']}, seed {about['seed']}"
    return f"{about['task']}, {about['model']}, {numbers}"


def _size(mib: float) -> str:
    """Format a size, a small one with a decimal."""
    from farsearch.formatting import human_memory

    return human_memory(mib) if mib >= 10 else f"{mib:.1f} MiB"


COMMANDS = (cache,)
