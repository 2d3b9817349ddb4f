"""The command line of a bundle: ``python3 train.py --train my.tsv --dev my_dev.tsv --out tuned/``."""

import argparse
import os
import signal
import sys
import time
from typing import Any, List, Optional, Sequence

from ..far.display import shown_seconds, shown_text
from .bundle_files import BundleFiles, BundleProblem, open_bundle
from .imports import leave_out_unneeded
from .job import MEASUREMENT_FILE, Interrupted, Options, Result, new_folder, summary_lines
from .memory import free_at_once, is_out_of_memory
from .rows import RowProblem
from .run import load_engine, run_bundle, write_tuned

__all__ = ["main"]

_LINE_S = 10.0
"""Seconds between lines of progress where the output is no terminal."""


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError("{} is not a number above 0".format(shown_text(text)))
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("{} is not a whole number above 0".format(shown_text(text)))
    return value


def _threads(text: str) -> int:
    value, cores = _count(text), os.cpu_count() or 1
    if value > cores:
        raise argparse.ArgumentTypeError("{} threads; this machine has {} cores".format(value, cores))
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Fine-tune this bundle's model on your own rows, within this machine's memory.",
        epilog="Files are .tsv, .csv or .jsonl with the columns that README.md names; questions also as SQuAD's .json. "
        "The same command again resumes after a power cut. Take measurement.json in the output back to the "
        "workstation: farsearch sync STUDY --measurement FILE.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--train", metavar="FILE", help="rows to train on")
    source.add_argument("--tuned", action="store_true", help="train nothing: write the model as the search left it")
    parser.add_argument("--dev", metavar="FILE", help="rows to measure on")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to write; must be new or empty")
    parser.add_argument("--epochs", type=_above_zero, metavar="N", help="passes over the rows (default: the bundle's)")
    parser.add_argument("--max-memory", type=_above_zero, metavar="MIB",
                        help="memory to stay within (default: what is available)")  # fmt: skip
    parser.add_argument("--micro-batch", type=_count, metavar="N", help="rows at once (default: as many as fit)")
    parser.add_argument(
        "--threads", type=_threads, metavar="N", help="threads of the CPU (default: the engine's choice)"
    )
    parser.add_argument("--save-every", type=_above_zero, default=300.0, metavar="S",
                        help="seconds between savepoints (default: 300)")  # fmt: skip
    parser.add_argument("--base", metavar="FOLDER", help="the public checkpoint, for a bundle made with --delta")
    parser.add_argument("--binary", action="store_true",
                        help="also write pytorch_model.bin, which transformers before 4.27 needs")  # fmt: skip
    return parser


class _Progress:
    """Progress of the steps: one line that is overwritten on a terminal, elsewhere a line every 10 s."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._began = self._shown = time.monotonic()
        self._first: Optional[int] = None

    def step(self, step: int, steps: int, loss: float) -> None:
        if self._first is None:
            self._first = step - 1
        now = time.monotonic()
        each = (now - self._began) / max(1, step - self._first)
        text = "step {} of {}, loss {:.4f}, {} a step, {} left".format(
            step, steps, loss, shown_seconds(each), shown_seconds(each * (steps - step))
        )
        if self._live:
            sys.stdout.write("\r\x1b[K" + text + ("\n" if step == steps else ""))
            sys.stdout.flush()
        elif now - self._shown > _LINE_S or step in (self._first + 1, steps):
            self._shown = now
            print(text, flush=True)


def _report(result: Result, out: str, metric: str) -> None:
    for line in summary_lines(result, out):
        print(line)
    value = result.measurement["measured"]["metric"]
    if value is not None:
        print("  {}  {:.4f}".format(metric, value))
    print("  {} for the workstation: farsearch sync {} --measurement {}".format(
        MEASUREMENT_FILE, shown_text(result.measurement["study"], 400), MEASUREMENT_FILE))  # fmt: skip


def main(folder: str, arguments: Optional[Sequence[str]] = None) -> int:
    """Run the bundle in ``folder`` as this process's program; return the exit code.

    It is 0 for done, 1 for failed, 2 for bad input, 5 for missing files or memory, 130 or 143 for interrupted.
    """
    given = _parser().parse_args(arguments)
    received = _catch_signals()
    free_at_once()
    leave_out_unneeded()
    try:
        bundle = open_bundle(folder)
        return _run(bundle, given, received)
    except Interrupted:
        print("stopped; the same command resumes", file=sys.stderr)
        return 128 + received[0]
    except (BundleProblem, RowProblem, FileExistsError) as error:
        return _failed(error, 2)
    except FloatingPointError as error:
        return _failed("{}; a bundle with a lower learning rate may help".format(error), 1)
    except OSError as error:
        name = error.filename or given.out
        return _failed("{}: {}; check the path, its permissions and the disk".format(name, error.strerror or error), 5)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _failed("memory ran out with a single row at a time; close other programs, or export another trial", 5)


def _catch_signals() -> List[int]:
    """Collect the signals that ask to stop after the current step; a second one ends the process at once."""
    received: List[int] = []

    def note(number: int, _frame: Any) -> None:
        if received:
            os._exit(128 + number)  # the last savepoint remains
        received.append(number)
        print("\nstopping after this step; once more ends at once", file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)
    return received


def _check_given(bundle: BundleFiles, given: Any) -> None:
    """Check that no option is given that would be ignored."""
    if given.tuned and given.dev is not None:
        raise BundleProblem("--dev is measured on after a training, and --tuned trains nothing; leave out one of them")
    if given.base is not None and bundle.manifest["base"] is None:
        raise BundleProblem("--base is for a bundle made with --delta, and this one has all its weights; leave it out")


def _run(bundle: BundleFiles, given: Any, received: List[int]) -> int:
    _check_given(bundle, given)
    new_folder(given.out)  # before the engine is imported
    engine = load_engine(bundle, given.threads)
    if given.tuned:
        write_tuned(engine, bundle, given.out, given.base, given.binary)
        print("{}: {}".format(given.out, bundle.origin))
        return 0
    options = Options(
        given.train, given.out, given.dev, given.epochs, given.base, None, given.micro_batch, given.max_memory,
        given.save_every, given.binary,
    )  # fmt: skip
    result = run_bundle(
        engine, bundle, options, lambda text: print(text, flush=True), _Progress().step, lambda: bool(received)
    )
    _report(result, given.out, bundle.task.metric)
    return 0


def _failed(error: object, code: int) -> int:
    # a foreign bundle may contain control characters
    print("train.py: {}".format(shown_text(" ".join(str(error).split()), 4000)), file=sys.stderr)
    return code
