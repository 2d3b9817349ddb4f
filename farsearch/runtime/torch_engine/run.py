"""One run of a bundle: read, train, evaluate, save. It can be cut off at any moment and resumed."""

import os
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import nn

from ...far.display import shown_text
from ...far.features import Features
from ...far.layout import ModelLayout
from ...far.loop import predict
from ...far.surgery import merge
from ..bundle_files import BundleFiles, BundleProblem
from ..encoding import Encoded, encode, predictions
from ..job import (
    MEASUREMENT_FILE,
    SAVEPOINT,
    OnStep,
    Options,
    PhaseLog,
    Report,
    Result,
    SavepointProblem,
    choose_micro_batch,
    epochs_of,
    new_folder,
    partial_folder,
    publish,
    run_identity,
)
from ..measurement import measurement_of, predicted_seconds, write_json
from ..memory import is_out_of_memory
from ..rows import read_rows
from ..scores import evidence, score
from ..task import Rows
from .memory import available_mib, peak_mib, process_mib, reset_peak
from .model import load_model, put_weights, reconfigured, save_model
from .phase import Savepoints, train_phase
from .tokenizer import load_tokenizer, tokenizer_panics

__all__ = ["run_bundle", "write_tuned"]


def run_bundle(
    bundle: BundleFiles, options: Options, report: Report, on_step: OnStep, stopping: Callable[[], bool] = lambda: False
) -> Result:
    """Train on the user's rows, evaluate, and save the merged model into ``options.out``.

    Args:
        stopping: called after each step; true writes a savepoint and stops.

    Raises:
        BundleProblem: when the bundle's parts are inconsistent.
        RowProblem: for rows that break the format.
        FileExistsError: when ``options.out`` is in use, or its unfinished run is another one.
        OSError: for files that can't be read or written.
        Interrupted, FloatingPointError: as ``train_phase``.
        MemoryError: when not even a micro-batch of one row fits.
    """
    out = new_folder(options.out)
    train = read_rows(options.train, bundle.task, report=report)
    dev = None if options.dev is None else read_rows(options.dev, bundle.task, report=report)
    tokenizer = load_tokenizer(bundle)
    rows = _encoded(bundle, tokenizer, train)
    epochs = epochs_of(bundle, options)
    micro_batch_size, predicted_mib = choose_micro_batch(bundle, options, available_mib(), report)
    model = load_model(bundle, options.base)
    _check_ids(bundle, model, rows.features)
    work = partial_folder(out)
    os.makedirs(work, exist_ok=True)
    savepoints = Savepoints(
        os.path.join(work, SAVEPOINT), run_identity(bundle, options, epochs), options.save_every_s, stopping
    )
    planned = bundle if options.plan is None else bundle._replace(phase=dict(bundle.phase, plan=options.plan))
    log, process = _train(
        planned, model, rows.features, epochs, micro_batch_size, on_step, savepoints, options.base, report
    )
    peak = peak_mib()
    predicted, metric = None, None
    if dev is not None:
        predicted = _predictions(bundle, model, _encoded(bundle, tokenizer, dev))
        task = bundle.task
        metric = score(task.metric, evidence(task.metric, predicted, dev.answers, task.labels, task.positive_id)).value
    measurement = measurement_of(
        bundle, len(train.texts), epochs, log, _gpu_name(), _software(), process, peak, predicted_mib,
        predicted_seconds(bundle, rows.lengths, epochs), metric,
    )  # fmt: skip
    save_model(bundle, model, work, options.binary)
    write_json(os.path.join(work, MEASUREMENT_FILE), measurement)
    if os.path.exists(os.path.join(work, SAVEPOINT)):
        os.remove(os.path.join(work, SAVEPOINT))
    publish(work, out)
    return Result(log, measurement, predicted, () if dev is None else dev.answers)


def write_tuned(bundle: BundleFiles, out: str, base: Optional[str] = None, binary: bool = False) -> None:
    """Write the model that the trial fine-tuned, without training: a delta is applied to its checkpoint.

    Raises:
        BundleProblem, FileExistsError, OSError: as ``run_bundle``.
    """
    out = new_folder(out)
    model = load_model(bundle, base, "tuned")
    work = partial_folder(out)
    os.makedirs(work, exist_ok=True)
    save_model(bundle, model, work, binary)
    publish(work, out)


def _encoded(bundle: BundleFiles, tokenizer: Any, rows: Rows) -> Encoded:
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


def _check_ids(bundle: BundleFiles, model: nn.Module, features: Features) -> None:
    """Check that the embedding tables have a row for every token id, which a GPU does not check."""
    pad = bundle.phase["tokenizer"]["pad_id"]
    tables = [("token", features.input_ids, int(model.get_input_embeddings().num_embeddings))]  # type: ignore[operator]
    if features.segments is not None:
        tables.append(("segment", features.segments, int(model.config.type_vocab_size)))  # type: ignore[union-attr,arg-type]
    for kind, ids, size in tables:
        highest = max(max(row) if row else 0 for row in ids)
        highest = max(highest, pad) if kind == "token" else highest
        if highest >= size:
            raise BundleProblem(
                "{}: its tokenizer gives {} {}, its model has {} of them; export the bundle again".format(
                    bundle.folder, kind, highest, size
                )
            )


def _predictions(bundle: BundleFiles, model: nn.Module, rows: Encoded) -> List[Any]:
    _check_ids(bundle, model, rows.features)
    return predictions(rows, predict(model, rows.features, bundle.phase["tokenizer"]["pad_id"]))


def _process_mib(bundle: BundleFiles, model: nn.Module, features: Features) -> float:
    """``process_mib`` of the first step that the model makes.

    Raises:
        BundleProblem: where it can't make one: a value of its configuration that is only used there.
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


def _gpu_name() -> Optional[str]:
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def _software() -> Dict[str, str]:
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda or "none",
        "threads": str(torch.get_num_threads()),
    }


def _train(
    bundle: BundleFiles, model: nn.Module, features: Features, epochs: float, micro_batch_size: Optional[int],
    on_step: OnStep, savepoints: Savepoints, base: Optional[str], report: Report,
) -> Tuple[PhaseLog, float]:  # fmt: skip
    """Run the FAR phase, halving the micro-batch while memory runs out, and merge the model.

    Returns:
        its log, and the memory of the process beside the model before it began, in MiB.
    """
    phase, layout = bundle.phase, ModelLayout.from_dict(bundle.phase["layout"])
    size = micro_batch_size or phase["plan"]["micro_batch_size"]
    while True:
        reconfigured(bundle, model)
        try:
            process = _process_mib(bundle, model, features)
            reset_peak()
            log = train_phase(
                model, phase["plan"], features, phase["learning_rate"], epochs, phase["batch_size"],
                phase["tokenizer"]["pad_id"], phase["seed"], size, on_step, savepoints,
            )  # fmt: skip
            return log, process
        except SavepointProblem as error:
            raise FileExistsError(
                "{} can't be resumed: {}; remove that folder to start again".format(
                    os.path.dirname(str(savepoints.path)), error
                )
            ) from error
        except (MemoryError, RuntimeError) as error:
            rows_at_once = size or phase["batch_size"]
            if not is_out_of_memory(error) or rows_at_once == 1:
                raise
            size = rows_at_once // 2
            report("memory ran out with {} rows at once; continuing with {}".format(rows_at_once, size))
        finally:
            merge(model, layout)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        # a step that memory ran out in may have changed some weights already
        put_weights(bundle, model, base)
