"""No command shows the password of an address."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from farsearch.addresses import database_url
from farsearch.errors import BadInput
from tests.journey import call, prepare, read_study, run_arguments, until, watch
from tests.services import Postgres

PASSWORD = "pa-55-word"

ADDRESSES = {
    "nobody listens": f"postgresql://me:{PASSWORD}@127.0.0.1:9/studies",
    "an @ that is not encoded": f"postgresql://me:x@{PASSWORD}@127.0.0.1:9/studies",
    "a port that is none": f"postgresql://me:x@y:{PASSWORD}@127.0.0.1/studies",
    "a slash that is not encoded": f"postgresql://me:x/{PASSWORD}@127.0.0.1:9/studies",
    "in the query": f"postgresql://me@127.0.0.1:9/studies?password={PASSWORD}",
    "a kind that there is not": f"postgrex://me:{PASSWORD}@127.0.0.1/studies",
    "not an address": f"postgresql//me:{PASSWORD}",
    "a user's name with a slash": f"postgresql://me/x:{PASSWORD}@127.0.0.1:9/studies",
    "libpq's own form": f"host=127.0.0.1 port=9 user=me password={PASSWORD}",
    "white space": f"postgresql://me:x y {PASSWORD}@127.0.0.1:9/studies",
    "a query that is none": f"postgresql://me:x@127.0.0.1:9/studies?{PASSWORD}",
    "in the address of a file": f"sqlite://me:{PASSWORD}@127.0.0.1/studies.db",
}


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_an_unusable_storage_is_named_without_its_password(
    tmp_path: Path, address: str, debug: tuple[str, ...]
) -> None:
    """Also in the traceback of ``--debug``."""
    done = call(tmp_path, "status", "--storage", address, *debug)
    assert done.code in (2, 5)
    assert "--storage" in done.err or "does not answer" in done.err
    assert PASSWORD not in done.out + done.err
    assert ("Traceback" in done.err) == bool(debug)


@pytest.mark.parametrize("command", ["sync", "ui"])
@pytest.mark.parametrize("kind", ["http", "postgresql", "mysql"])
def test_a_tracking_address_with_a_password_is_refused(finished_study: Path, command: str, kind: str) -> None:
    """For a server the error suggests MLflow's own variables."""
    done = call(finished_study, command, "--tracking-uri", f"{kind}://me:{PASSWORD}@127.0.0.1:9", "--debug")
    assert done.code == 2
    assert PASSWORD not in done.out + done.err
    assert ("MLFLOW_TRACKING_PASSWORD" in done.err) == (kind == "http")


@pytest.mark.service
def test_a_study_does_not_store_the_password_of_its_database(
    tmp_path: Path, tiny_bert: Path, postgres: Postgres
) -> None:
    """Nor is it printed, although the command had it."""
    url = postgres.url.replace("farsearch@", f"farsearch:{PASSWORD}@")
    done = call(prepare(tmp_path), *run_arguments(tiny_bert, 2, storage=url))
    assert done.code == 0, done.err
    snapshot = read_study(tmp_path, url)
    assert ":***@127.0.0.1" in str(snapshot.meta["command"])
    assert PASSWORD not in done.out + done.err + repr(snapshot)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file


BEFORE, AFTER = "S3cr7", "t9xQ"
"""What every odd password begins and ends with: neither is to be found anywhere."""

ODD = {
    "space": " ",
    "at": "@",
    "colon": ":",
    "slash": "/",
    "percent": "%",
    "encoded": "%20",
    "hash": "#",
    "question": "?",
    "ampersand": "&",
    "equals": "a=b",
    "quotes": "'\"",
    "backslash": "\\",
    "unicode": "ä€",
    "stars": "***",
    "brackets": "[/bold]",
    "dollar": "$HOME",
}


@pytest.fixture(scope="module")
def strict_postgres() -> Iterator[Postgres]:
    """A cluster that requires passwords."""
    server = Postgres(password="administrator")
    yield server
    server.remove()


def set_password(server: Postgres, password: str) -> None:
    """Change the password of the cluster's user."""
    place = f"host=127.0.0.1 port={server.port} user=farsearch dbname=postgres"
    with psycopg.connect(place, password=server.password) as connection:
        literal = psycopg.sql.Literal(password)
        connection.execute(psycopg.sql.SQL("ALTER ROLE farsearch PASSWORD {}").format(literal))
    server.password = password


