"""Settings of all tests. Markers and warnings are configured in pyproject.toml."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

pytest_plugins = ["tests.services"]

# Set before torch is imported: pytest runs one process per core, so one thread each. One thread also makes the order
# of sums, and every figure, reproducible.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests need no network: requests fail at once. A test of the unreachable hub starts a process with its own environment.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Pictures are written, not displayed.
os.environ["MPLBACKEND"] = "agg"

# No deadlines on a busy machine, and reproducible failures.
hypothesis.settings.register_profile("farsearch", deadline=None, derandomize=True)
hypothesis.settings.load_profile("farsearch")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the process for tests of whole commands."""
    # a shell that runs the tests in the background ignores Ctrl-C, which child processes inherit
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # commands called in this process leave their database connections open
    config.addinivalue_line("filterwarnings", "ignore:<psycopg.Connection .* was deleted:ResourceWarning")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option that fails a run with unexpected skips.

    Give it with ``=``: pytest would take a separate file argument for a test path.
    """
    parser.addoption(
        "--allowed-skips",
        type=Path,
        metavar="FILE",
        help="Fail if a test is skipped for a reason that no line of FILE (regular expressions, # comments) matches.",
    )


def _not_allowed(config: pytest.Config) -> list[str]:
    """Return skips that ``--allowed-skips`` does not list."""
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
    """Fail the run for skips that are not allowed."""
    if session.exitstatus == pytest.ExitCode.OK and _not_allowed(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the skips that failed the run."""
    found = _not_allowed(config)
    if found:
        terminalreporter.section("skips that are not allowed", red=True, bold=True)
        for line in found:
            terminalreporter.write_line(line)


_LONG_FILES = (
    # these wait for processes, and none of their tests is in `make test`
    "tests/survival/test_survival_same_seed.py", "tests/cli/test_cli_workers.py",
    "tests/survival/test_survival_kills.py", "tests/survival/test_survival_database.py",
    "tests/survival/test_survival_signals.py", "tests/survival/test_survival_mirror.py",
    "tests/survival/test_survival_together.py", "tests/hub/test_hub_everything.py", "tests/hub/test_hub_faults.py",
    "tests/cli/test_cli_secrets.py", "tests/cost/test_cost_plans.py", "tests/board/test_board.py",
    "tests/models/test_models_families.py",
    # these take from 100 to 15 seconds of a processor in `make test`
    "tests/test_api.py", "tests/bundle/test_bundle_export.py", "tests/study/test_study_search.py",
    "tests/test_tracking.py", "tests/tasks/test_task_custom_journey.py", "tests/tasks/test_task_journey.py",
    "tests/cost/test_cost_segment_costs.py", "tests/bundle/test_bundle_onnx.py",
    "tests/cost/test_cost_pricer.py", "tests/cost/test_cost_real.py", "tests/bundle/test_bundle_train.py",
    "tests/cli/test_cli_devices.py", "tests/cli/test_cli_baselines.py", "tests/test_priming_cache.py",
    "tests/bundle/test_bundle_foreign.py", "tests/calibration/test_calibration_board.py",
    "tests/test_baselines.py", "tests/cli/test_cli_estimate.py",
    "tests/study/test_study_samplers.py", "tests/cost/test_cost_compose.py", "tests/test_priming.py",
    "tests/bundle/test_bundle_mutations.py", "tests/test_report.py", "tests/cost/test_cost_sweep.py",
    "tests/cli/test_cli_run.py", "tests/cli/test_cli_verify.py", "tests/cli/test_cli_streams.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that the parallel processes end together."""
    place = {name: i for i, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first of pytest's parallel processes makes. Nothing may change it."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not Path(f"{folder}.done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            Path(f"{folder}.done").touch()
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny BERT with a tokenizer, shared by all tests. Do not write to it."""
    # imported here, because torch reads the settings above at its first import
    from tests.tiny import make_bert

    return _made_once(tmp_path_factory, "tiny-bert", make_bert)


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny DistilBERT with a tokenizer, shared by all tests. Do not write to it."""
    from tests.tiny import make_distilbert

    return _made_once(tmp_path_factory, "tiny-distilbert", make_distilbert)


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Working directory with the finished study ``tiny`` of nine trials. Copy it before a test changes it."""
    from tests.journey import call, prepare, run_arguments

    def make(folder: Path) -> None:
        done = call(prepare(folder), *run_arguments(tiny_bert, 9))
        assert done.code == 0, done.err

    made = _made_once(tmp_path_factory, "finished", make)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("finished") / "work"))
