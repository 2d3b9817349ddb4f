"""The team's services: checks of the files, and the same processes at work."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
import yaml

import farsearch
from tests.compose.stack import ROOT, VARIABLE, Stack, compose_file, env_example
from tests.journey import assert_whole, call, prepare

PASSWORD = "c0rrect:horse/battery@stap le%41"
"""With all that an address would need to have encoded."""

SECRETS = ("POSTGRES_PASSWORD",)
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = compose_file({"POSTGRES_PASSWORD": PASSWORD})["services"]
N_TRIALS = 6


def test_every_variable_is_documented_and_no_secret_has_a_value() -> None:
    """``.env.example`` names exactly the variables of the file; without a password nothing starts."""
    used = {match.group(1) for match in VARIABLE.finditer(TEXT) if match.group(1)}
    example = env_example()
    assert set(example) == used
    assert set(example.values()) == {""}
    required = {match.group(1) for match in VARIABLE.finditer(TEXT) if match.group(2) == "?"}
    assert required == set(SECRETS)
    assert {match.group(2) for match in VARIABLE.finditer(TEXT) if match.group(1) in SECRETS} == {"?"}
    with pytest.raises(KeyError, match=r"POSTGRES_PASSWORD: .*\.env\.example"):
        compose_file(example)


def test_ports_are_published_on_this_host_by_default() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:5000:5000", "127.0.0.1:5432:5432", "127.0.0.1:8080:8080"]
    open_wide = compose_file({"POSTGRES_PASSWORD": "x", "FARSEARCH_BIND": "10.1.2.3"})["services"].values()
    assert {port.split(":")[0] for service in open_wide for port in service.get("ports", [])} == {"10.1.2.3"}
    assert not any("network_mode" in service or service.get("privileged") for service in SERVICES.values())


def test_secrets_are_only_in_environments() -> None:
    """Not in commands, addresses, health checks or build arguments."""
    for name, service in SERVICES.items():
        environment = service.pop("environment", {})
        try:
            assert PASSWORD not in yaml.safe_dump(service), name
            holders = {key for key, value in environment.items() if PASSWORD in str(value)}
            assert holders <= {"PGPASSWORD", "POSTGRES_PASSWORD"}
        finally:
            service["environment"] = environment


def test_images_are_pinned_and_services_have_health_checks() -> None:
    """The version of our image is that of the package."""
    for name, service in SERVICES.items():
        assert re.fullmatch(r"(postgres:\d+\.\d+-\w+|farsearch:\d+\.\d+\.\d+)", service["image"]), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "healthcheck" in service or service["restart"] in ("no", "on-failure")
        if "build" in service:
            assert service["image"] == f"farsearch:{farsearch.__version__}"
            assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
    options = SERVICES["mlflow"]["command"]
    assert "--serve-artifacts" in options
    assert [word for word in options if word.startswith("--allowed-hosts=")] == [
        "--allowed-hosts=mlflow:5000,localhost:*,127.0.0.1:*"
    ]


def test_the_image_is_pinned_and_does_not_run_as_root() -> None:
    """Two stages of one exact version, constraints for every install, and existing files."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", bases[0])
    installs = [line for line in lines if "pip install" in line]
    assert installs
    assert all("constraint constraints.txt" in line for line in installs)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == shown
    assert all((ROOT / name).exists() for name in copied)
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    asked = re.search(r"for name in \(([^)]*)\)", "\n".join(lines))
    assert asked is not None
    assert set(re.findall(r"\w+", asked.group(1))) <= extras


def test_passwords_stay_out_of_git_and_the_image() -> None:
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.service
@pytest.mark.parametrize("profile", [(), ("--profile", "dashboard")], ids=["plain", "dashboard"])
def test_docker_compose_accepts_the_file(tmp_path: Path, profile: tuple[str, ...]) -> None:
    """Without a password it refuses the file and names the variable."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    for name in ("docker-compose.yml", ".env.example"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copy(tmp_path / ".env.example", tmp_path / ".env")
    clean = {name: value for name, value in os.environ.items() if name not in env_example()}
    command = ["docker-compose", *profile, "config"]
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "POSTGRES_PASSWORD" in done.stderr
    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=s3cret\n")
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)["services"]
    ours = compose_file({"POSTGRES_PASSWORD": "s3cret"})["services"]
    assert set(read) <= set(ours)
    for name, service in read.items():
        assert service["image"] == ours[name]["image"]
        assert service.get("command") == ours[name].get("command")
        assert service.get("environment") == ours[name].get("environment")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Database and MLflow, as ``docker compose up mlflow`` starts them."""
    env = {"POSTGRES_PASSWORD": PASSWORD, "FARSEARCH_STUDY": "tiny", "FARSEARCH_THREADS": "1",
           "FARSEARCH_DATA": str(prepare(tmp_path / "data"))}  # fmt: skip
    stack = Stack(tmp_path / "stack", env)
    try:
        stack.start_postgres()
        stack.healthy("postgres")
        assert stack.run("databases") == 0, stack.said()
        assert stack.run("databases") == 0, stack.said()  # a second start finds the databases
        stack.start("mlflow")
        stack.healthy("mlflow")
        yield stack
    finally:
        stack.stop()


