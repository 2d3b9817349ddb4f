"""The public surface of the command line: names, help and exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import farsearch
from farsearch.cli import cli, main
from tests.journey import call, start

COMMON = {"-h", "--help"}
STORAGE, TRACKING, JSON = "--storage", "--tracking-uri", "--json"
CHOICE = {"--prefer", "--within", "--max-memory", "--max-time", "--min-metric", "--trial", "--plan"}
COST = {
    "--model", "--revision", "--batch-size", "--max-length", "--classes", "--samples", "--method", "--frozen-fraction",
    "--frozen-heads", "--frozen-embeddings", "--frozen-attention-layers", "--frozen-bottom-layers", "--plan",
    "--optimizer", "--micro-batch-size", "--engine", "--precision",
}  # fmt: skip
SURFACE: dict[str, set[str]] = {
    "cache clear": {"--kind", "--older-than", "--yes"},
    "cache show": {JSON},
    "devices calibrate": {"--engine", "--out", "--script", "--seconds"},
    "devices check NAME": {"--engine", "--model", JSON},
    "devices import RESULT": {"--name", "--like", "--force"},
    "devices list": {JSON},
    "devices rank": {*COST, JSON},
    "devices show NAME": set(),
    "devices submit NAME": {"--board", "--out"},
    "doctor": {JSON, STORAGE, TRACKING},
    "estimate": {
        *COST, "--device", "--priming-epochs", "--prime-on", "--largest-batch", "--sweep", "--space", "--png", JSON,
        "--train", "--train-labels", "--dev", "--dev-labels", "--separator", "--columns", "--text-column",
        "--label-column", "--kind", "--metric", "--label", "--label-separator", "--decimal-comma", "--positive",
        "--skip-bad-rows",
    },
    "export STUDY": {
        *CHOICE, "--out", "--delta", "--onnx", "--engine", "--refit", "--data-dir", "--register", "--alias", STORAGE,
        TRACKING,
    },
    "finetune BUNDLE": {"--train", "--dev", "--out", "--epochs", "--patience", "--base", "--engine"},
    "models list": {JSON},
    "pareto STUDY": {"--png", JSON, STORAGE},
    "reprice STUDY": {"--device", "--name", "--data-dir", "--model", JSON, STORAGE, TRACKING},
    "report STUDY": {"--out", "--figures", "--open", "--no-open", STORAGE},
    "run": {
        "--device", "--task", "--train", "--train-labels", "--dev", "--dev-labels", "--separator", "--columns",
        "--text-column", "--label-column", "--kind", "--metric", "--label", "--label-separator", "--decimal-comma",
        "--positive", "--skip-bad-rows",
        "--model", "--allow-pickle", "--revision", "--keep-head", "--data-dir",
        "--class-weights", "--patience", "--label-smoothing", "--clip-norm",
        "--study", "--space", "--n-trials", "--timeout", "--train-samples", "--epochs",
        "--batch-size", "--max-length", "--seed", "--set", "--max-memory", "--max-time", "--device-samples",
        "--prime-on", "--plan", "--engine", "--precision", "--sampler", "--racing", "--no-racing", "--baselines",
        "--verify", "--workers", "--dry-run", "--heartbeat", STORAGE, TRACKING,
    },
    "show STUDY": {*CHOICE, "--select", JSON, STORAGE, TRACKING},
    "spaces check PATH": {"--model"},
    "spaces list": {"--model"},
    "spaces show NAME": {"--model"},
    "status STUDY": {JSON, STORAGE},
    "studies delete NAME": {"--yes", "--mlflow", STORAGE, TRACKING},
    "studies list": {JSON, STORAGE},
    "studies rename OLD NEW": {STORAGE, TRACKING},
    "sync STUDY": {"--measurement", STORAGE, TRACKING},
    "tasks list": {JSON},
    "tasks show NAME": {
        "--train-labels", "--dev", "--dev-labels", "--separator", "--columns", "--text-column", "--label-column",
        "--kind", "--metric", "--label", "--label-separator", "--decimal-comma", "--positive", "--skip-bad-rows", JSON,
    },
    "trials STUDY": {JSON, STORAGE},
    "ui STUDY": {"--port", "--browser", "--no-browser", STORAGE, TRACKING},
    "verify STUDY": {
        "--trials", "--seeds", "--train-samples", "--baselines", "--data-dir", "--model", "--device", JSON, STORAGE,
        TRACKING,
    },
    "watch STUDY": {"--host", "--port", "--browser", "--no-browser", STORAGE},
    "worker STUDY": {
        "--data-dir", "--model", "--device", "--timeout", "--heartbeat", "--for-run", STORAGE, TRACKING,
    },
}  # fmt: skip


def walk(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield all commands with their paths."""
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from walk(child, f"{path} {name}".strip())
    else:
        yield path, command


