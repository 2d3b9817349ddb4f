"""Output to any stream, signals during startup, and modules in the working folder."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.journey import chdir, process, run_arguments, start, until


def _printed(folder: Path, encoding: str, *arguments: object) -> str:
    """Return the output of a command for a stream of this encoding."""
    from farsearch.cli import main

    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    with chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        err.flush()
    assert ended.value.code == 0, err.buffer.getvalue()
    out.flush()
    # click assumes that ASCII means an unset locale, and writes UTF-8
    expected = "utf-8" if encoding == "ascii" else encoding
    return out.buffer.getvalue().decode(expected)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", ["status", "trials", "pareto", "show", "report", "studies list"])
def test_commands_print_in_any_encoding(finished_study: Path, tmp_path: Path, command: str, encoding: str) -> None:
    """Characters outside of the encoding are replaced, and numbers stay readable."""
    options = ["--out", tmp_path / "page.html"] if command == "report" else []
    text = _printed(finished_study, encoding, *command.split(), *options)
    assert text.strip()
    if (command, encoding) == ("pareto", "ascii"):
        assert " +- " in text
        assert "?" not in text


def test_a_search_prints_its_front_in_ascii(finished_study: Path, tmp_path: Path, tiny_bert: Path) -> None:
    folder = shutil.copytree(finished_study, tmp_path / "copy")
    assert "Pareto front of" in _printed(folder, "ascii", *run_arguments(tiny_bert, 9))


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(finished_study: Path, closed: str) -> None:
    done = process(finished_study, "trials", enter=("sh", "-c", f'exec "$@" {closed}', "sh"))
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("options", [["--json"], []])
def test_a_reader_may_close_the_pipe(finished_study: Path, options: list[str]) -> None:
    """``farsearch trials | head`` ends without a message."""
    with start(finished_study, "trials", *options) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_during_the_import_of_torch_ends_in_one_line(
    finished_study: Path, tiny_bert: Path, number: signal.Signals
) -> None:
    """The compiled parts of torch would print a traceback, or raise another error."""
    with start(finished_study, *run_arguments(tiny_bert, 9)) as child:
        maps = Path(f"/proc/{child.pid}/maps")
        until(lambda: child.poll() is not None or "libtorch" in maps.read_text(), pause_s=0.005)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (128 + number, "interrupted\n")


_SHADOWS = ("optuna", "mlflow", "torch", "click", "uvicorn", "numpy")


def _trap(folder: Path) -> Path:
    """Write modules into the working folder that create a file when they are run."""
    for name in _SHADOWS:
        (folder / f"{name}.py").write_text(f"open('executed-{name}', 'w').close()\nraise SystemExit(9)\n")
    return folder


def _executed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("executed-*"))


def test_modules_in_the_working_folder_are_not_run(finished_study: Path, tmp_path: Path) -> None:
    """Neither ``python -m`` nor an empty entry of PYTHONPATH puts the folder on the path."""
    folder = _trap(shutil.copytree(finished_study, tmp_path / "copy"))
    done = process(folder, "sync", env={**os.environ, "PYTHONPATH": f"{os.pathsep}lib"})
    assert (done.code, _executed(folder)) == (0, []), done.err


@pytest.mark.slow
def test_processes_of_a_search_and_of_the_ui_run_no_module_of_the_working_folder(
    finished_study: Path, tmp_path: Path, tiny_bert: Path
) -> None:
    """Workers, MLflow's server and its child processes."""
    folder = _trap(shutil.copytree(finished_study, tmp_path / "copy"))
    done = process(folder, *run_arguments(tiny_bert, 11, workers=2))
    assert (done.code, _executed(folder)) == (0, []), done.err
    with start(folder, "ui", "--port", "5917", "--no-browser") as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("MLflow: http://127.0.0.1:5917/")
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130
    assert _executed(folder) == []
