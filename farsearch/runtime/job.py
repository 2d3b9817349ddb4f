"""A fine-tuning run of a bundle as every engine has it: options, result, folders, and the choice of a micro-batch."""

import hashlib
import json
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ..far.batches import MOST_EPOCHS
from ..far.display import shown_seconds, shown_text
from ..far.tensor_file import metadata
from .bundle_files import BundleFiles, BundleProblem, file_digest
from .memory import fitting_micro_batch

__all__ = [
    "MEASUREMENT_FILE",
    "SAVEPOINT",
    "Interrupted",
    "OnStep",
    "Options",
    "PhaseLog",
    "Report",
    "Result",
    "SavepointProblem",
    "choose_micro_batch",
    "epochs_of",
    "new_folder",
    "partial_folder",
    "patience_of",
    "publish",
    "run_identity",
    "saved_steps",
    "summary_lines",
]

MEASUREMENT_FILE = "measurement.json"
SAVEPOINT = "savepoint.safetensors"

OnStep = Callable[[int, int, float], None]
"""Called after each step with its number from 1 on, the number of steps, and the loss."""
Report = Callable[[str], None]
"""Called with a line of progress."""


class Interrupted(Exception):
    """The phase was stopped on request; its state is in the savepoint."""


class SavepointProblem(ValueError):
    """A savepoint that can't be resumed: damaged, or of another run."""


class Options(NamedTuple):
    """Options of a run; None stands for the bundle's own value.

    ``plan`` replaces the bundle's step plan; ``max_memory_mib`` is the memory budget, by default all that is available;
    ``binary`` also writes ``pytorch_model.bin``; ``patience`` are the evaluations on the rows of ``dev``, in a row and
    without a better metric, after which the phase stops.
    """

    train: str
    out: str
    dev: Optional[str] = None
    epochs: Optional[float] = None
    base: Optional[str] = None
    plan: Optional[Dict[str, Any]] = None
    micro_batch_size: Optional[int] = None
    max_memory_mib: Optional[float] = None
    save_every_s: float = 300.0
    binary: bool = False
    patience: Optional[int] = None


class PhaseLog(NamedTuple):
    """Losses and seconds of the steps of this run, of which ``first_step`` was the first, of ``steps`` in the phase.

    ``kept`` is the number of the step whose state is kept, counted from 1; None for the last one.
    """

    steps: int
    first_step: int
    losses: List[float]
    seconds: List[float]
    kept: Optional[int] = None

    @property
    def done(self) -> int:
        """The steps that were run, fewer than ``steps`` after an early stop."""
        return self.first_step + len(self.losses)


class Result(NamedTuple):
    """Result of a run.

    ``predictions`` and ``answers`` are those of the development rows, in the form of the task's kind; without a
    development file None and empty.
    """

    log: PhaseLog
    measurement: Dict[str, Any]
    predictions: Optional[List[Any]]
    answers: Tuple[Any, ...]


def partial_folder(out: str) -> str:
    """Return the folder that holds an unfinished run; ``publish`` renames it to ``out``."""
    return os.path.abspath(out) + ".partial"


def new_folder(out: str) -> str:
    """Return the absolute path of an output folder.

    Raises:
        FileExistsError: when it exists and is not an empty folder.
    """
    out = os.path.abspath(out)
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise FileExistsError("--out {} exists and is not empty; name a new folder".format(out))
    return out


def summary_lines(result: Result, out: str) -> List[str]:
    """Return lines on a finished run: its model, and measured beside predicted memory and time."""
    measured = result.measurement["measured"]
    memory, predicted = (
        "process {:.0f} + tensors {:.0f} MiB".format(process, max(0.0, peak - process))
        for process, peak in (
            (measured["process_memory_mib"], measured["peak_memory_mib"]),
            (measured["predicted_process_mib"], measured["predicted_memory_mib"]),
        )
    )
    log = result.log
    steps = "after {} steps".format(log.steps)
    if log.kept is not None:
        steps = "of step {}, the best by --dev, after {} of {} steps".format(log.kept, log.done, log.steps)
    return [
        "{}: the fine-tuned model {}".format(out, steps),
        "  peak memory  {}, predicted {}".format(memory, predicted),
        "  time         {}, predicted {} on {}".format(
            shown_seconds(measured["wall_time_s"]), shown_seconds(measured["predicted_time_s"]),
            shown_text(result.measurement["device"]),
        ),
    ]  # fmt: skip


def publish(work: str, out: str) -> None:
    """Atomically rename a complete working folder to the output folder."""
    if os.path.isdir(out):
        os.rmdir(out)
    os.replace(work, out)


def epochs_of(bundle: BundleFiles, options: Options) -> float:
    """Return the epochs of a run.

    Raises:
        BundleProblem: when they are out of range.
    """
    epochs = float(bundle.phase["epochs"] if options.epochs is None else options.epochs)
    if not 0 < epochs <= MOST_EPOCHS:
        raise BundleProblem("--epochs {:g}: it must be above 0 and at most {:,}".format(epochs, MOST_EPOCHS))
    return epochs


def patience_of(bundle: BundleFiles, options: Options) -> Optional[int]:
    """Return the patience of a run, None for one that is not evaluated on its way.

    Raises:
        BundleProblem: when it is given without rows to evaluate on.
    """
    if options.dev is None:
        if options.patience is not None:
            raise BundleProblem("--patience {}: the best state is that by --dev; add it".format(options.patience))
        return None
    return bundle.phase.get("patience") if options.patience is None else options.patience


def run_identity(bundle: BundleFiles, options: Options, epochs: float) -> str:
    """Return a SHA-256 over what determines the parameters after each step, but for the micro-batch size."""
    parts = [bundle.manifest["digest"], file_digest(options.train), epochs]
    parts += [bundle.engine] * (bundle.engine != "torch")
    patience = patience_of(bundle, options)
    if patience is not None:
        parts += [patience, file_digest(str(options.dev))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def saved_steps(savepoint: str, identity: str) -> int:
    """Return the number of completed steps that a savepoint records.

    Raises:
        ValueError: when it is damaged, or of another run.
    """
    recorded = metadata(savepoint)
    if recorded.get("identity") != identity or not recorded.get("steps", "").isdigit():
        raise ValueError("it is of another training: other rows, epochs or bundle")
    return int(recorded["steps"])


def choose_micro_batch(
    bundle: BundleFiles, options: Options, available_mib: Optional[float], report: Report
) -> Tuple[Optional[int], float]:
    """Return the micro-batch size, None for the plan's own, and the predicted peak with it in MiB."""
    peaks = bundle.phase["predicted"]["peaks"]
    if options.micro_batch_size is not None:
        fitting = [peak for size, peak in peaks if size is not None and size >= options.micro_batch_size]
        return options.micro_batch_size, float(fitting[-1] if fitting else peaks[0][1])
    budget = available_mib if options.max_memory_mib is None else options.max_memory_mib
    size, peak, fits = fitting_micro_batch(peaks, budget)
    if not fits and budget is not None:
        least = "even the smallest micro-batch is" if len(peaks) > 1 else "whole batches, which take the least, are"
        report("{} predicted to take {:.0f} MiB, of {:.0f} MiB".format(least, peak, budget))
    elif size != peaks[0][0] and budget is not None:
        report("micro-batches of {}, to stay within {:.0f} MiB".format(size, budget))
    return size, peak
