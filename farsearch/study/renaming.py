"""Rename a study in its storage and its folder, with its auxiliary studies.

Each step can be repeated, so the same command continues after a kill. The study has the new name in its attribute
``renaming`` until the rename is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import optuna

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.files import disk_errors, remove
from farsearch.study.liveness import has_live_worker
from farsearch.study.names import AUXILIARY_KINDS, auxiliary_name, check_new_name
from farsearch.study.optuna_adapter import rename_in_database
from farsearch.study.store import DIRECTIONS, Store, storage_errors

__all__ = ["rename_study"]

_PENDING = "renaming"


def rename_study(store: Store, old: str, new: str, mirror: Callable[[], None]) -> None:
    """Rename a study with its auxiliary studies and tensors.

    Args:
        mirror: renames it in MLflow, and can be repeated.

    Raises:
        BadInput: when there is no such study, the new name is not usable or taken, or a worker works on the study.
    """
    with storage_errors(store.where), store.locks.hold("create"):
        study = store.load(old)
        pending = study.user_attrs.get(_PENDING, old)
        if pending not in (old, new):
            raise BadInput(
                f"the rename of {shown(old)} to {shown(pending)} was interrupted; finish it first: "
                f"farsearch studies rename {old} {pending}"
            )
        if pending == old:
            _check_free(store, old, new)
        with store.lock(old):
            if has_live_worker(store.folder(old), study):
                raise BadInput(f"a worker is at work on the study {shown(old)}; rename it when the worker has ended")
            study.set_user_attr(_PENDING, new)
            mirror()
            _move_folder(store, old, new)
            _rename_stored(store, old, new)


def _check_free(store: Store, old: str, new: str) -> None:
    names = store.all_names()
    if new in names:
        raise BadInput(f"the study {shown(new)} exists; give another name")
    check_new_name(new, [name for name in names if name != old])
    folder = store.folder(new)
    if folder.exists():
        raise BadInput(f"{folder} exists and belongs to no study; give another name")


def _move_folder(store: Store, old: str, new: str) -> None:
    source, target = store.folder(old), store.folder(new)
    with disk_errors(target):
        if target.exists():
            remove(source)  # moved by an earlier call: only this call's locks are in it
        elif source.exists():
            os.rename(source, target)


def _rename_stored(store: Store, old: str, new: str) -> None:
    names = store.all_names()
    pairs = [(auxiliary_name(old, kind), auxiliary_name(new, kind)) for kind in AUXILIARY_KINDS]
    pairs = [*((before, after) for before, after in pairs if before in names), (old, new)]
    if rename_in_database(store.storage, pairs):
        return
    for before, after in pairs:
        _copy(store, before, after)
    for before, _ in pairs:
        optuna.delete_study(study_name=before, storage=store.storage)


def _copy(store: Store, old: str, new: str) -> None:
    """Copy a study within a journal, which has no other way to rename one.

    Attributes of samplers are not copied: they refer to trials by ids that the copies do not have, and are recreated.
    """
    if new in store.all_names():
        return
    if new in optuna.get_all_study_names(store.storage):
        optuna.delete_study(study_name=new, storage=store.storage)  # an incomplete copy
    study = optuna.load_study(study_name=old, storage=store.storage)
    copy = optuna.create_study(study_name=new, storage=store.storage, directions=DIRECTIONS)
    attrs = dict(study.user_attrs)
    settings = attrs.pop("settings")
    for key, value in attrs.items():
        copy.set_user_attr(key, value)
    copy.add_trials(study.get_trials(deepcopy=False))
    copy.set_user_attr("settings", settings)  # last: a study without settings is not listed
