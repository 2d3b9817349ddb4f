"""Strict validation of ``far.json``: types, and bounds on all values that determine time and memory.

A bundle is untrusted input: its checksums only prove that it is unchanged.
"""

import re
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ..far.batches import MOST_EPOCHS
from ..far.display import shown
from ..far.execution import KERNELS, Execution, checked
from ..far.layout import ModelLayout
from .scores import METRICS, OF_ONE_CLASS
from .tables import SEPARATORS
from .task import Task

__all__ = ["check_base", "check_phase", "check_provenance"]

_MOST_BATCH = 65536
_MOST_LENGTH = 1 << 20
_MOST_NUMBER = 1e9
_MOST_NAME = 1000
"""Maximum characters of a name."""

_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*(\.[A-Za-z0-9][A-Za-z0-9_]*)*")
"""A path of submodules, without attributes that begin with an underscore."""

_STEPS = ("end", "backward")
_OPTIMIZERS = ("adamw", "sgd")
_ENGINES = ("torch", "onnx")
_COMPILED = "engine/weights.safetensors"
"""Start weights of a compiled engine, in the layout of its program."""

_PHASE = {
    "layout", "learners", "frozen_embeddings", "frozen_attention_layers", "frozen_bottom_layers", "learning_rate",
    "epochs", "batch_size", "seed", "max_length", "plan", "task", "segments", "tokenizer", "predicted", "weights",
}  # fmt: skip

_PLAN = {
    "optimizer", "micro_batch_size", "feed_forward", "attention", "dropout", "layer_norm", "frozen_dtype",
    "checkpointing", "optimizer_kernel", "optimizer_step",
}  # fmt: skip

_TOKENIZER = {"proof", "special", "lower_case", "pad_id"}
_PREDICTED = {"device", "process_mib", "peaks", "step_s"}
_WEIGHTS = {"start", "tuned", "names"}
_BASE = {"name", "sha256", "names"}
_REFIT = {"rows", "dev_metric", "dev_metric_error"}


def check_phase(phase: Any, checksums: Dict[str, Any]) -> None:
    """Validate the part of ``far.json`` that the FAR phase needs.

    Args:
        checksums: SHA-256 of the bundle's files by name.

    Raises:
        ValueError: one line with the key and the rule.
    """
    # bundles of trials without split attentions have no heads
    _keys(phase, _PHASE | ({"heads"} & set(_table(phase, "phase"))), "phase")
    layout = _layout(phase["layout"])
    _learners(phase["learners"], "learners", "feed-forward block", len(layout.blocks))
    if "heads" in phase:
        _learners(phase["heads"], "heads", "layer", len(layout.layers))
    for name in ("frozen_embeddings", "segments"):
        _bool(phase[name], name)
    for name in ("frozen_attention_layers", "frozen_bottom_layers"):
        _whole(phase[name], name, 0, len(layout.layers))
    _number(phase["learning_rate"], "learning_rate", above=0.0, most=1000.0)
    _number(phase["epochs"], "epochs", above=0.0, most=MOST_EPOCHS)
    _whole(phase["batch_size"], "batch_size", 1, _MOST_BATCH)
    _whole(phase["seed"], "seed", 0, (1 << 63) - 1)
    _whole(phase["max_length"], "max_length", 1, _MOST_LENGTH)
    _plan(phase["plan"])
    _task(phase["task"])
    _tokenizer(phase["tokenizer"])
    _predicted(phase["predicted"])
    _weights(phase["weights"], checksums)
    if phase["plan"].get("engine", "torch") == "torch" and phase["weights"]["start"].startswith("engine/"):
        raise ValueError("weights.start is that of a compiled engine, and plan.engine is torch")
    if phase["plan"].get("engine") == "onnx":
        _compiled(phase["weights"], checksums)


