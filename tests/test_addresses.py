"""Passwords of addresses: nowhere in what is shown."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from farsearch.addresses import sqlite_address, without_password

LETTERS = string.ascii_letters + string.digits + string.punctuation


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se/cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@lab:secret@host/db", "postgresql://me@lab:***@host/db"),
        ("postgresql://:secret@host/db", "postgresql://:***@host/db"),
        ("postgresql://me@host/db?password=secret&sslmode=require", "postgresql://me@host/db?password=***&sslmode=require"),
        ("run --storage postgresql://me:a:b@h/d --n 3", "run --storage postgresql://me:***@h/d --n 3"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me@host:5432/db does not answer", "postgresql://me@host:5432/db does not answer"),
        ("http://127.0.0.1:5000/#/experiments/1 and me@host", "http://127.0.0.1:5000/#/experiments/1 and me@host"),
    ],
)  # fmt: skip
def test_a_password_becomes_stars(text: str, shown: str) -> None:
    """What goes is the password and nothing else, also where it is not encoded as an address wants it."""
    assert without_password(text) == shown


@given(password=st.text(LETTERS, min_size=1), before=st.text(LETTERS + " "), after=st.text(LETTERS + " "))
def test_no_password_is_left_whatever_it_is_made_of(password: str, before: str, after: str) -> None:
    """Any password without a space is hidden, whatever stands around the address."""
    secret = f"<<{password}>>"
    text = f"{before} postgresql://me:{secret}@host/db?password={secret.replace('&', '')} {after}"
    assert secret not in without_password(text)
    assert without_password(without_password(text)) == without_password(text)


@pytest.mark.parametrize("name", ["plain", "what? now", "a%20b", "half % off#1", "é ü", "a&b=c;d", "back\\slash"])
def test_a_sqlite_address_leads_to_its_file(tmp_path: Path, name: str) -> None:
    """Opened by SQLAlchemy, the address makes the file at that path, and no other."""
    folder = tmp_path / name
    folder.mkdir()
    engine = sqlalchemy.create_engine(sqlite_address(folder / f"{name}.db"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (x INTEGER)"))
    engine.dispose()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / f"{name}.db"]
