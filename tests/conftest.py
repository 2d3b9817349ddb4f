"""Settings that every test runs under. Markers and warnings are configured in pyproject.toml."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["tests.services"]

# Before torch is imported anywhere: pytest runs one process a core, so one thread each. One thread also makes the
# order of sums, and with it every figure, the same from run to run.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests need nothing but the install: whatever would ask a network fails at once. A test of the unreachable hub starts
# a process with an environment of its own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Pictures are written, never shown.
os.environ["MPLBACKEND"] = "agg"

# A busy machine is no failure, and what failed once must fail again.
hypothesis.settings.register_profile("farsearch", deadline=None, derandomize=True)
hypothesis.settings.load_profile("farsearch")


def pytest_configure(config: pytest.Config) -> None:
    """What the tests of whole commands need."""
    # a shell that runs the tests in the background has Ctrl-C ignored, and so would the commands that they start
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # commands that are called in this process leave their database's connections to its end
    config.addinivalue_line("filterwarnings", "ignore:<psycopg.Connection .* was deleted:ResourceWarning")


def pytest_addoption(parser: pytest.Parser) -> None:
    """A run that is to meet everything fails where something is missing that nobody allowed to be.

    With a ``=`` between option and file: pytest would take a file of its own for a place to look for tests.
    """
    parser.addoption(
        "--allowed-skips",
        type=Path,
        metavar="FILE",
        help="Fail where a test is skipped for a reason that no line of FILE (regular expressions, # comments) says.",
    )


def _not_allowed(config: pytest.Config) -> list[str]:
    """Skips that ``--allowed-skips`` does not list."""
    file = config.getoption("--allowed-skips")
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if file is None or reporter is None:
        return []
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    allowed = [line for line in lines if line and not line.startswith("#")]
    found = []
    for report in reporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(re.search(pattern, reason) for pattern in allowed):
            found.append(f"{report.nodeid}: {reason}")
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Skips that are not allowed fail the run."""
    if session.exitstatus == pytest.ExitCode.OK and _not_allowed(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the skips that failed the run."""
    found = _not_allowed(config)
    if found:
        terminalreporter.section("skips that are not allowed", red=True, bold=True)
        for line in found:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT with a tokenizer, made once. Do not write to it."""
    # here and not above: torch reads the settings above when it is first imported
    from tests.tiny import make_bert

    return make_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny DistilBERT with a tokenizer, made once. Do not write to it."""
    from tests.tiny import make_distilbert

    return make_distilbert(tmp_path_factory.mktemp("models") / "tiny-distilbert")


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Working directory with the finished study ``tiny`` of nine trials in it. Copy it before a test changes it."""
    from tests.journey import call, prepare, run_arguments

    folder = prepare(tmp_path_factory.mktemp("finished"))
    done = call(folder, *run_arguments(tiny_bert, 9))
    assert done.code == 0, done.err
    return folder