def check_base(base: Any) -> None:
    """Validate the record of the public checkpoint that a delta is applied to.

    Raises:
        ValueError: as ``check_phase``.
    """
    if base is None:
        return
    _keys(base, _BASE, "base")
    _name(base["name"], "base.name")
    _name(base["sha256"], "base.sha256")
    names = _table(base["names"], "base.names")
    for name in names.values():
        _name(name, "base.names")
    if len(set(names.values())) != len(names):
        raise ValueError("base.names gives two tensors the same name")


def check_provenance(manifest: Dict[str, Any]) -> None:
    """Validate the names of study and trial, which a measurement repeats, and the record of a final model.

    Raises:
        ValueError: as ``check_phase``.
    """
    _name(manifest.get("study"), "study")
    _whole(_table(manifest.get("trial"), "trial").get("number"), "trial.number", 0, int(_MOST_NUMBER))
    if "refit" in manifest:
        refit = manifest["refit"]
        _keys(refit, _REFIT, "refit")
        _whole(refit["rows"], "refit.rows", 1, int(_MOST_NUMBER))
        for name in ("dev_metric", "dev_metric_error"):
            _number(refit[name], "refit." + name, -_MOST_NUMBER, _MOST_NUMBER)


def _keys(value: Any, keys: Any, name: str) -> None:
    """Check that a table has exactly these keys."""
    wrong = sorted(set(_table(value, name)) ^ set(keys))
    if wrong:
        raise ValueError(
            "{} {} {}".format(name, "lacks" if wrong[0] in keys else "has the unknown key", shown(wrong[0]))
        )


def _table(value: Any, name: str) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("{} is {}; it must be a table".format(name, shown(value)))
    return value


def _list(value: Any, name: str, most: int) -> List[Any]:
    if not isinstance(value, list):
        raise ValueError("{} is {}; it must be a list".format(name, shown(value)))
    if len(value) > most:
        raise ValueError("{} has {} entries; at most {} are read".format(name, len(value), most))
    return value


def _bool(value: Any, name: str) -> None:
    if not isinstance(value, bool):
        raise ValueError("{} is {}; it must be true or false".format(name, shown(value)))