def _status_of(url: str, host: str) -> int:
    request = urllib.request.Request(url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _dump(stack: Stack, database: str) -> str:
    """Return the contents of a database of the stack."""
    assert stack.postgres is not None
    address = ("--host=127.0.0.1", f"--port={stack.postgres.port}", "--username=farsearch")
    command = [str(stack.postgres.programs / "pg_dump"), *address, database]
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_services_complete_a_study_together(stack: Stack, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers complete a study that a run started: exact trials, the same in MLflow, and no secret anywhere.

    The services listen only on 127.0.0.1 and on ports that the file publishes.
    """
    assert stack.postgres is not None
    shutil.copytree(tiny_bert, Path(stack.env["FARSEARCH_DATA"]) / "model")
    begin = ["run", "--device", "jetson-nano", "--task", "sst2", "--study", "tiny", "--data-dir", "/data/data",
             "--model", "/data/model", "--space", "/data/tiny.yaml", "--train-samples", "320", "--batch-size", "16",
             "--max-length", "16", "--n-trials", str(N_TRIALS), "--timeout", "0.1"]  # fmt: skip
    assert stack.run("worker", *begin, log="run") == 0, stack.said()

    workers = [stack.start("worker", log=f"worker-{number}") for number in (1, 2)]
    living = list(stack.processes())
    listening = _listening(living)
    for process in living:
        with _gone_is_well():
            assert PASSWORD not in " ".join(process.cmdline())
    assert [worker.wait(timeout=600) for worker in workers] == [0, 0], stack.said()
    assert listening | _listening(list(stack.processes())) == {
        ("127.0.0.1", stack.postgres.port), ("127.0.0.1", stack.mlflow_port)
    }  # fmt: skip

    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    storage = stack.here("postgresql://farsearch@postgres:5432/studies")
    tracking = stack.here("http://mlflow:5000")
    synced = call(stack.volumes["/studies"], "sync", "--storage", storage, "--tracking-uri", tracking)
    assert synced.code == 0, synced.err
    snapshot = assert_whole(stack.volumes["/studies"], N_TRIALS, storage, tracking)
    assert snapshot.n_trials == N_TRIALS

    assert {path.name for path in stack.volumes["/artifacts"].rglob("*") if path.is_file()} >= {
        "front.png",
        "study.json",
    }
    assert list(stack.nowhere.iterdir()) == []  # MLflow's server writes only to its volume
    assert _status_of(f"{tracking}/", f"127.0.0.1:{stack.mlflow_port}") == 200
    assert _status_of(f"{tracking}/", "evil.example:5000") == 403
    if importlib.util.find_spec("optuna_dashboard"):
        _assert_the_dashboard_shows_it(stack)
    _assert_no_secret(stack)


def _listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    """Return the addresses on which the processes listen."""
    found = set()
    for process in processes:
        with _gone_is_well():
            connections = process.net_connections(kind="inet")
            found |= {tuple(each.laddr) for each in connections if each.status == psutil.CONN_LISTEN or not each.raddr}
    return found


def _gone_is_well() -> AbstractContextManager[None]:
    """Ignore processes that have ended meanwhile."""
    return suppress(psutil.NoSuchProcess)


def _assert_no_secret(stack: Stack) -> None:
    """Check that logs, volumes and databases do not contain the password, plain or encoded."""
    needles = [PASSWORD, quote(PASSWORD, safe=""), PASSWORD.replace("/", "\\/")]
    texts = {"logs": stack.said(), **{name: _dump(stack, name) for name in ("studies", "mlflow")}}
    assert all(len(text) > 100 for text in texts.values())
    for path in stack.folder.rglob("*"):
        if path.is_file():
            texts[str(path)] = path.read_bytes().decode("utf-8", errors="replace")
    for where, text in texts.items():
        assert not any(needle in text for needle in needles), where


def _assert_the_dashboard_shows_it(stack: Stack) -> None:
    """Check that the optional service starts, is healthy, lists the study, and listens only on 127.0.0.1."""
    dashboard = stack.start("dashboard")
    stack.healthy("dashboard")
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.dashboard_port}/api/studies", timeout=30) as answer:
        assert b'"study_name": "tiny"' in answer.read()
    assert _listening([psutil.Process(dashboard.pid)]) == {("127.0.0.1", stack.dashboard_port)}
