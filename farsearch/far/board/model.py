"""The model of a bundle with its start weights, and how a trained one is saved."""

import os
import shutil
from typing import Any, Dict, Iterator, Optional, Tuple

import torch
from torch import Tensor, nn

from .. import safetensors
from ..execution import Execution
from ..layout import ModelLayout
from ..surgery import apply_far, merge
from .opened import BundleProblem, Opened, file_digest

__all__ = ["DELTA", "load_model", "model_class", "put_weights", "reconfigured", "save_model"]

DELTA = "delta/"
"""Before the names of a delta's tensors: ``delta/whole/NAME``, or some of its rows, ``delta/rows/NAME`` with their
indices ``delta/index-rows/NAME``, or some of its columns likewise."""

_NO_SETTINGS = (".safetensors", ".bin", ".onnx", ".data")
"""Endings of weights, which are not copied beside a newly trained model."""


_CLASSES = {
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
"""transformers' classes for what is not asked of a whole text."""


def model_class(kind: str) -> Any:
    """The class of transformers' models for a kind of task (task.py)."""
    import transformers

    return getattr(transformers, _CLASSES.get(kind, "AutoModelForSequenceClassification"))


def load_model(bundle: Opened, base: Optional[str] = None, weights: str = "start") -> nn.Module:
    """The model with weights as of ``put_weights``, on a GPU where there is one.

    Raises:
        BundleProblem: as ``put_weights``.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(bundle.path("model"))
    model: nn.Module = model_class(bundle.task.kind).from_config(config)
    put_weights(bundle, model, base, weights)
    return model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def put_weights(bundle: Opened, model: nn.Module, base: Optional[str] = None, weights: str = "start") -> None:
    """Give a model the weights that the FAR phase begins with (``start``) or that the trial ended with (``tuned``).

    Args:
        base: folder of the public checkpoint, for a bundle that carries only what differs from it.

    Raises:
        BundleProblem: when weights and model do not go together, or the base is missing or another.
    """
    values: Dict[str, Tensor] = dict(model.named_parameters())
    left = set(values)
    values.update(model.named_buffers())
    file = bundle.phase["weights"][weights]
    try:
        for name, value in _read_weights(bundle, file, base):
            if name not in values:
                raise ValueError("the model has no {!r}".format(name))
            if values[name].shape != value.shape:
                raise ValueError("{!r} is {}, the model's {}".format(name, list(value.shape), list(values[name].shape)))
            with torch.no_grad():
                values[name].copy_(value)
            left.discard(name)
        if left:
            raise ValueError("it lacks {!r}".format(sorted(left)[0]))
    except BundleProblem:
        raise  # of the base: it says what to do
    except ValueError as error:
        raise BundleProblem(
            "{}/{} does not go with its model: {}; export the bundle again".format(bundle.folder, file, error)
        ) from error


def reconfigured(bundle: Opened, model: nn.Module) -> nn.Module:
    """The model made ready for the FAR phase as the bundle says, in place.

    Raises:
        BundleProblem: when what the bundle says does not go with the model.
    """
    phase, plan = bundle.phase, bundle.phase["plan"]
    execution = Execution(
        plan["feed_forward"], plan["attention"], plan["dropout"], plan["layer_norm"], plan["frozen_dtype"],
        plan["checkpointing"],
    )  # fmt: skip
    layout = ModelLayout.from_dict(phase["layout"])
    try:
        return apply_far(
            model, layout, phase["learners"], phase["frozen_embeddings"], phase["frozen_attention_layers"],
            phase["frozen_bottom_layers"], execution,
        )  # fmt: skip
    except (AttributeError, TypeError, ValueError) as error:
        merge(model, layout)
        raise BundleProblem(
            "{} does not go with its model: {}; export it again".format(bundle.folder, error)
        ) from error


def _read_weights(bundle: Opened, name: str, base: Optional[str]) -> Iterator[Tuple[str, Tensor]]:
    """The tensors of one of the bundle's weights files, one at a time, put together with the base where it is a delta.

    Raises:
        BundleProblem: when the base is missing or another than the bundle's.
        ValueError: when the file breaks its format.
    """
    said = bundle.says["base"]
    if said is None:
        for pair in safetensors.read(bundle.path(name)):
            yield pair
        return
    if base is None:
        raise BundleProblem(
            "{} carries only what differs from {}; give the folder of that checkpoint with --base".format(
                bundle.folder, said["name"]
            )
        )
    weights = os.path.join(base, "model.safetensors")
    if not os.path.isfile(weights) or file_digest(weights) != said["sha256"]:
        raise BundleProblem(
            "{} is not the {} that the bundle differs from; fetch the checkpoint that it was made of".format(
                weights, said["name"]
            )
        )
    delta = dict(safetensors.read(bundle.path(name)))
    for key, value in safetensors.read(weights):
        # a checkpoint has the names of its own head, or none
        key = said["names"].get(key, "")
        if key and DELTA + "whole/" + key not in delta:
            yield key, _changed(key, value, delta)
    whole = DELTA + "whole/"
    for key, value in delta.items():
        if key.startswith(whole):
            yield key[len(whole) :], value


def _changed(name: str, value: Tensor, delta: Dict[str, Tensor]) -> Tensor:
    """A tensor of the base with the rows and columns that differ."""
    for dim, kind in enumerate(("rows", "columns")):
        index = delta.get("{}index-{}/{}".format(DELTA, kind, name))
        if index is not None:
            value.index_copy_(dim, index.long(), delta["{}{}/{}".format(DELTA, kind, name)])
    return value


def save_model(bundle: Opened, model: nn.Module, folder: str, binary: bool = False) -> None:
    """Save a merged model as transformers does, with the bundle's configuration and tokenizer.

    Args:
        binary: also as ``pytorch_model.bin``, which transformers before 4.27 needs.
    """
    for name in sorted(bundle.says["sha256"]):
        part, _, file = name.partition("/")
        if part == "model" and "/" not in file and not file.endswith(_NO_SETTINGS):
            shutil.copyfile(bundle.path(name), os.path.join(folder, file))
    state = model.state_dict()
    # the names that transformers saves: older versions count constant buffers among a model's weights
    state = {name: state[name].detach().cpu() for name in bundle.phase["weights"]["names"]}
    safetensors.save(os.path.join(folder, "model.safetensors"), state, {"format": "pt"})
    if binary:
        torch.save(state, os.path.join(folder, "pytorch_model.bin"))
