"""Addresses of databases and servers: parsed, built, and shown without their passwords.

An address is masked by parsing it. One that can't be parsed is not shown, because any part of it may be the password.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote

from farsearch.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

__all__ = ["database_url", "hide_passwords", "is_server", "shown_address"]

_MASK = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+]{0,40}")

_SHOWN_OPTIONS = ("host", "port", "user", "dbname", "service", "sslmode", "uri", "mode")
"""Options of an address whose values are shown. Any other may be a secret."""


def is_server(uri: str) -> bool:
    """Return whether a tracking address is that of a server, which other hosts can reach, not of a file."""
    return uri.startswith(("http://", "https://"))


def database_url(address: str) -> URL:
    """Parse the address of a database.

    Raises:
        BadInput: where it can't be parsed. The message contains no part of the address that may be a password.
    """
    url = _parsed(address)
    if url is not None:
        return url
    if address.startswith("sqlite:"):
        problem = "it is no address of a file; give sqlite:///FILE, and in its path %3F for ?"
    elif "://" in address:
        problem = (
            "it is no address of a database; give postgresql://user@host/name, and in a password %40 for @, %3A for :, "
            "%2F for /, %3F for ? and %25 for %"
        )
    elif re.search(r"\b(host|dbname|user|password|service)\s*=", address):
        problem = "it has libpq's form; give postgresql://user@host/name, and the password in PGPASSWORD or ~/.pgpass"
    else:
        problem = "it is no address of a database; give postgresql://user@host/name or sqlite:///FILE"
    raise BadInput(f"--storage {shown_address(address)} can't be used: {problem}")


def shown_address(address: str) -> str:
    """Return an address with ``***`` for the password and for every option that may be one.

    Of an unparsable address only the scheme is shown. A text without special characters is returned unchanged.
    """
    scheme, sign, rest = address.partition("://")
    if _parsed(address) is None:
        if sign and _SCHEME.fullmatch(scheme):
            return f"{scheme}://..."
        return "..." if set(address) & set(":@=?") else address[:80]
    head, sign, query = rest.partition("?")
    name, colon, _, place = _user_and_place(scheme, head)
    masked = "&".join(
        f"{quote(key)}={quote(value, safe='/:') if key in _SHOWN_OPTIONS else _MASK}"
        for key, value in parse_qsl(query, keep_blank_values=True)
    )
    return f"{scheme}://{name}{colon}{_MASK if colon else ''}{place}{sign}{masked}"


def hide_passwords(text: str, addresses: Iterable[str]) -> str:
    """Return a text, such as a vendor's message, without the passwords of these addresses."""
    for address in addresses:
        text = text.replace(address, shown_address(address))
        scheme, _, rest = address.partition("://")
        _, _, password, _ = _user_and_place(scheme, rest.partition("?")[0])
        for written in {password, unquote(password), quote(unquote(password), safe=" +")} - {""}:
            text = text.replace(f":{written}@", f":{_MASK}@")
    return text


def _parsed(address: str) -> URL | None:
    """Return the parts of an address; None where SQLAlchemy can't read it, or splits it differently.

    SQLAlchemy ends a password at the first ``@`` and a user's name at the first ``/``, so a part of a password that is
    not encoded would become the host or the name of a database.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    url: URL | None = None
    with contextlib.suppress(ArgumentError, ValueError):
        url = make_url(address)
    if url is None:
        return None
    scheme, _, rest = address.partition("://")
    head, _, query = rest.partition("?")
    name, _, password, _ = _user_and_place(scheme, head)
    if (unquote(name), unquote(password)) != (url.username or "", url.password or ""):
        return None
    options = [part for part in query.split("&") if part]
    return url if "@" not in query and all("=" in part for part in options) else None


def _user_and_place(scheme: str, head: str) -> tuple[str, str, str, str]:
    """Return the user's name, the colon after it, the password, and the rest from the last ``@`` on."""
    if scheme.startswith("sqlite") and head.startswith("/"):
        return "", "", "", head
    user, at, place = head.rpartition("@")
    return (*user.partition(":"), f"{at}{place}")
