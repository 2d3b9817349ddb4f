"""Names of studies: a study has a folder of its name, on any file system."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from farsearch.errors import BadInput
from farsearch.far.display import shown

__all__ = [
    "AUXILIARY_KINDS",
    "LONGEST",
    "AuxiliaryKind",
    "auxiliary_name",
    "check_new_name",
    "check_study_name",
    "usable_name",
]

LONGEST = 200
"""Characters. Files made of a name, such as its report, have to stay below 255."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", re.IGNORECASE)
"""Names that Windows has no files of."""

AuxiliaryKind = Literal["baselines", "verified"]
AUXILIARY_KINDS: Sequence[AuxiliaryKind] = get_args(AuxiliaryKind)
"""What a study has beside it, in a study ``NAME/KIND`` each. A study that a user names has no slash."""


def auxiliary_name(study: str, kind: AuxiliaryKind) -> str:
    """Name of the study that keeps the baselines of ``study``, or its verification."""
    return f"{study}/{kind}"


def check_study_name(name: str) -> None:
    """Refuse a name that can't be that of a folder.

    Raises:
        BadInput: with the rule.
    """
    if len(name) > LONGEST:
        raise BadInput(f"the study name {shown(name[:20])}... has {len(name)} characters; use at most {LONGEST}")
    if not re.fullmatch(_NAME, name):
        raise BadInput(
            f"the study name {shown(name)} is not usable; use letters, digits, '.', '_', '+' and '-', and begin with a "
            "letter or digit"
        )


def check_new_name(name: str, taken: Iterable[str]) -> None:
    """Refuse a name for a new study that not every file system can hold beside the others.

    Raises:
        BadInput: with the rule.
    """
    check_study_name(name)
    if _RESERVED.fullmatch(name):
        raise BadInput(
            f"the study name {shown(name)} is not usable on Windows; use another, such as {name.rstrip('.')}-1"
        )
    for other in taken:
        if other != name and other.casefold() == name.casefold():
            raise BadInput(
                f"the study name {shown(name)} differs from the study {shown(other)} only in case; use "
                "another name, or that one"
            )


def usable_name(text: str) -> str:
    """``text`` with ``-`` for what a name can't have; with a part of its hash where that is not enough."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", text)
    if re.fullmatch(_NAME, name) and len(name) <= LONGEST and not _RESERVED.fullmatch(name):
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name.lstrip('-._+')[: LONGEST - 9]}-{digest}".lstrip("-")
