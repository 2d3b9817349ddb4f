"""Engine and model of a run (runtime/run.py) by torch and transformers."""

from typing import Any, Dict, Mapping, Optional, Tuple

import torch
from torch import nn

from ...far.display import shown_text
from ...far.features import Features
from ...far.layout import ModelLayout
from ...far.loop import predict
from ...far.surgery import merge
from ..best_state import Watch
from ..bundle_files import BundleFiles, BundleProblem
from ..job import OnStep, PhaseLog
from ..memory import is_out_of_memory
from ..recorder import Savepoints
from ..run import Engine, Model
from .device import gpu_name
from .memory import available_mib, peak_mib, process_mib, reset_peak
from .model import load_model, put_weights, reconfigured, save_model
from .phase import train_phase
from .precision import check_precision
from .tokenizer import load_tokenizer

__all__ = ["TorchEngine", "TorchModel"]


class TorchModel(Model):
    """A model of transformers, merged except while it is trained."""

    def __init__(self, bundle: BundleFiles, base: Optional[str], model: nn.Module) -> None:
        self._bundle, self._base, self._model = bundle, base, model

    def tables(self) -> Mapping[str, Optional[int]]:
        """Return the rows of the embedding tables."""
        model: Any = self._model
        tokens = int(model.get_input_embeddings().num_embeddings)
        return {"token": tokens, "segment": getattr(model.config, "type_vocab_size", None)}

    def train(
        self, features: Features, epochs: float, micro_batch_size: Optional[int], on_step: OnStep,
        savepoints: Savepoints, watch: Optional[Watch] = None,
    ) -> Tuple[PhaseLog, float]:  # fmt: skip
        """Reconfigure the model, run the FAR phase, and merge it."""
        phase, model = self._bundle.phase, self._model
        reconfigured(self._bundle, model)
        try:
            process = _process_mib(self._bundle, model, features)
            reset_peak()
            log = train_phase(
                model, phase["plan"], features, phase["learning_rate"], epochs, phase["batch_size"],
                phase["tokenizer"]["pad_id"], phase["seed"], micro_batch_size, on_step, savepoints, watch,
                phase.get("clip_norm"),
            )  # fmt: skip
            return log, process
        finally:
            merge(model, ModelLayout.from_dict(phase["layout"]))

    def restore(self) -> None:
        """Load the start weights again, and return cached memory to the GPU."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        put_weights(self._bundle, self._model, self._base)

    def peak_mib(self) -> float:
        """Return the peak of host and GPU."""
        return peak_mib()

    def predict(self, features: Features) -> Any:
        """Return logits as a tensor on the CPU."""
        return predict(self._model, features, self._bundle.phase["tokenizer"]["pad_id"])

    def save(self, folder: str, binary: bool) -> None:
        """Save the merged model."""
        save_model(self._bundle, self._model, folder, binary)


class TorchEngine(Engine):
    """torch and transformers, on a GPU if there is one."""

    def __init__(self, threads: Optional[int] = None) -> None:
        if threads:
            torch.set_num_threads(threads)

    def tokenizer(self, bundle: BundleFiles) -> Any:
        """Return a fast tokenizer of transformers, if it can make one."""
        return load_tokenizer(bundle)

    def available_mib(self) -> Optional[float]:
        """Return the memory of the host, or of a GPU of its own."""
        return available_mib()

    def load(self, bundle: BundleFiles, base: Optional[str], weights: str) -> TorchModel:
        """Build the model and load its weights."""
        if weights == "start":  # which are trained
            check_precision(bundle)
        return TorchModel(bundle, base, load_model(bundle, base, weights))

    def gpu(self) -> Optional[str]:
        """Return the name of the GPU that trains."""
        return gpu_name()

    def software(self) -> Dict[str, str]:
        """Return the versions of torch, transformers and CUDA, and torch's threads."""
        import transformers

        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "cuda": torch.version.cuda or "none",
            "threads": str(torch.get_num_threads()),
        }


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