def address_with(server: Postgres, password: str) -> str:
    """Return the address of a fresh database with a password, encoded only if it can't be parsed otherwise."""
    plain = server.fresh_database()
    written = plain.replace("farsearch@", f"farsearch:{password}@")
    try:
        if database_url(written).password == password:
            return written
    except BadInput:
        pass
    return plain.replace("farsearch@", f"farsearch:{quote(password, safe='')}@")


def dump(server: Postgres) -> str:
    """Return the contents of the latest database."""
    command = [str(server.programs / "pg_dump"), "--dbname", server.url]
    environment = {**os.environ, "PGPASSWORD": server.password}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def assert_nowhere(folder: Path, *texts: str) -> None:
    """Check that neither files in a folder nor texts contain a part of a password."""
    for fragment in (BEFORE, AFTER):
        for text in texts:
            assert fragment not in text
        for file in folder.rglob("*"):
            assert not file.is_file() or fragment.encode() not in file.read_bytes(), file


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_odd_password_is_neither_shown_nor_stored(
    tmp_path: Path, tiny_bert: Path, strict_postgres: Postgres, odd: str
) -> None:
    """In the output of a search and of errors, in their files, and in the databases."""
    set_password(strict_postgres, f"{BEFORE}{odd}{AFTER}")
    address = address_with(strict_postgres, strict_postgres.password)
    folder, place = prepare(tmp_path), ("--storage", address)
    done = call(folder, *run_arguments(tiny_bert, 1, storage=address))
    assert done.code == 0, done.err
    assert ":***@127.0.0.1" in str(read_study(folder, address).meta["command"])
    failed = {
        "another trial": (2, ("show", "tiny", "--trial", "99", *place)),
        "another study": (2, ("status", "nothing", f"--storage={address}")),
        "another database": (5, ("status", "--storage", f"{address}-not-there")),
        "another password": (5, ("status", "--storage", address.replace("@127.0.0.1:", "x@127.0.0.1:"))),
        "a wrong option": (5, ("status", "--storage", f"{address}?x={BEFORE}")),
        "the other address": (2, ("sync", *place, "--tracking-uri", address)),
    }
    texts = [done.out, done.err, dump(strict_postgres)]
    for name, (code, words) in failed.items():
        each = call(folder, *words, "--debug")
        assert each.code == code, (name, each.err)
        texts += [each.out, each.err]
    assert_nowhere(folder, *texts)


@pytest.mark.slow
@pytest.mark.service
def test_no_command_shows_the_password(tmp_path: Path, tiny_bert: Path, strict_postgres: Postgres) -> None:
    set_password(strict_postgres, f"{BEFORE} /%&{AFTER}")
    address = address_with(strict_postgres, strict_postgres.password)
    folder = prepare(tmp_path)
    texts = []
    for words in (
        run_arguments(tiny_bert, 2),
        run_arguments(tiny_bert, 2),
        ("status",),
        ("trials",),
        ("show", "tiny"),
        ("pareto",),
        ("studies", "list"),
        ("sync",),
        ("report",),
        ("worker", "tiny"),
        ("doctor",),
    ):
        done = call(folder, *words, "--storage", address)
        assert done.code == 0 or words == ("doctor",), (words, done.err)
        texts += [done.out, done.err]
    assert_nowhere(folder, dump(strict_postgres), *texts)


@pytest.mark.slow
@pytest.mark.service
def test_command_lines_of_workers_do_not_contain_the_password(
    tmp_path: Path, tiny_bert: Path, strict_postgres: Postgres
) -> None:
    """Other users of a host can read command lines."""
    set_password(strict_postgres, f"{BEFORE} {AFTER}")
    address = address_with(strict_postgres, strict_postgres.password)
    folder = prepare(tmp_path)
    lines: set[str] = set()

    def seen() -> bool:
        for number in run.children:
            lines.add(Path(f"/proc/{number}/cmdline").read_bytes().decode())
        return sum("worker" in line for line in lines) > 0 and ("] trial " in run.err or not run.running)

    environment = {**os.environ, "FARSEARCH_STORAGE": address}
    with watch(folder, *run_arguments(tiny_bert, 2, workers=2), env=environment) as run:
        until(seen, lambda: run.err)
        done = run.end()
    assert done.code == 0, done.err
    assert lines
    assert_nowhere(folder, done.err, *lines)
