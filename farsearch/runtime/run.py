"""One run of a bundle: read, train, evaluate, save. It can be cut off at any moment and resumed.

What computes is an engine: a subclass of ``Engine`` and one of ``Model``.
"""

import os
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..far.display import shown_text
from ..far.features import Features
from .bundle_files import BundleFiles, BundleProblem
from .encoding import Encoded, encode, predictions
from .job import (
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
from .measurement import measurement_of, predicted_seconds, write_json
from .memory import is_out_of_memory
from .recorder import Savepoints, resumed_rows
from .rows import read_rows
from .scores import evidence, score
from .task import Rows
from .tokenizer_proof import tokenizer_panics

__all__ = ["Engine", "Model", "load_engine", "run_bundle", "write_tuned"]


class Model:
    """The model of a bundle with its start weights, ready to be trained."""

    def tables(self) -> Mapping[str, Optional[int]]:
        """Return the rows of the embedding tables of ``token`` and ``segment``; None for a model without segments."""
        raise NotImplementedError

    def train(
        self, features: Features, epochs: float, micro_batch_size: Optional[int], on_step: OnStep,
        savepoints: Savepoints,
    ) -> Tuple[PhaseLog, float]:  # fmt: skip
        """Run the FAR phase from the start weights, or from the savepoint.

        Returns:
            its log, and the memory of the process beside the model before it began, in MiB.

        Raises:
            BundleProblem: when the model can't make a step.
            Interrupted, FloatingPointError, SavepointProblem, OSError: as ``Recorder`` and the savepoint.
            MemoryError: when memory runs out; ``restore`` makes the model ready to be trained again.
        """
        raise NotImplementedError

    def restore(self) -> None:
        """Load the start weights again: a step in which memory ran out may have changed some of them."""
        raise NotImplementedError

    def peak_mib(self) -> float:
        """Return the highest memory of this process in the phase."""
        raise NotImplementedError

    def predict(self, features: Features) -> Any:
        """Return logits in the order of ``features``, in the form of far/loop.py's ``predict``."""
        raise NotImplementedError

    def save(self, folder: str, binary: bool) -> None:
        """Save the merged model as transformers does; ``binary`` adds ``pytorch_model.bin``."""
        raise NotImplementedError


class Engine:
    """The libraries that compute."""

    def check(self, bundle: BundleFiles, binary: bool) -> None:
        """Raise BundleProblem when an option can't be had with this engine."""

    def tokenizer(self, bundle: BundleFiles) -> Any:
        """Return a tokenizer for ``encode``, with the token ids of the bundle's proof, or raise BundleProblem."""
        raise NotImplementedError

    def available_mib(self) -> Optional[float]:
        """Return the memory that a new process could take, this one's included; None if it is not reported."""
        raise NotImplementedError

    def load(self, bundle: BundleFiles, base: Optional[str], weights: str) -> Model:
        """Return the model with the weights of which the FAR phase starts (``start``), or of the trial (``tuned``).

        Args:
            base: folder of the public checkpoint, for a bundle that is a delta.

        Raises:
            BundleProblem: when weights and model do not fit, or the base is missing or another.
        """
        raise NotImplementedError

    def gpu(self) -> Optional[str]:
        """Return the name of the GPU in use."""
        raise NotImplementedError

    def software(self) -> Dict[str, str]:
        """Return versions and settings of the libraries."""
        raise NotImplementedError


def load_engine(bundle: BundleFiles, threads: Optional[int] = None) -> Engine:
    """Import the engine that the bundle names. It takes seconds, so that mistakes are reported first.

    Args:
        threads: of the CPU; None for the engine's choice.

    Raises:
        BundleProblem: when one of its libraries is missing.
    """
    name = bundle.engine
    try:
        if name == "onnx":
            from .onnx_engine.run import OnnxEngine

            return OnnxEngine(threads)
        from .torch_engine.run import TorchEngine

        return TorchEngine(threads)
    except ImportError as error:
        needed = "numpy, onnxruntime and tokenizers" if name == "onnx" else "torch and transformers"
        raise BundleProblem(
            "{} needs {}: {}; install them with pip".format(bundle.folder, needed, shown_text(str(error), 160))
        ) from error


def run_bundle(
    engine: Engine, bundle: BundleFiles, options: Options, report: Report, on_step: OnStep,
    stopping: Callable[[], bool] = lambda: False,
) -> Result:  # fmt: skip
    """Train on the user's rows, evaluate, and save the merged model into ``options.out``.

    Args:
        stopping: called after each step; true writes a savepoint and stops.

    Raises:
        BundleProblem: when the bundle's parts are inconsistent.
        RowProblem: for rows that break the format.
        FileExistsError: when ``options.out`` is in use, or its unfinished run is another one.
        OSError: for files that can't be read or written.
        Interrupted, FloatingPointError: as ``Model.train``.
        MemoryError: when not even a micro-batch of one row fits.
    """
    out = new_folder(options.out)
    engine.check(bundle, options.binary)
    train = read_rows(options.train, bundle.task, report=report)
    dev = None if options.dev is None else read_rows(options.dev, bundle.task, report=report)
    if "refit" in bundle.manifest:
        report("the bundle is {}".format(bundle.origin))
    tokenizer = engine.tokenizer(bundle)
    rows = _encoded(bundle, tokenizer, train)
    epochs = epochs_of(bundle, options)
    micro_batch_size, predicted_mib = choose_micro_batch(bundle, options, engine.available_mib(), report)
    planned = bundle if options.plan is None else bundle._replace(phase=dict(bundle.phase, plan=options.plan))
    model = engine.load(planned, options.base, "start")
    _check_ids(bundle, model, rows.features)
    work = partial_folder(out)
    os.makedirs(work, exist_ok=True)
    savepoints = Savepoints(
        os.path.join(work, SAVEPOINT), run_identity(bundle, options, epochs), options.save_every_s, stopping
    )
    size = micro_batch_size or planned.phase["plan"]["micro_batch_size"]
    rows_at_once = resumed_rows(savepoints, size)
    if options.micro_batch_size is not None and rows_at_once != size:
        raise FileExistsError(
            "{} can't be resumed with --micro-batch {}: its run has {} rows at once; leave the option out, or remove "
            "that folder to start again".format(work, size, rows_at_once or bundle.phase["batch_size"])
        )
    size = rows_at_once
    log, process = _train(planned, model, rows.features, epochs, size, on_step, savepoints, report)
    peak = model.peak_mib()
    predicted, metric = None, None
    if dev is not None:
        predicted = _predictions(bundle, model, _encoded(bundle, tokenizer, dev))
        task = bundle.task
        metric = score(task.metric, evidence(task.metric, predicted, dev.answers, task.labels, task.positive_id)).value
    measurement = measurement_of(
        bundle, len(train.texts), epochs, log, engine.gpu(), engine.software(), process, peak, predicted_mib,
        predicted_seconds(bundle, rows.lengths, epochs), metric,
    )  # fmt: skip
    model.save(work, options.binary)
    write_json(os.path.join(work, MEASUREMENT_FILE), measurement)
    if os.path.exists(os.path.join(work, SAVEPOINT)):
        os.remove(os.path.join(work, SAVEPOINT))
    publish(work, out)
    return Result(log, measurement, predicted, () if dev is None else dev.answers)


def write_tuned(
    engine: Engine, bundle: BundleFiles, out: str, base: Optional[str] = None, binary: bool = False
) -> None:
    """Write the model that the trial fine-tuned, without training: a delta is applied to its checkpoint.

    Raises:
        BundleProblem, FileExistsError, OSError: as ``run_bundle``.
    """
    out = new_folder(out)
    engine.check(bundle, binary)
    model = engine.load(bundle, base, "tuned")
    work = partial_folder(out)
    os.makedirs(work, exist_ok=True)
    model.save(work, binary)
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


def _check_ids(bundle: BundleFiles, model: Model, features: Features) -> None:
    """Check that the embedding tables have a row for every id, which a GPU does not check."""
    pad, sizes = bundle.phase["tokenizer"]["pad_id"], model.tables()
    for kind, rows in (("token", features.input_ids), ("segment", features.segments)):
        if rows is None:
            continue
        size = sizes[kind] or 0
        highest = max(max(row) if row else 0 for row in rows)
        highest = max(highest, pad) if kind == "token" else highest
        if highest >= size:
            raise BundleProblem(
                "{}: its tokenizer gives {} {}, its model has {} of them; export the bundle again".format(
                    bundle.folder, kind, highest, size
                )
            )


def _predictions(bundle: BundleFiles, model: Model, rows: Encoded) -> List[Any]:
    _check_ids(bundle, model, rows.features)
    return predictions(rows, model.predict(rows.features))


def _train(
    bundle: BundleFiles, model: Model, features: Features, epochs: float, size: Optional[int], on_step: OnStep,
    savepoints: Savepoints, report: Report,
) -> Tuple[PhaseLog, float]:  # fmt: skip
    """``Model.train``, halving the micro-batch while memory runs out."""
    while True:
        try:
            return model.train(features, epochs, size, on_step, savepoints._replace(rows=size))
        except SavepointProblem as error:
            raise FileExistsError(
                "{} can't be resumed: {}; remove that folder to start again".format(
                    os.path.dirname(str(savepoints.path)), error
                )
            ) from error
        except (MemoryError, RuntimeError) as error:
            rows_at_once = size or bundle.phase["batch_size"]
            if not is_out_of_memory(error) or rows_at_once == 1:
                raise
            size = rows_at_once // 2
            report("memory ran out with {} rows at once; continuing with {}".format(rows_at_once, size))
        model.restore()
