"""Compare a job with the settings that a study was made with."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from optuna.study import Study

from farsearch.errors import StudyMismatch
from farsearch.far.display import shown, shown_text
from farsearch.records import StudySettings
from farsearch.study.names import LONGEST

__all__ = ["add_meta", "check_settings", "differences_of"]


def check_settings(study: Study, settings: StudySettings, meta: Mapping[str, Any]) -> None:
    """Raise where a study was made with other settings.

    Raises:
        StudyMismatch: naming the settings that differ.
    """
    differences = differences_of(study, settings, meta)
    other = f"another name: `study` {shlex.quote(f'{study.study_name[: LONGEST - 2]}-2')}"
    if StudySettings.from_dict(study.user_attrs["settings"]).pricing != settings.pricing:
        raise StudyMismatch(
            f"the study {shown(study.study_name)} has the prices of another farsearch, which chose among other step "
            f"plans; it can be read, but new trials would be priced otherwise: use {other}"
        )
    if differences:
        raise StudyMismatch(
            f"the study {shown(study.study_name)} exists with other settings (now, then): {differences}; "
            f"use the same, or {other}"
        )


def add_meta(study: Study, meta: Mapping[str, Any]) -> None:
    """Add the entries that an older version did not store to the study's metadata."""
    known = study.user_attrs["meta"]
    if not meta.keys() <= known.keys():
        study.set_user_attr("meta", {**meta, **known})


def differences_of(study: Study, settings: StudySettings, meta: Mapping[str, Any]) -> str:
    """Return the settings that differ from the study's, as a text; empty where none does."""
    theirs = StudySettings.from_dict(study.user_attrs["settings"])
    if theirs.fingerprint() == settings.fingerprint():
        return ""
    changes = settings.differences(theirs)
    if settings.job.data != theirs.job.data:
        rows = _other_rows(meta, study.user_attrs["meta"])
        changes = [rows, *(change for change in changes if not change.startswith("job.data:"))]
    return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")


def _other_rows(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return which data file has other rows than the study was made with; old studies did not record their files."""
    now, then = mine.get("data_files") or {}, theirs.get("data_files") or {}
    changed = [file["name"] for part, file in now.items() if part in then and file["rows"] != then[part]["rows"]]
    if not now or not then:
        return "the rows differ"
    if now.keys() != then.keys():
        return "the rows of development are from another file, or not held out"
    if not changed:
        return "the rows are divided in another way"
    return f"the rows of {' and '.join(shown_text(name) for name in changed)} have changed"
