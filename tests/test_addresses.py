"""Passwords of addresses are never shown."""

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
def test_passwords_are_masked(address: str, shown: str) -> None:
    """And options that may be secret, but nothing else."""
    assert shown_address(address) == shown


@pytest.mark.parametrize(
    ("address", "shown", "fix"),
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
def test_an_unparsable_address_is_refused_without_repeating_it(address: str, shown: str, fix: str) -> None:
    assert shown_address(address) == shown
    with pytest.raises(BadInput) as caught:
        database_url(address)
    message = str(caught.value)
    assert message.startswith(f"--storage {shown} can't be used: ")
    assert fix in message
    assert "secret" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@given(password=PASSWORDS)
def test_an_encoded_password_is_decoded_and_never_shown(password: str) -> None:
    for written in {quote(password, safe=""), quote(password, safe=" +")}:
        address = f"postgresql://me:{written}@host:5432/db"
        assert database_url(address).password == password
        assert shown_address(address) == "postgresql://me:***@host:5432/db"
        assert shown_address(shown_address(address)) == shown_address(address)


@given(password=PASSWORDS, user=st.text(LETTERS), rest=st.sampled_from(["", "/db", ":5432/db", "/db?sslmode=require"]))
def test_an_unencoded_password_is_parsed_correctly_or_refused(password: str, user: str, rest: str) -> None:
    secret = f"<<{password}>>"
    assume("://" not in user and "<<" not in user)
    for address in (f"postgresql://{user}:{secret}@host{rest}", f"postgresql://me@host/db?password={secret}"):
        assert secret not in shown_address(address)
        assert secret not in hide_passwords(f"could not parse {address}!", [address])
        assert "<<" not in read_as(address)


def read_as(address: str) -> str:
    """Return host and database as they are parsed, or the error."""
    try:
        url = database_url(address)
    except BadInput as error:
        return str(error)
    return f"{url.host} {url.database}"


def test_a_vendor_s_message_loses_only_the_password() -> None:
    """In the address as given and as SQLAlchemy writes it; equal ordinary words stay."""
    address = "postgresql://me:d%40b@host/db"
    text = f"d@b: {address} or postgresql+psycopg://me:d%40b@host/db or postgresql://me:d@b@host/db"
    hidden = hide_passwords(text, [address])
    assert hidden == f"d@b: {shown_address(address)} or postgresql+psycopg://me:***@host/db or {shown_address(address)}"
