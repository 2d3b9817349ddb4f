"""The model of a bundle with its start weights, and how a trained one is saved."""

import os
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ...far import safetensors, tensor_file
from ...far.display import shown, shown_text
from ...far.execution import Execution
from ...far.layout import ModelLayout
from ...far.surgery import apply_far
from ..bundle_files import BundleFiles, BundleProblem, file_digest
from ..config import longest_text, weights_problem
from ..memory import is_out_of_memory
from ..saving import copy_settings
from .device import training_device

__all__ = ["DELTA", "load_model", "model_class", "put_weights", "reconfigured", "save_model"]

DELTA = "delta/"
"""Prefix of a delta's tensors: ``delta/whole/NAME``, or changed rows ``delta/rows/NAME`` with their indices
``delta/index-rows/NAME``, or changed columns likewise."""

_CLASSES = {
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
"""transformers' classes for kinds of task other than one answer per text."""


def model_class(kind: str) -> Any:
    """Return the class of transformers' models for a kind of task (task.py)."""
    import transformers

    return getattr(transformers, _CLASSES.get(kind, "AutoModelForSequenceClassification"))


_OUTPUTS = {"regression": 1, "question-answering": 2}
_PROBLEMS = {
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
"""transformers' names of a head's loss."""


def load_model(bundle: BundleFiles, base: Optional[str] = None, weights: str = "start") -> nn.Module:
    """Build the model with the weights of ``put_weights``, on a GPU if there is one.

    It is built only if the weights' files have tensors of the sizes that its configuration requires.

    Raises:
        BundleProblem: as ``put_weights``, and for a configuration that does not fit the weights or the task.
    """
    shapes = _shapes(bundle, base, weights)
    config = _config(bundle, shapes)
    file = bundle.phase["weights"][weights]
    # torch before 2.0 can't build a model without allocating its tensors: there only the lower bound is checked
    if hasattr(torch.device, "__enter__"):
        with torch.device("meta"):
            _check_shapes(bundle, file, _built(bundle, config), shapes)
    model: nn.Module = _built(bundle, config).float()
    _check_shapes(bundle, file, model, shapes)
    _check_names(bundle, model)
    put_weights(bundle, model, base, weights)
    return model.to(training_device())


def _config(bundle: BundleFiles, shapes: Dict[str, List[int]]) -> Any:
    """The model's configuration.

    Raises:
        BundleProblem: if it does not fit its weights or its task.
    """
    import transformers

    phase, task = bundle.phase, bundle.task
    problem = None
    try:
        config = transformers.AutoConfig.from_pretrained(bundle.path("model"), trust_remote_code=False)
        values = config.to_dict()
        problem = weights_problem(values, shapes)
        outputs = _OUTPUTS.get(task.kind, len(task.labels))
        layers = int(config.num_hidden_layers)
    except MemoryError:
        raise
    except Exception as error:  # transformers has many ways to refuse a value
        raise _unusable(bundle, "transformers refuses it: {}".format(_first_line(error))) from error
    if problem is None and config.num_labels != outputs:
        problem = "it has {} outputs, the task has {}".format(config.num_labels, outputs)
    if problem is None and task.kind in _PROBLEMS and config.problem_type != _PROBLEMS[task.kind]:
        problem = "problem_type is {}, the task is {}".format(shown(config.problem_type), task.kind)
    if problem is None and layers != len(phase["layout"]["layers"]):
        problem = "it has {} layers, far.json {}".format(layers, len(phase["layout"]["layers"]))
    if problem is None and phase["max_length"] > longest_text(values):
        problem = "it takes at most {} tokens, max_length is {}".format(longest_text(values), phase["max_length"])
    if problem is not None:
        raise _unusable(bundle, problem)
    return config


def _built(bundle: BundleFiles, config: Any) -> Any:
    """A model with random weights."""
    try:
        return model_class(bundle.task.kind).from_config(config, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # transformers and torch have many ways to refuse a value
        if is_out_of_memory(error):
            raise
        raise _unusable(bundle, "no model can be made of it: {}".format(_first_line(error))) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().split("\n")
    return shown_text(lines[0] or type(error).__name__, 160)


def _unusable(bundle: BundleFiles, problem: str) -> BundleProblem:
    return BundleProblem("{}/model/config.json: {}; export the bundle again".format(bundle.folder, problem))


def _shapes(bundle: BundleFiles, base: Optional[str], weights: str) -> Dict[str, List[int]]:
    """The shapes of all tensors that ``put_weights`` reads, by their names in the model.

    Raises:
        BundleProblem: as ``put_weights``.
    """
    file = bundle.phase["weights"][weights]
    try:
        stored = tensor_file.shapes(bundle.path(file))
        if bundle.manifest["base"] is None:
            return stored
        names = bundle.manifest["base"]["names"]
        below = tensor_file.shapes(_base_weights(bundle, base))
    except BundleProblem:
        raise
    except ValueError as error:
        raise _misfit(bundle, file, error) from error
    shapes = {names[name]: shape for name, shape in below.items() if name in names}
    whole = DELTA + "whole/"
    shapes.update((name[len(whole) :], shape) for name, shape in stored.items() if name.startswith(whole))
    return shapes


def _check_shapes(bundle: BundleFiles, file: str, model: nn.Module, shapes: Dict[str, List[int]]) -> None:
    """Compare a model's tensors with those of the weights.

    Raises:
        BundleProblem: for the first difference.
    """
    expected = {name: list(value.shape) for name, value in model.named_parameters()}
    expected.update((name, list(value.shape)) for name, value in model.named_buffers() if name in shapes)
    for name in sorted(set(expected) | set(shapes)):
        if name not in expected:
            raise _misfit(bundle, file, "the model has no {}".format(shown(name)))
        if name not in shapes:
            raise _misfit(bundle, file, "it lacks {}".format(shown(name)))
        if expected[name] != shapes[name]:
            raise _misfit(bundle, file, "{} is {}, the model's {}".format(shown(name), shapes[name], expected[name]))


def _misfit(bundle: BundleFiles, file: str, problem: object) -> BundleProblem:
    return BundleProblem(
        "{}/{} does not fit its model: {}; export the bundle again".format(bundle.folder, file, problem)
    )


def put_weights(bundle: BundleFiles, model: nn.Module, base: Optional[str] = None, weights: str = "start") -> None:
    """Load the weights from which the FAR phase starts (``start``), or those of the finished trial (``tuned``).

    Args:
        base: folder of the public checkpoint, for a bundle that is a delta.

    Raises:
        BundleProblem: when weights and model do not fit, or the base is missing or another.
    """
    file = bundle.phase["weights"][weights]
    values: Dict[str, Tensor] = dict(model.named_parameters())
    values.update(model.named_buffers())
    try:
        for name, value in _read_weights(bundle, file, base):
            with torch.no_grad():
                values[name].copy_(value)
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        if isinstance(error, BundleProblem) or is_out_of_memory(error):
            raise
        raise _misfit(bundle, file, _first_line(error)) from error


def _check_names(bundle: BundleFiles, model: nn.Module) -> None:
    """Check that the tensors to save are exactly those of the model."""
    names, state = set(bundle.phase["weights"]["names"]), set(model.state_dict())
    wrong = sorted((names - state) | ({name for name, _ in model.named_parameters()} - names))
    if wrong:
        raise BundleProblem(
            "{}/far.json: weights.names {} {}; export the bundle again".format(
                bundle.folder, "lacks" if wrong[0] in state else "has the unknown", shown(wrong[0])
            )
        )


def reconfigured(bundle: BundleFiles, model: nn.Module) -> nn.Module:
    """Reconfigure the model for the FAR phase of the bundle, in place.

    Raises:
        BundleProblem: when the bundle's layout or learners do not fit the model.
    """
    phase, plan = bundle.phase, bundle.phase["plan"]
    execution = Execution(
        plan["feed_forward"], plan["attention"], plan["dropout"], plan["layer_norm"], plan["frozen_dtype"],
        plan["checkpointing"], precision=plan.get("precision", "float32"),
    )  # fmt: skip
    layout = ModelLayout.from_dict(phase["layout"])
    try:
        return apply_far(
            model, layout, phase["learners"], phase["frozen_embeddings"], phase["frozen_attention_layers"],
            phase["frozen_bottom_layers"], execution, phase.get("heads"),
        )  # fmt: skip
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BundleProblem(
            "{} does not fit its model: {}; export it again".format(bundle.folder, _first_line(error))
        ) from error


def _read_weights(bundle: BundleFiles, name: str, base: Optional[str]) -> Iterator[Tuple[str, Tensor]]:
    """Yield the tensors of one of the bundle's weights files, a delta applied to its base.

    Raises:
        BundleProblem: when the base is missing or another than the bundle's.
        ValueError: when the file breaks its format.
    """
    checkpoint = bundle.manifest["base"]
    if checkpoint is None:
        for pair in safetensors.read(bundle.path(name)):
            yield pair
        return
    weights = _base_weights(bundle, base)
    delta = dict(safetensors.read(bundle.path(name)))
    for key, value in safetensors.read(weights):
        # a checkpoint may have a head of its own
        key = checkpoint["names"].get(key, "")
        if key and DELTA + "whole/" + key not in delta:
            yield key, _changed(key, value, delta)
    whole = DELTA + "whole/"
    for key, value in delta.items():
        if key.startswith(whole):
            yield key[len(whole) :], value


def _base_weights(bundle: BundleFiles, base: Optional[str]) -> str:
    """The weights file of the checkpoint that a delta is applied to.

    Raises:
        BundleProblem: when it is missing or another than the bundle's.
    """
    checkpoint = bundle.manifest["base"]
    if base is None:
        raise BundleProblem(
            "{} carries only what differs from {}; give the folder of that checkpoint with --base".format(
                bundle.folder, checkpoint["name"]
            )
        )
    weights = os.path.join(base, "model.safetensors")
    if not os.path.isfile(weights) or file_digest(weights) != checkpoint["sha256"]:
        raise BundleProblem(
            "{} is not the {} that the bundle is a delta of; fetch the checkpoint that it was made from".format(
                weights, checkpoint["name"]
            )
        )
    return weights


def _changed(name: str, value: Tensor, delta: Dict[str, Tensor]) -> Tensor:
    """A tensor of the base with the changed rows and columns of the delta."""
    for dim, kind in enumerate(("rows", "columns")):
        index = delta.get("{}index-{}/{}".format(DELTA, kind, name))
        if index is not None:
            value.index_copy_(dim, index.long(), delta["{}{}/{}".format(DELTA, kind, name)])
    return value


def save_model(bundle: BundleFiles, model: nn.Module, folder: str, binary: bool = False) -> None:
    """Save a merged model as transformers does, with the bundle's configuration and tokenizer.

    Args:
        binary: also save ``pytorch_model.bin``, which transformers before 4.27 needs.
    """
    copy_settings(bundle, folder)
    state = model.state_dict()
    # only the names that transformers saves: older versions count constant buffers among a model's weights
    state = {name: state[name].detach().cpu() for name in bundle.phase["weights"]["names"]}
    safetensors.save(os.path.join(folder, "model.safetensors"), state, {"format": "pt"})
    if binary:
        torch.save(state, os.path.join(folder, "pytorch_model.bin"))
