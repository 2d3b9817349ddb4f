"""Names of studies, which are names of folders on any file system."""

from __future__ import annotations

import hashlib
import re
import unicodedata
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
"""Characters of a name. The names of files made of it, such as a report, must be shorter than 255."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", re.IGNORECASE)
"""Names that no file has on Windows."""

_LATIN = {
    **dict(zip("абвгдезийклмнопрстуфхыэіґђјћѕ", "abvgdeziiklmnoprstufhyeigdjcz", strict=True)),
    **{"ж": "zh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ь": "", "ю": "yu", "я": "ya", "є": "ye"},
    **{"љ": "lj", "њ": "nj", "џ": "dz"},
    **dict(zip("αβγδεζηικλμνξοπρσςτυφχω", "avgdeziiklmnxoprsstyfho", strict=True)),
    **{"θ": "th", "ψ": "ps"},
    **{"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i"},
}
"""Letters of the Cyrillic, Greek and Latin alphabets that are not a Latin letter with accents."""

AuxiliaryKind = Literal["baselines", "verified"]
AUXILIARY_KINDS: Sequence[AuxiliaryKind] = get_args(AuxiliaryKind)
"""Kinds of auxiliary studies, named ``NAME/KIND``. A study that a user names has no slash."""


def auxiliary_name(study: str, kind: AuxiliaryKind) -> str:
    """Return the name of the auxiliary study with the baselines or the verification of ``study``."""
    return f"{study}/{kind}"


def check_study_name(name: str) -> None:
    """Raise for a name that can't be a folder's.

    Raises:
        BadInput: with the broken rule.
    """
    if len(name) > LONGEST:
        raise BadInput(f"the study name {shown(name[:20])}... has {len(name)} characters; use at most {LONGEST}")
    if not re.fullmatch(_NAME, name):
        raise BadInput(
            f"the study name {shown(name)} is not usable; use letters, digits, '.', '_', '+' and '-', and begin with a "
            "letter or digit"
        )


def check_new_name(name: str, taken: Iterable[str]) -> None:
    """Raise for a name of a new study that is not valid, or not distinct, on every file system.

    Raises:
        BadInput: with the broken rule.
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
    """Return a valid name for ``text``: letters of other alphabets in Latin ones, ``-`` for invalid characters.

    Where letters have no counterpart, or more than that is invalid, a part of the text's hash makes the name unique.
    """
    latin = "".join(map(_latin, unicodedata.normalize("NFKD", text)))
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", latin)
    is_complete = not any(character.isalnum() and not character.isascii() for character in latin)
    if is_complete and re.fullmatch(_NAME, name) and len(name) <= LONGEST and not _RESERVED.fullmatch(name):
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name.lstrip('-._+')[: LONGEST - 9]}-{digest}".lstrip("-")


def _latin(character: str) -> str:
    """Return the Latin letters for one of another alphabet; nothing for an accent or a dot of its own."""
    if unicodedata.combining(character):
        return ""
    letters = _LATIN.get(character.lower(), character)
    return letters if character.lower() == character else letters.capitalize()
