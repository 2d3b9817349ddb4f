"""Engine and model of a run (runtime/run.py) by the graphs of the bundle's program."""

import os
import shutil
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

import numpy as np
import onnxruntime
import tokenizers

from ...far import tensor_file
from ...far.display import shown_text
from ...far.features import Features
from ..best_state import Watch
from ..bundle_files import BundleFiles, BundleProblem, read_config
from ..config import longest_text
from ..job import OnStep, PhaseLog, SavepointProblem
from ..memory import (
    MIB,
    host_available_mib,
    host_peak_mib,
    mapped_mib,
    release,
    reset_host_peak,
    resident_mib,
)
from ..recorder import Savepoints
from ..run import Engine, Model
from ..saving import copy_settings
from .batches import make_batch
from .phase import Settings, predict, train_phase
from .program import Runner
from .tokenizer import FastTokenizer, load_tokenizer
from .weights import load_weights, write_merged

__all__ = ["OnnxEngine"]

_OUTPUTS = {"regression": 1, "question-answering": 2}


class CompiledModel(Model):
    """The graphs of a program with their weights; trained ones in memory, frozen ones mapped from their file."""

    def __init__(self, bundle: BundleFiles, threads: Optional[int]) -> None:
        assert bundle.program is not None
        self._bundle, self._program = bundle, bundle.program
        self._weights_file = bundle.path(bundle.phase["weights"]["start"])
        with self._problems("does not fit its program"):
            self._trained, self._frozen = load_weights(self._weights_file, self._program)
        paths = [bundle.path("engine/" + name) for name in self._program.graphs]
        with self._problems("can't be used"):
            self._runner = Runner(
                self._program, paths, dict(self._frozen, **self._trained), threads,
                redraw=bundle.phase["plan"]["dropout"] == "seed",
            )  # fmt: skip

    def tables(self) -> Mapping[str, Optional[int]]:
        """Return the sizes of the tables by the model's configuration; onnxruntime checks each id against the table."""
        config = read_config(self._bundle)
        return {"token": config.get("vocab_size"), "segment": config.get("type_vocab_size")}

    def train(
        self, features: Features, epochs: float, micro_batch_size: Optional[int], on_step: OnStep,
        savepoints: Savepoints, watch: Optional[Watch] = None,
    ) -> Tuple[PhaseLog, float]:  # fmt: skip
        """Run the FAR phase on the trained arrays."""
        phase = self._bundle.phase
        settings = Settings(
            phase["plan"]["optimizer"], phase["learning_rate"], epochs, phase["batch_size"],
            phase["tokenizer"]["pad_id"], phase["seed"], phase.get("clip_norm"),
        )  # fmt: skip
        with self._problems("can't make a step"):
            process = self._process_mib(features)
            reset_host_peak()
            log = train_phase(
                self._program, self._runner, self._trained, features, settings, micro_batch_size, on_step, savepoints,
                watch,
            )  # fmt: skip
        return log, process

    def _process_mib(self, features: Features) -> float:
        """Memory of the process beside the weights, after a step of one row that changes none of them."""
        batch = make_batch(self._program, features.take([0]), self._bundle.phase["tokenizer"]["pad_id"])
        self._runner.step(batch.inputs, lambda _, shape: np.zeros(shape, bool), lambda *_: None)
        release()
        resident = resident_mib()
        trained = sum(array.nbytes for array in self._trained.values()) / MIB
        return max(0.0, (host_peak_mib() if resident is None else resident) - trained - mapped_mib(self._weights_file))

    def restore(self) -> None:
        """Copy the start weights over the trained arrays, which the graphs keep using."""
        start, _ = load_weights(self._weights_file, self._program)
        for name, array in self._trained.items():
            array[...] = start[name]
        self._runner.release()
        release()

    def peak_mib(self) -> float:
        """Return the highest resident memory, the pages of the weights' file among it."""
        return host_peak_mib()

    def predict(self, features: Features) -> np.ndarray:
        """Return logits as an array."""
        task = self._bundle.task
        with self._problems("can't predict"):
            logits = predict(self._program, self._runner, features, self._bundle.phase["tokenizer"]["pad_id"])
        outputs = _OUTPUTS.get(task.kind, len(task.labels))
        if logits.ndim != 2 or logits.shape[1] != outputs:
            raise self._problem("can't predict", "it has {} outputs, the task has {}".format(logits.shape[1:], outputs))
        return logits

    def save(self, folder: str, binary: bool) -> None:
        """Write the merged model tensor by tensor."""
        self._runner.release()
        copy_settings(self._bundle, folder)
        write_merged(os.path.join(folder, "model.safetensors"), self._program, dict(self._frozen, **self._trained))

    @contextmanager
    def _problems(self, what: str) -> Iterator[None]:
        """Translate what weights, graphs and their results break into BundleProblem."""
        try:
            yield
        except (BundleProblem, SavepointProblem):
            raise
        except ValueError as error:
            raise self._problem(what, str(error)) from error

    def _problem(self, what: str, reason: str) -> BundleProblem:
        return BundleProblem(
            "{}/engine {}: {}; export the bundle again".format(self._bundle.folder, what, shown_text(reason, 200))
        )


