"""One run of a bundle: read, train, measure, save. It can be cut off at any moment and started again."""

import hashlib
import json
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import nn

from ..batches import MOST_EPOCHS
from ..display import shown_text
from ..features import Features
from ..layout import ModelLayout
from ..loop import predict
from ..surgery import merge
from .encode import Encoded, encode, predictions
from .measured import measurement_of, predicted_seconds, write_json
from .memory import available_mib, fitting_micro_batch, is_out_of_memory, peak_mib, process_mib, reset_peak
from .model import load_model, put_weights, reconfigured, save_model
from .opened import BundleProblem, Opened, file_digest
from .phase import Course, SavepointProblem, train_phase
from .rows import read_rows
from .scores import evidence, score
from .task import Rows
from .tokens import load_tokenizer, tokenizer_panics

__all__ = ["MEASUREMENT_FILE", "Options", "Result", "partial_folder", "run_bundle", "write_tuned"]

MEASUREMENT_FILE = "measurement.json"
_SAVEPOINT = "savepoint.safetensors"


class Options(NamedTuple):
    """What a user may say about a run. None leaves the bundle's.

    ``plan`` is a step plan instead of the bundle's; ``max_memory_mib`` is what may be taken at most, by default what
    the machine has; ``binary`` also writes ``pytorch_model.bin``.
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


class Result(NamedTuple):
    """What a run gave.

    ``predictions`` and ``answers`` are of the development rows, where there are any, in the form of the task's kind.
    """

    course: Course
    measurement: Dict[str, Any]
    predictions: Optional[List[Any]]
    answers: Tuple[Any, ...]


Watch = Callable[[int, int, float], None]
Tell = Callable[[str], None]


def partial_folder(out: str) -> str:
    """Where a run keeps what it needs to go on; it becomes ``out`` when all is done."""
    return os.path.abspath(out) + ".partial"


def run_bundle(
    bundle: Opened, options: Options, tell: Tell, on_step: Watch, stopping: Callable[[], bool] = lambda: False
) -> Result:
    """Train on the user's rows, measure, and save the merged model into ``out``.

    Args:
        tell: told in one line what is done.
        on_step: called with step, number of steps and loss.
        stopping: asked after each step; true writes a savepoint and stops.

    Raises:
        BundleProblem: when the bundle's parts do not go together.
        RowProblem: for rows that break the format.
        FileExistsError: when ``out`` is in use, or what is left of a run is of another one.
        OSError: for files that can't be read or written.
        Interrupted, FloatingPointError: as ``train_phase``.
        MemoryError: when not even a row at a time fits.
    """
    out = _new_folder(options.out)
    phase = bundle.phase
    train, dev = (_rows(bundle, path, tell) for path in (options.train, options.dev))
    assert train is not None
    tokenizer = load_tokenizer(bundle)
    rows = _encoded(bundle, tokenizer, train)
    epochs = _epochs(bundle, options)
    plan = phase["plan"] if options.plan is None else options.plan
    micro, predicted_mib = _micro_batch(bundle, options, tell)
    model = load_model(bundle, options.base)
    _check_ids(bundle, model, rows.features)
    work = partial_folder(out)
    os.makedirs(work, exist_ok=True)
    savepoint, identity = os.path.join(work, _SAVEPOINT), _identity(bundle, options, epochs)
    course, process = _train(
        bundle._replace(phase=dict(phase, plan=plan)), model, rows.features, epochs, micro, on_step,
        _Saving(savepoint, identity, options.save_every_s, stopping), options, tell,
    )  # fmt: skip
    peak = peak_mib()
    said, metric = None, None
    if dev is not None:
        said = _said(bundle, model, _encoded(bundle, tokenizer, dev))
        task = bundle.task
        metric = score(task.metric, evidence(task.metric, said, dev.answers, task.labels, task.positive_id)).value
    seconds = predicted_seconds(bundle, rows.lengths, epochs)
    measurement = measurement_of(
        bundle, len(train.texts), epochs, course, process, peak, predicted_mib, seconds, metric
    )
    save_model(bundle, model, work, options.binary)
    write_json(os.path.join(work, MEASUREMENT_FILE), measurement)
    if os.path.exists(savepoint):
        os.remove(savepoint)
    _put(work, out)
    return Result(course, measurement, said, () if dev is None else dev.answers)


def write_tuned(bundle: Opened, out: str, base: Optional[str] = None, binary: bool = False) -> None:
    """Write the model as the trial fine-tuned it, without training: what a bundle of differences is put together to.

    Raises:
        BundleProblem, FileExistsError, OSError: as ``run_bundle``.
    """
    out = _new_folder(out)
    model = load_model(bundle, base, "tuned")
    work = partial_folder(out)
    os.makedirs(work, exist_ok=True)
    save_model(bundle, model, work, binary)
    _put(work, out)


def _new_folder(out: str) -> str:
    out = os.path.abspath(out)
    if os.path.exists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise FileExistsError("--out {} exists and is not empty; name a new folder".format(out))
    return out


def _put(work: str, out: str) -> None:
    """What is whole takes its place."""
    if os.path.isdir(out):
        os.rmdir(out)
    os.replace(work, out)


class _Saving(NamedTuple):
    """Where and when savepoints are written."""

    path: str
    identity: str
    every_s: float
    stopping: Callable[[], bool]


def _rows(bundle: Opened, path: Optional[str], tell: Tell) -> Optional[Rows]:
    return None if path is None else read_rows(path, bundle.task, tell=tell)


def _encoded(bundle: Opened, tokenizer: Any, rows: Rows) -> Encoded:
    try:
        with tokenizer_panics():
            encoded = encode(tokenizer, rows, bundle.task, bundle.phase["max_length"], bundle.phase["segments"])
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise BundleProblem(
            "{}: its tokenizer can't read the rows: {}; export the bundle again".format(
                bundle.folder, shown_text(str(error), 160)
            )
        ) from error
    return encoded


def _check_ids(bundle: Opened, model: nn.Module, features: Features) -> None:
    """Every token has a row in the model's tables, which a GPU does not check."""
    pad = bundle.phase["tokenizer"]["pad_id"]
    tables = [("token", features.input_ids, int(model.get_input_embeddings().num_embeddings))]  # type: ignore[operator]
    if features.segments is not None:
        tables.append(("segment", features.segments, int(model.config.type_vocab_size)))  # type: ignore[union-attr,arg-type]
    for what, ids, size in tables:
        highest = max(max(row) if row else 0 for row in ids)
        highest = max(highest, pad) if what == "token" else highest
        if highest >= size:
            raise BundleProblem(
                "{}: its tokenizer gives {} {}, its model has {} of them; export the bundle again".format(
                    bundle.folder, what, highest, size
                )
            )


