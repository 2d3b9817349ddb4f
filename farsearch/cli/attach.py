"""A study that another process began, with this host's data, model and profile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from farsearch.far.display import shown

if TYPE_CHECKING:
    from farsearch.search_spec import Job
    from farsearch.study.search import Search, Watcher
    from farsearch.study.store import Store

__all__ = ["here_options", "join_search"]

F = TypeVar("F", bound=Callable[..., Any])


def here_options(function: F) -> F:
    """Where this host has what a study needs."""
    for decorate in (
        click.option(
            "--device", metavar="NAME", help="Its profile on this host, a .toml file.  [default: by its name]"
        ),
        click.option(
            "--model", metavar="NAME", help="Folder of its model on this host.  [default: where the run had it]"
        ),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path),
            help="Folder with the study's data on this host.  [default: where the run had it]",
        ),
    ):
        function = decorate(function)
    return function


def join_search(
    store: Store, name: str | None, watcher: Watcher, told: Callable[[str], None] | None = None, **here: Any
) -> tuple[Search, Job]:
    """A search of the study with what this host has, and its job.

    Args:
        told: hears what is said of data and model; None for the watcher.

    Raises:
        StudyMismatch: when that is not what the study was made with.
    """
    from farsearch.errors import BadInput
    from farsearch.records import StudySettings
    from farsearch.search_spec import rejoin_job
    from farsearch.study.search import Search

    study = store.load(name)
    about = store.ask(lambda: study.user_attrs)
    if "sampler" not in about:
        raise BadInput(
            f"the study {shown(study.study_name)} has not begun; wait for its farsearch run, or start that again"
        )
    settings = StudySettings.from_dict(about["settings"])
    job = rejoin_job(study.study_name, settings, about["meta"], store, told or watcher.note, **here)
    store.check_here(study, job.settings, job.meta)
    bench = job.bench(store)
    search = Search(
        study, store, bench, job.pricer(bench), job.space, about["sampler"], job.settings.plan, watcher, about["racing"]
    )
    return search, job
