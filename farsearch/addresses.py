"""Addresses of databases and servers, as they may be shown: without their passwords."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

__all__ = ["is_server", "sqlite_address", "without_password"]

_IN_URL = re.compile(r"(://[^:/\s]*):\S*@")
"""A user with a password. It reaches to the last @ of the word: better too much is hidden than too little."""

_IN_QUERY = re.compile(r"([?&](?:ssl)?password=)[^&\s]*", re.IGNORECASE)
"""The same as an option of libpq."""


def is_server(uri: str) -> bool:
    """Whether a tracking address is that of a server, which other hosts reach too, and not of a file."""
    return uri.startswith(("http://", "https://"))


def without_password(text: str) -> str:
    """A text with addresses in it, for messages and records, every password as ``***``."""
    return _IN_QUERY.sub(r"\1***", _IN_URL.sub(r"\1:***@", text))


def sqlite_address(path: Path | str) -> str:
    """Return the SQLAlchemy address of a SQLite file, whatever characters its path contains."""
    from sqlalchemy.engine import URL, make_url

    address = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    if make_url(address).database == str(path):
        return address
    # SQLAlchemy 2.0 does not escape "?" in a path; SQLite itself decodes an address that starts with file:
    return URL.create("sqlite", database=f"file:{quote(str(path))}", query={"uri": "true"}).render_as_string()