def _said(bundle: Opened, model: nn.Module, rows: Encoded) -> List[Any]:
    _check_ids(bundle, model, rows.features)
    return predictions(rows, predict(model, rows.features, bundle.phase["tokenizer"]["pad_id"]))


def _epochs(bundle: Opened, options: Options) -> float:
    epochs = float(bundle.phase["epochs"] if options.epochs is None else options.epochs)
    if not 0 < epochs <= MOST_EPOCHS:
        raise BundleProblem("--epochs {:g}: it must be above 0 and at most {:,}".format(epochs, MOST_EPOCHS))
    return epochs


def _first_step(bundle: Opened, model: nn.Module, features: Features) -> float:
    """The process's memory as of ``process_mib``, whose step is the first that the model makes.

    Raises:
        BundleProblem: where the model can't make one: a value of its configuration that is only used there.
    """
    try:
        return process_mib(model, features, bundle.phase["tokenizer"]["pad_id"])
    except MemoryError:
        raise
    except Exception as error:  # transformers and torch have many ways to refuse a value
        if is_out_of_memory(error):
            raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise BundleProblem(
            "{}: its model can't make a step: {}; export the bundle again".format(
                bundle.folder, shown_text(reason, 160)
            )
        ) from error


def _identity(bundle: Opened, options: Options, epochs: float) -> str:
    """Of everything that decides what a step learns."""
    says = [bundle.says["digest"], file_digest(options.train), epochs]
    return hashlib.sha256(json.dumps(says).encode()).hexdigest()


def _micro_batch(bundle: Opened, options: Options, tell: Tell) -> Tuple[Optional[int], float]:
    """The micro-batch size and the predicted peak with it."""
    predicted = bundle.phase["predicted"]
    peaks = predicted["peaks"]
    if options.micro_batch_size is not None:
        fitting = [peak for size, peak in peaks if size is not None and size >= options.micro_batch_size]
        return options.micro_batch_size, float(fitting[-1] if fitting else peaks[0][1])
    budget = available_mib() if options.max_memory_mib is None else options.max_memory_mib
    size, peak, fits = fitting_micro_batch(peaks, budget)
    if not fits and budget is not None:
        tell("even the smallest micro-batch is predicted to take {:.0f} MiB, of {:.0f} MiB".format(peak, budget))
    elif size != peaks[0][0] and budget is not None:
        tell("micro-batches of {}, to stay within {:.0f} MiB".format(size, budget))
    return size, peak


def _train(
    bundle: Opened, model: nn.Module, features: Features, epochs: float, micro: Optional[int], on_step: Watch,
    saving: _Saving, options: Options, tell: Tell,
) -> Tuple[Course, float]:  # fmt: skip
    """The FAR phase with smaller and smaller micro-batches as long as memory runs out; the model is merged again.

    Returns:
        how it went, and what the process took beside the model before it began, in MiB.
    """
    phase, layout = bundle.phase, ModelLayout.from_dict(bundle.phase["layout"])
    size = micro or phase["plan"]["micro_batch_size"]
    while True:
        reconfigured(bundle, model)
        try:
            process = _first_step(bundle, model, features)
            reset_peak()
            course = train_phase(
                model, phase["plan"], features, phase["learning_rate"], epochs, phase["batch_size"],
                phase["tokenizer"]["pad_id"], phase["seed"], size, on_step, saving.path, saving.identity,
                saving.every_s, saving.stopping,
            )  # fmt: skip
            return course, process
        except SavepointProblem as error:
            raise FileExistsError(
                "{} can't be gone on with: {}; remove that folder to start again".format(
                    os.path.dirname(saving.path), error
                )
            ) from error
        except (MemoryError, RuntimeError) as error:
            rows_at_once = size or phase["batch_size"]
            if not is_out_of_memory(error) or rows_at_once == 1:
                raise
            size = rows_at_once // 2
            tell("memory ran out with {} rows at once; going on with {}".format(rows_at_once, size))
        finally:
            merge(model, layout)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # a step that memory ran out in may have changed some weights already
        put_weights(bundle, model, options.base)