class TunedModel(Model):
    """The model as the search left it, which is only saved."""

    def __init__(self, bundle: BundleFiles) -> None:
        self._bundle = bundle
        self._file = bundle.path(bundle.phase["weights"]["tuned"])
        try:
            names = set(tensor_file.shapes(self._file))
        except ValueError as error:
            raise BundleProblem("{}: {}; export the bundle again".format(self._file, error)) from error
        if names != set(bundle.phase["weights"]["names"]):
            raise BundleProblem("{} has other tensors than far.json names; export the bundle again".format(self._file))

    def save(self, folder: str, binary: bool) -> None:
        """Copy it."""
        copy_settings(self._bundle, folder)
        shutil.copyfile(self._file, os.path.join(folder, "model.safetensors"))


class OnnxEngine(Engine):
    """numpy, onnxruntime and tokenizers, on the CPU."""

    def __init__(self, threads: Optional[int] = None) -> None:
        self._threads = threads

    def check(self, bundle: BundleFiles, binary: bool) -> None:
        """Refuse ``binary``, which torch would have to write, and texts that are longer than the model takes."""
        if binary:
            raise BundleProblem(
                "--binary needs torch, which the engine of {} does without; leave it out".format(bundle.folder)
            )
        longest = longest_text(read_config(bundle))
        if bundle.phase["max_length"] > longest:
            raise BundleProblem(
                "{}/model/config.json: it takes at most {} tokens, max_length is {}; export the bundle again".format(
                    bundle.folder, longest, bundle.phase["max_length"]
                )
            )

    def tokenizer(self, bundle: BundleFiles) -> FastTokenizer:
        """Return a tokenizer of the tokenizers package."""
        return load_tokenizer(bundle)

    def available_mib(self) -> Optional[float]:
        """Return the memory of the host."""
        return host_available_mib()

    def load(self, bundle: BundleFiles, base: Optional[str], weights: str) -> Model:
        """Load graphs and weights; a compiled bundle is no delta."""
        return TunedModel(bundle) if weights == "tuned" else CompiledModel(bundle, self._threads)

    def gpu(self) -> Optional[str]:
        """Return None: graphs run on the CPU."""
        return None

    def software(self) -> Dict[str, str]:
        """Return the versions of the libraries, and the threads of a graph."""
        versions: Dict[str, Any] = {"onnxruntime": onnxruntime, "numpy": np, "tokenizers": tokenizers}
        return dict(
            {name: str(library.__version__) for name, library in versions.items()},
            threads=str(self._threads or os.cpu_count()),
        )
