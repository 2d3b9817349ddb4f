"""The model of a bundle with its start weights, and how a trained one is saved."""

import os
import shutil
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn

from .. import safetensors
from ..display import shown, shown_text
from ..execution import Execution
from ..layout import ModelLayout
from ..surgery import apply_far
from .config import longest_text, weights_problem
from .memory import is_out_of_memory
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


_OUTPUTS = {"regression": 1, "question-answering": 2}
_PROBLEMS = {
    "classification": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
"""transformers' names of how a head's loss is made."""


def load_model(bundle: Opened, base: Optional[str] = None, weights: str = "start") -> nn.Module:
    """The model with weights as of ``put_weights``, on a GPU where there is one.

    It is built only where the weights' files have tensors of the sizes that its configuration asks for.

    Raises:
        BundleProblem: as ``put_weights``, and for a configuration that does not go with the weights or the task.
    """
    shapes = _shapes(bundle, base, weights)
    config = _config(bundle, shapes)
    file = bundle.phase["weights"][weights]
    # torch before 2.0 can't build a model without memory for its tensors, and goes by the lower bound alone
    if hasattr(torch.device, "__enter__"):
        with torch.device("meta"):
            _check_shapes(bundle, file, _built(bundle, config), shapes)
    model: nn.Module = _built(bundle, config).float()
    _check_shapes(bundle, file, model, shapes)
    _check_names(bundle, model)
    put_weights(bundle, model, base, weights)
    return model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _config(bundle: Opened, shapes: Dict[str, List[int]]) -> Any:
    """The model's configuration, which goes with its weights and its task.

    Raises:
        BundleProblem: where it does not.
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


def _built(bundle: Opened, config: Any) -> Any:
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


def _unusable(bundle: Opened, problem: str) -> BundleProblem:
    return BundleProblem("{}/model/config.json: {}; export the bundle again".format(bundle.folder, problem))


def _shapes(bundle: Opened, base: Optional[str], weights: str) -> Dict[str, List[int]]:
    """The shapes of all tensors that ``put_weights`` reads, by the model's names.

    Raises:
        BundleProblem: as ``put_weights``.
    """
    file = bundle.phase["weights"][weights]
    try:
        there = safetensors.shapes(bundle.path(file))
        if bundle.says["base"] is None:
            return there
        names = bundle.says["base"]["names"]
        below = safetensors.shapes(_base_weights(bundle, base))
    except BundleProblem:
        raise
    except ValueError as error:
        raise _misfit(bundle, file, error) from error
    found = {names[name]: shape for name, shape in below.items() if name in names}
    whole = DELTA + "whole/"
    found.update((name[len(whole) :], shape) for name, shape in there.items() if name.startswith(whole))
    return found


def _check_shapes(bundle: Opened, file: str, model: nn.Module, shapes: Dict[str, List[int]]) -> None:
    """Compare a model's tensors with those of the weights, and with those that are saved.

    Raises:
        BundleProblem: for the first difference.
    """
    asked = {name: list(value.shape) for name, value in model.named_parameters()}
    asked.update((name, list(value.shape)) for name, value in model.named_buffers() if name in shapes)
    for name in sorted(set(asked) | set(shapes)):
        if name not in asked:
            raise _misfit(bundle, file, "the model has no {}".format(shown(name)))
        if name not in shapes:
            raise _misfit(bundle, file, "it lacks {}".format(shown(name)))
        if asked[name] != shapes[name]:
            raise _misfit(bundle, file, "{} is {}, the model's {}".format(shown(name), shapes[name], asked[name]))


def _misfit(bundle: Opened, file: str, problem: object) -> BundleProblem:
    return BundleProblem(
        "{}/{} does not go with its model: {}; export the bundle again".format(bundle.folder, file, problem)
    )


def put_weights(bundle: Opened, model: nn.Module, base: Optional[str] = None, weights: str = "start") -> None:
    """Give a model the weights that the FAR phase begins with (``start``) or that the trial ended with (``tuned``).

    Args:
        base: folder of the public checkpoint, for a bundle that carries only what differs from it.

    Raises:
        BundleProblem: when weights and model do not go together, or the base is missing or another.
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


def _check_names(bundle: Opened, model: nn.Module) -> None:
    """What is saved is the model, all of it and nothing else."""
    names, state = set(bundle.phase["weights"]["names"]), set(model.state_dict())
    wrong = sorted((names - state) | ({name for name, _ in model.named_parameters()} - names))
    if wrong:
        raise BundleProblem(
            "{}/far.json: weights.names {} {}; export the bundle again".format(
                bundle.folder, "lacks" if wrong[0] in state else "has the unknown", shown(wrong[0])
            )
        )


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
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BundleProblem(
            "{} does not go with its model: {}; export it again".format(bundle.folder, _first_line(error))
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
    weights = _base_weights(bundle, base)
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


def _base_weights(bundle: Opened, base: Optional[str]) -> str:
    """The weights file of the checkpoint that a bundle of differences is put on.

    Raises:
        BundleProblem: when it is missing or another than the bundle's.
    """
    said = bundle.says["base"]
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
    return weights


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