def _whole(value: Any, name: str, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError("{} is {}; it must be a whole number from {} to {}".format(name, shown(value), least, most))


def _number(value: Any, name: str, above: float, most: float) -> None:
    """A number in (above, most]; NaN is in no interval."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not above < value <= most:
        raise ValueError(
            "{} is {}; it must be a number above {:g} and at most {:g}".format(name, shown(value), above, most)
        )


def _name(value: Any, name: str) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_NAME:
        raise ValueError("{} is {}; it must be a text of 1 to {} characters".format(name, shown(value), _MOST_NAME))


def _choice(value: Any, name: str, choices: Sequence[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError("{} is {}; it must be one of {}".format(name, shown(value), ", ".join(choices)))


def _layout(value: Any) -> ModelLayout:
    _list(_table(value, "layout").get("layers"), "layout.layers", 1024)
    try:
        layout = ModelLayout.from_dict(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError("the layout is invalid: {}".format(error)) from error
    _paths((layout.embeddings,) + _path_list(layout, ("dropouts", "norms", "below", "shared")))
    for layer in layout.layers:
        _paths((layer.path,) + _path_list(layer, ("attention", "dropouts", "norms")))
        _whole(layer.own_heads, "layout.own_heads", 0, 4096)
        if not isinstance(layer.kind, str) or not layer.blocks:
            raise ValueError("a layer of the layout has no feed-forward block, or a kind that is no text")
        for block in layer.blocks:
            _paths((block.up, block.activation, block.down))
            _paths(tuple(path for path in (block.gated, block.dropout) if path is not None))
        if layer.self_attention is not None:
            attention = dict(layer.self_attention._asdict())
            _whole(attention.pop("heads"), "layout.heads", 1, 4096)
            _paths(tuple(path for key, path in attention.items() if key != "output" or path is not None))
    return layout


def _path_list(part: Any, names: Sequence[str]) -> Tuple[Any, ...]:
    joined: Tuple[Any, ...] = ()
    for name in names:
        paths = getattr(part, name)
        if not isinstance(paths, tuple):
            raise ValueError("layout.{} is {}; it must be a list of module paths".format(name, shown(paths)))
        joined += paths
    return joined


def _paths(paths: Sequence[Any]) -> None:
    for path in paths:
        if not isinstance(path, str) or len(path) > _MOST_NAME or not _MODULE.fullmatch(path):
            raise ValueError("the layout has {}; it must be the path of a module".format(shown(path)))


def _learners(value: Any, name: str, owner: str, count: int) -> None:
    """Indices of the neurons of each block, or of the heads of each layer."""
    if not isinstance(value, list) or len(value) != count:
        raise ValueError("{} must have one entry for each of the {} {}s".format(name, count, owner))
    for i, chosen in enumerate(value):
        if chosen is None:
            continue
        if not isinstance(chosen, list) or not all(type(k) is int and k >= 0 for k in chosen):
            raise ValueError("the {} of {} {} must be whole numbers".format(name, owner, i))
        if len(set(chosen)) != len(chosen):
            raise ValueError("the {} of {} {} name one twice".format(name, owner, i))


def _plan(value: Any) -> None:
    missing = sorted(_PLAN - set(_table(value, "plan")))
    if missing:
        raise ValueError("its plan has no {!r}".format(missing[0]))
    # bundles made before engines have none
    _keys(value, _PLAN | ({"engine"} & set(value)), "plan")
    _choice(value.get("engine", "torch"), "plan.engine", _ENGINES)
    for name in ("feed_forward", "attention", "dropout", "layer_norm", "frozen_dtype"):
        _name(value[name], "plan." + name)
    _bool(value["checkpointing"], "plan.checkpointing")
    checked(
        Execution(*(value[name] for name in ("feed_forward", "attention", "dropout", "layer_norm", "frozen_dtype")))
    )
    _choice(value["optimizer"], "plan.optimizer", _OPTIMIZERS)
    _choice(value["optimizer_kernel"], "plan.optimizer_kernel", KERNELS)
    _choice(value["optimizer_step"], "plan.optimizer_step", _STEPS)
    if value["micro_batch_size"] is not None:
        _whole(value["micro_batch_size"], "plan.micro_batch_size", 1, _MOST_BATCH)


def _task(value: Any) -> None:
    for key, item in _table(value, "task").items():
        if isinstance(item, list):
            for name in item:
                _name(name, "task." + shown(key).strip("'"))
    try:
        task = Task.from_dict(value)
    except TypeError as error:
        raise ValueError("the task is invalid: {}".format(error)) from error
    for name in ("name", "kind", "metric", "label"):
        _name(getattr(task, name), "task." + name)
    for name in ("labels", "texts"):
        if not isinstance(getattr(task, name), tuple):
            raise ValueError("task.{} is {}; it must be a list of names".format(name, shown(getattr(task, name))))
    if task.columns is not None and not isinstance(task.columns, tuple):
        raise ValueError("task.columns is {}; it must be a list of names".format(shown(task.columns)))
    _bool(task.unanswerable, "task.unanswerable")
    _bool(task.label_columns, "task.label_columns")
    if task.label_columns and (task.kind != "multi-label" or set(task.texts) & set(task.labels)):
        raise ValueError("task.label_columns is for a multi-label task whose labels have columns of their own")
    _choice(task.metric, "task.metric", sorted(METRICS))
    if task.kind not in METRICS[task.metric].kinds:
        raise ValueError("the metric {} is not for a task of {}".format(task.metric, task.kind))
    if task.kind.endswith("classification") and len(task.labels) < 2:
        raise ValueError("it needs at least two labels")
    if task.kind == "multi-label" and not task.labels:
        raise ValueError("it needs a label")
    if len(set(task.labels)) != len(task.labels):
        raise ValueError("task.labels has a name twice")
    if task.positive is not None and (task.metric not in OF_ONE_CLASS or task.positive not in task.labels):
        raise ValueError("task.positive is {}; it must be a label, of a metric of one class".format(
            shown(task.positive)))  # fmt: skip
    if task.label_separator is not None:
        _name(task.label_separator, "task.label_separator")
    if task.separator is not None:
        _choice(task.separator, "task.separator", [separator.name for separator in SEPARATORS])
    _bool(task.decimal_comma, "task.decimal_comma")
    counts = {"question-answering": (2,), "token-classification": (1,)}.get(task.kind, (1, 2))
    if len(task.texts) not in counts or len(set(task.texts + (task.label,))) != len(task.texts) + 1:
        raise ValueError("task.texts and task.label must name {} columns, each once".format(
            " or ".join(str(count + 1) for count in counts)))  # fmt: skip


def _tokenizer(value: Any) -> None:
    _keys(value, _TOKENIZER, "tokenizer")
    _bool(value["lower_case"], "tokenizer.lower_case")
    _whole(value["pad_id"], "tokenizer.pad_id", 0, 1 << 31)
    for name, token in _table(value["special"], "tokenizer.special").items():
        # they become arguments of transformers' tokenizers
        if not re.fullmatch("[a-z_]+_token", name):
            raise ValueError(
                "tokenizer.special has {}; it must be the name of a special token, as cls_token".format(shown(name))
            )
        _name(token, "tokenizer.special")
    proof = _list(value["proof"], "tokenizer.proof", 100)
    if not proof:
        raise ValueError("tokenizer.proof has no sentence")
    for pair in proof:
        _pair(pair, "tokenizer.proof", lambda text: isinstance(text, str) and len(text) <= 10000)
        for token in _list(pair[1], "tokenizer.proof", _MOST_LENGTH):
            _whole(token, "tokenizer.proof", 0, 1 << 31)


def _predicted(value: Any) -> None:
    _keys(value, _PREDICTED, "predicted")
    _name(value["device"], "predicted.device")
    _number(value["process_mib"], "predicted.process_mib", -1.0, _MOST_NUMBER)
    peaks, seconds = _list(value["peaks"], "predicted.peaks", 100), _table(value["step_s"], "predicted.step_s")
    if not peaks or not seconds:
        raise ValueError("predicted.peaks and predicted.step_s must not be empty")
    for pair in peaks:
        _pair(pair, "predicted.peaks", lambda size: size is None or (type(size) is int and 1 <= size <= _MOST_BATCH))
        _number(pair[1], "predicted.peaks", -1.0, _MOST_NUMBER)
    for length, value_s in seconds.items():
        if not re.fullmatch("[1-9][0-9]{0,6}", length):
            raise ValueError("predicted.step_s has {}; it must be a number of tokens".format(shown(length)))
        _number(value_s, "predicted.step_s", -1.0, _MOST_NUMBER)


def _pair(value: Any, name: str, is_valid: Callable[[Any], bool]) -> None:
    """Check for a list of two items, the first of which is valid."""
    if not isinstance(value, list) or len(value) != 2 or not is_valid(value[0]):
        raise ValueError("{} has {}; it must hold pairs of a key and a value".format(name, shown(value)))


def _weights(value: Any, checksums: Dict[str, Any]) -> None:
    _keys(value, _WEIGHTS, "weights")
    for name in ("start", "tuned"):
        file = value[name]
        if not isinstance(file, str) or file not in checksums:
            raise ValueError("its weights {} are not listed".format(shown(file)))
        if not file.endswith(".safetensors"):
            raise ValueError("its weights {} are no .safetensors".format(shown(file)))
    names = _list(value["names"], "weights.names", 1000000)
    for name in names:
        _name(name, "weights.names")
    if len(set(names)) != len(names):
        raise ValueError("weights.names has a name twice")


def _compiled(weights: Dict[str, Any], checksums: Dict[str, Any]) -> None:
    if weights["start"] != _COMPILED:
        raise ValueError("weights.start is {}; it must be {}".format(shown(weights["start"]), _COMPILED))
    if "engine/program.json" not in checksums:
        raise ValueError("engine/program.json is not listed")
