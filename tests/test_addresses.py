"""Passwords of addresses: nowhere in what is shown."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farsearch.addresses import database_url, hide_passwords, shown_address
from farsearch.errors import BadInput

LETTERS = string.ascii_letters + string.digits + string.punctuation + " \t\näé\u2028"
PASSWORDS = st.text(LETTERS, min_size=1)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se/cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@lab:secret@host/db", "postgresql://me@lab:***@host/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://me:@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db?password=secret&sslmode=require", "postgresql://me@host/db?password=***&sslmode=require"),
        ("postgresql://me@host/db?sslpassword=secret", "postgresql://me@host/db?sslpassword=***"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me@[::1]:5432/db", "postgresql://me@[::1]:5432/db"),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///db?host=/run/postgresql"),
        ("http://me:secret@host:5000", "http://me:***@host:5000"),
        ("http://127.0.0.1:5000/#/experiments/1", "http://127.0.0.1:5000/#/experiments/1"),
        ("sqlite:///folder/a@b:c.db", "sqlite:///folder/a@b:c.db"),
        ("sqlite://me:secret@host/a.db", "sqlite://me:***@host/a.db"),
        ("studies.db", "studies.db"),
    ],
)  # fmt: skip
def test_a_password_becomes_stars(address: str, shown: str) -> None:
    """What goes is the password and what may be one, and nothing else."""
    assert shown_address(address) == shown


@pytest.mark.parametrize(
    ("address", "shown", "mend"),
    [
        ("postgresql://me:se@cret@host/db", "postgresql://...", "%40 for @"),
        ("postgresql://me/x:secret@host/db", "postgresql://...", "%2F for /"),
        ("postgresql://me:x@y:secret@host/db", "postgresql://...", "%3A for :"),
        ("postgresql://me:x@y?z=secret@host/db", "postgresql://...", "%3F for ?"),
        ("postgresql://host?password=se@cret", "postgresql://...", "%40 for @"),
        ("postgresql://me:secret@host:port/db", "postgresql://...", "postgresql://user@host/name"),
        ("host=db.lab user=me password=secret", "...", "PGPASSWORD"),
        ("password = 'secret' host = db.lab", "...", "PGPASSWORD"),
        ("postgresql//me:secret", "...", "postgresql://user@host/name"),
        ("sqlite:////data/what? now/a.db", "sqlite://...", "%3F for ?"),
        ("studies.db", "studies.db", "sqlite:///FILE"),
    ],
)
def test_what_cannot_be_read_is_refused_without_any_of_it(address: str, shown: str, mend: str) -> None:
    """The message says what to write, and repeats nothing that may be a part of a password."""
    assert shown_address(address) == shown
    with pytest.raises(BadInput) as caught:
        database_url(address)
    message = str(caught.value)
    assert message.startswith(f"--storage {shown} can't be used: ")
    assert mend in message
    assert "secret" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(password=PASSWORDS)
def test_an_encoded_password_is_read_and_never_shown(password: str) -> None:
    """Any password, encoded as an address wants it, is the one that the database is given, and is not shown."""
    for written in {quote(password, safe=""), quote(password, safe=" +")}:
        address = f"postgresql://me:{written}@host:5432/db"
        assert database_url(address).password == password
        assert shown_address(address) == "postgresql://me:***@host:5432/db"
        assert shown_address(shown_address(address)) == shown_address(address)


@given(password=PASSWORDS, user=st.text(LETTERS), rest=st.sampled_from(["", "/db", ":5432/db", "/db?sslmode=require"]))
def test_a_password_as_it_is_is_read_right_or_not_at_all(password: str, user: str, rest: str) -> None:
    """Written without encoding, a password is either what the database is given, or the address is refused."""
    secret = f"<<{password}>>"
    assume("://" not in user and "<<" not in user)
    for address in (f"postgresql://{user}:{secret}@host{rest}", f"postgresql://me@host/db?password={secret}"):
        assert secret not in shown_address(address)
        assert secret not in hide_passwords(f"could not parse {address}!", [address])
        assert "<<" not in read_as(address)


def read_as(address: str) -> str:
    """Return host and database as they are read, or why they can't be."""
    try:
        url = database_url(address)
    except BadInput as error:
        return str(error)
    return f"{url.host} {url.database}"


def test_text_of_a_vendor_keeps_all_but_the_password() -> None:
    """The address is hidden as it was given and as SQLAlchemy writes it; ordinary words that equal it stay."""
    address = "postgresql://me:d%40b@host/db"
    text = f"d@b: {address} or postgresql+psycopg://me:d%40b@host/db or postgresql://me:d@b@host/db"
    hidden = hide_passwords(text, [address])
    assert hidden == f"d@b: {shown_address(address)} or postgresql+psycopg://me:***@host/db or {shown_address(address)}"
