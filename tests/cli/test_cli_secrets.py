"""No command shows the password of an address that it was given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journey import call, prepare, read_study, run_arguments
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
}


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["plain", "debug"])
@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES.keys())
def test_a_storage_that_fails_is_named_without_its_password(
    tmp_path: Path, address: str, debug: tuple[str, ...]
) -> None:
    """The line of the error, and with --debug the traceback, name the address without the password or a part of it."""
    done = call(tmp_path, "status", "--storage", address, *debug)
    assert done.code in (2, 5)
    assert "--storage" in done.err or "does not answer" in done.err
    assert PASSWORD not in done.out + done.err
    assert ("Traceback" in done.err) == bool(debug)


@pytest.mark.parametrize("command", ["sync", "ui"])
@pytest.mark.parametrize("kind", ["http", "postgresql", "mysql"])
def test_a_tracking_address_with_a_password_is_refused(finished_study: Path, command: str, kind: str) -> None:
    """MLflow's own variables are named for what is no part of its address, which is shown without the password."""
    done = call(finished_study, command, "--tracking-uri", f"{kind}://me:{PASSWORD}@127.0.0.1:9", "--debug")
    assert done.code == 2
    assert PASSWORD not in done.out + done.err
    assert ("MLFLOW_TRACKING_PASSWORD" in done.err) == (kind == "http")


@pytest.mark.service
def test_a_study_does_not_keep_the_password_of_its_database(
    tmp_path: Path, tiny_bert: Path, postgres: Postgres
) -> None:
    """Neither the study nor what its run prints holds the password, though the command that made it does."""
    url = postgres.url.replace("farsearch@", f"farsearch:{PASSWORD}@")
    done = call(prepare(tmp_path), *run_arguments(tiny_bert, 2, storage=url))
    assert done.code == 0, done.err
    snapshot = read_study(tmp_path, url)
    assert ":***@127.0.0.1" in str(snapshot.meta["command"])
    assert PASSWORD not in done.out + done.err + repr(snapshot)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes(), file