COMMANDS = dict(walk(cli))


def test_commands_and_flags_are_pinned() -> None:
    """Every change of a command or flag has to change this list."""
    found = {}
    for path, command in COMMANDS.items():
        arguments = [p.name.upper() for p in command.params if isinstance(p, click.Argument) and p.name]
        flags = {name for p in command.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)}
        found[" ".join([path, *arguments])] = flags
    assert found == SURFACE
    assert {name for p in cli.params for name in p.opts} == {"--version", "--debug"}


@pytest.mark.parametrize("path", ["", *sorted(COMMANDS), "cache", "devices", "models", "spaces", "studies", "tasks"])
def test_every_command_and_option_has_help(tmp_path: Path, path: str) -> None:
    done = call(tmp_path, *path.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out == call(tmp_path, *path.split(), "-h").out
    assert done.out.startswith(f"Usage: farsearch {path}".rstrip())
    command = COMMANDS.get(path)
    if command is None:
        return
    assert command.help
    assert len(command.help.splitlines()[0]) > 15
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.opts[0]} has no help"


@pytest.mark.parametrize(
    "path",
    [
        "run",
        "worker",
        "status",
        "trials",
        "pareto",
        "show",
        "export",
        "finetune",
        "estimate",
        "ui",
        "report",
        "verify",
        "doctor",
    ],
)
def test_the_main_commands_have_examples_that_parse(path: str) -> None:
    lines = [line.strip() for line in (COMMANDS[path].help or "").splitlines()]
    examples = [line.partition(" | ")[0].split() for line in lines if line.startswith("farsearch ")]
    assert examples
    for words in examples:
        with cli.make_context("farsearch", words[1:], resilient_parsing=False) as context:
            name, command, rest = cli.resolve_command(context, [*context._protected_args, *context.args])
            assert command is not None
            command.make_context(name, list(rest), parent=context)


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys, farsearch\n"
        "from farsearch.cli import main\n"
        "try:\n main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'mlflow', 'optuna', 'matplotlib', 'numpy', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert call(tmp_path, "--version").out == f"farsearch {farsearch.__version__}\n"


@pytest.mark.parametrize("path", [(), ("devices",), ("studies",)])
def test_a_call_without_a_command_prints_the_help(tmp_path: Path, path: tuple[str, ...]) -> None:
    """With the exit code of bad usage."""
    done = call(tmp_path, *path)
    assert done.code == 2
    assert "Commands:\n" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("paretto",), "No such command 'paretto'"),
        (("run", "--divice", "x"), "No such option '--divice'"),
        (("run", "--task", "sst2"), "Missing option '--device' (see farsearch run --help)"),
        (("status", "a", "b"), "Got unexpected extra argument (b) (see farsearch status --help)"),
        (("pareto", "--png"), "Option '--png' requires an argument"),
        (("ui", "--port", "0"), "0 is not in the range"),
    ],
)
def test_bad_usage_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    """The line refers to the help."""
    done = call(tmp_path, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("farsearch: ")
    assert message in done.err
    assert " --help)" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_adds_the_traceback_at_any_position(tmp_path: Path, place: int) -> None:
    words = ["status", "nosuch", "--json"]
    plain = call(tmp_path, *words)
    words.insert(place, "--debug")
    debug = call(tmp_path, *words)
    assert plain.code == debug.code == 2
    assert "Traceback" not in plain.err
    assert "Traceback (most recent call last)" in debug.err
    assert debug.err.splitlines()[-1] == plain.err.strip()


def test_an_unexpected_error_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line refers to ``--debug``."""

    def fail(*_: object) -> None:
        raise KeyError("no\nsuch")

    monkeypatch.setattr("farsearch.cli.status.open_workspace", fail)
    done = call(tmp_path, "status")
    assert done.code == 1
    assert done.err == "farsearch: unexpected KeyError: 'no\\nsuch' (--debug shows where)\n"


def test_an_interrupt_has_the_exit_code_of_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("farsearch.cli.status.open_workspace", interrupted)
    done = call(tmp_path, "status")
    assert (done.code, done.out, done.err.strip()) == (130, "", "interrupted")


def test_the_python_module_is_the_command(tmp_path: Path) -> None:
    with start(tmp_path, "studies", "list") as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (0, "")
    assert err == "no study in .farsearch/studies.journal yet\n"


@pytest.mark.parametrize(("first", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_does_not_interrupt_the_cleanup(
    first: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches a whole process group, and its leader then terminates the others."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    tidied = []

    def work(**_: object) -> None:
        try:
            os.kill(os.getpid(), first)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            tidied.append(True)

    monkeypatch.setattr(cli, "main", work)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert (ended.value.code, tidied) == (code, [True])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
