"""The program of a compiled engine: which graphs run in which order, with which values. Strict validation.

``engine/program.json`` of a bundle is untrusted: all names are checked against each other, and all sizes are bounded,
before a graph is loaded. Values are called by their names:

- ``weight:NAME``: a tensor of ``weights.safetensors``, or its trained array
- ``batch:NAME``: an input of a batch
- ``size:rows``, ``size:length``: the sizes of a batch, int64 ``[1]``
- ``dropout:N``: a mask, True where an element is dropped
- ``loss``, ``gradient:NAME``; ``logits`` or ``start_logits`` and ``end_logits``: results
- ``v12``: an intermediate value
"""

import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..far.display import shown

__all__ = [
    "SCHEMA_VERSION",
    "Call",
    "DropoutMask",
    "Input",
    "Merged",
    "Part",
    "Program",
    "Stored",
    "check_fit",
    "read_program",
]

SCHEMA_VERSION = 2
"""Schema version of ``program.json``. Version 1 has no portions: all rows are computed at once."""

_KEYS = {
    "schema_version", "opset", "graphs", "batch", "trained", "frozen", "dropouts", "step", "predict", "merge",
    "portion",
}  # fmt: skip
_MOST_ENTRIES = 100000
"""Maximum number of calls, tensors or graphs; the largest models have some thousands."""
_MOST_NAME = 1000
_MOST_DIMENSIONS = 8
_MOST_SIZE = 1 << 40
_MOST_MASK = 1 << 24
"""Maximum elements of a mask for one row and one token."""

_GRAPH = re.compile(r"graph-[0-9]{1,6}\.onnx")
_INTERMEDIATE = re.compile(r"v[0-9]{1,9}")
_FORMS = {
    "input_ids": ("ids",),
    "token_type_ids": ("ids",),
    "attention_mask": ("additive", "tokens"),
    "labels": ("targets",),
    "start_positions": ("targets",),
    "end_positions": ("targets",),
    "class_weights": ("classes",),
}
"""Forms of the inputs of a batch, by the names of transformers' arguments."""
_DTYPES = ("float32", "float16", "int64")
_LOGITS = (("logits",), ("start_logits", "end_logits"))


class Input(NamedTuple):
    """An input of a batch.

    ``form`` is ``ids`` (int64 ``[rows, length]``), ``additive`` (a mask that is added to scores, float32
    ``[rows, 1, 1, length]``), ``tokens`` (int64 ``[rows, length]``, 1 for a token), ``targets`` or ``classes`` (the
    weights of the classes in the mean loss, float32 ``[classes]``).
    """

    name: str
    form: str


class Stored(NamedTuple):
    """A tensor of ``weights.safetensors``.

    The gradient of a trained table with ``ids`` consists of those of the rows that this input names, ``[..., width]``;
    the row ``padding`` has none.
    """

    name: str
    shape: Tuple[int, ...]
    dtype: str = "float32"
    ids: Optional[str] = None
    padding: Optional[int] = None


class DropoutMask(NamedTuple):
    """A mask, each element True with probability ``p``; a dimension is a number, ``rows`` or ``length``."""

    shape: Tuple[Any, ...]
    p: float


class Call(NamedTuple):
    """A run of a graph: the values that its inputs take and its outputs are called, by the graph's own names.

    ``rows`` has the names, of inputs and outputs, whose first dimension consists of the rows of the batch. A call with
    any can be made in portions of the rows: they take and give a part of these, and the other outputs are added up.
    """

    graph: int
    inputs: Dict[str, str]
    outputs: Dict[str, str]
    rows: Tuple[str, ...] = ()


class Part(NamedTuple):
    """A tensor that goes into a merged one, at these places along its axis; None for the tensor itself.

    What has the place -1, zero padding, is dropped.
    """

    value: str
    places: Optional[Tuple[int, ...]]


class Merged(NamedTuple):
    """A tensor of the merged model, by transformers' name."""

    name: str
    parts: Tuple[Part, ...]
    axis: int
    shape: Tuple[int, ...]


class Program(NamedTuple):
    """A compiled engine: training step, prediction, and how the merged model follows from its tensors.

    ``graphs`` are file names. ``dropouts`` are in the order of their numbers. ``portion`` is the number of tokens that
    calls with ``rows`` compute at once; None for all.
    """

    opset: int
    graphs: Tuple[str, ...]
    batch: Tuple[Input, ...]
    trained: Tuple[Stored, ...]
    frozen: Tuple[Stored, ...]
    dropouts: Tuple[DropoutMask, ...]
    step: Tuple[Call, ...]
    predict: Tuple[Call, ...]
    merge: Tuple[Merged, ...]
    portion: Optional[int] = None

    @property
    def results(self) -> Tuple[str, ...]:
        """Values of a prediction: ``logits``, or ``start_logits`` and ``end_logits``."""
        made = {value for call in self.predict for value in call.outputs.values()}
        return next(names for names in _LOGITS if set(names) <= made)

    @property
    def targets(self) -> Tuple[str, ...]:
        """The targets, which only training takes."""
        return tuple(entry.name for entry in self.batch if entry.form == "targets")

    @property
    def weighted(self) -> bool:
        """Whether the mean loss takes weights of the classes."""
        return any(entry.form == "classes" for entry in self.batch)


def read_program(values: Any) -> Program:
    """Return the program of the parsed JSON of ``program.json``.

    Raises:
        ValueError: one line with the key and the rule.
    """
    if not isinstance(values, dict):
        raise ValueError("the program is {}; it must be a table".format(shown(values)))
    version = _whole(values.get("schema_version"), "schema_version", 1, SCHEMA_VERSION)
    _keys(values, _KEYS if version > 1 else _KEYS - {"portion"}, "the program")
    graphs = tuple(_list(values["graphs"], "graphs"))
    if not graphs or not all(isinstance(name, str) and _GRAPH.fullmatch(name) for name in graphs):
        raise ValueError("graphs is {}; it must hold names as graph-00.onnx".format(shown(list(graphs))))
    _once(graphs, "graphs")
    batch = _batch(values["batch"])
    trained = tuple(_trained(entry, {"batch:" + each.name for each in batch if each.form == "ids"})
                    for entry in _list(values["trained"], "trained"))  # fmt: skip
    frozen = tuple(_stored(entry, "frozen", {"name", "shape", "dtype"}) for entry in _list(values["frozen"], "frozen"))
    if not trained:
        raise ValueError("trained is empty; there is nothing to train")
    _once([tensor.name for tensor in trained + frozen], "trained and frozen")
    dropouts = tuple(_dropout(entry, i) for i, entry in enumerate(_list(values["dropouts"], "dropouts")))
    merge = tuple(_merged(entry, {tensor.name: tensor for tensor in trained + frozen})
                  for entry in _list(values["merge"], "merge"))  # fmt: skip
    _once([entry.name for entry in merge], "merge")
    step, predict = (tuple(_call(entry, key, len(graphs), version) for entry in _list(values[key], key))
                     for key in ("step", "predict"))  # fmt: skip
    program = Program(
        _whole(values["opset"], "opset", 1, 1000), graphs, batch, trained, frozen, dropouts, step, predict, merge,
        _whole(values["portion"], "portion", 1, _MOST_SIZE) if version > 1 else None,
    )  # fmt: skip
    _check_order(program)
    return program


def check_fit(program: Program, names: Sequence[str], kind: str, segments: bool, weighted: bool) -> None:
    """Check a program against what far.json records.

    Args:
        names: of the tensors that are saved.
        kind: of the task.
        segments: whether the model has segments.
        weighted: whether its loss has weights of the classes.

    Raises:
        ValueError: one line with the difference.
    """
    merged = {entry.name for entry in program.merge}
    for name in sorted(merged ^ set(names)):
        raise ValueError("merge {} {}".format("has the unknown" if name in merged else "lacks", shown(name)))
    spans = kind == "question-answering"
    if (program.targets != ("labels",)) != spans or (len(program.results) == 2) != spans:
        raise ValueError("its targets or results are not those of a task of {}".format(kind))
    if program.weighted != weighted:
        raise ValueError("batch {} class_weights, unlike far.json".format("has" if program.weighted else "lacks"))
    if segments and "token_type_ids" not in {entry.name for entry in program.batch}:
        raise ValueError("batch lacks token_type_ids, the model has segments")


def _keys(value: Any, keys: Set[str], name: str) -> None:
    if not isinstance(value, dict):
        raise ValueError("{} is {}; it must be a table".format(name, shown(value)))
    wrong = sorted(set(value) ^ keys)
    if wrong:
        raise ValueError(
            "{} {} {}".format(name, "lacks" if wrong[0] in keys else "has the unknown key", shown(wrong[0]))
        )


def _list(value: Any, name: str, most: int = _MOST_ENTRIES) -> List[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("{} is {}; it must be a list of at most {} entries".format(name, shown(value), most))
    return value


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError("{} is {}; it must be a whole number from {} to {}".format(name, shown(value), least, most))
    return value


def _name(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_NAME or "\0" in value:
        raise ValueError("{} is {}; it must be a text of 1 to {} characters".format(name, shown(value), _MOST_NAME))
    return value


def _once(names: Sequence[str], name: str) -> None:
    if len(set(names)) != len(names):
        raise ValueError("{} has a name twice".format(name))


def _shape(value: Any, name: str) -> Tuple[int, ...]:
    return tuple(_whole(count, name, 0, _MOST_SIZE) for count in _list(value, name, _MOST_DIMENSIONS))


def _batch(value: Any) -> Tuple[Input, ...]:
    inputs = []
    for entry in _list(value, "batch"):
        _keys(entry, {"name", "form"}, "batch")
        name, form = entry["name"], entry["form"]
        if not isinstance(name, str) or form not in _FORMS.get(name, ()):
            raise ValueError("batch has {} as {}; a model has no such input".format(shown(name), shown(form)))
        inputs.append(Input(name, form))
    names = [entry.name for entry in inputs]
    _once(names, "batch")
    targets = sorted(entry.name for entry in inputs if entry.form == "targets")
    if "input_ids" not in names or targets not in (["labels"], ["end_positions", "start_positions"]):
        raise ValueError("batch has {}; it must have input_ids and targets".format(shown(names)))
    return tuple(inputs)


def _stored(value: Any, name: str, keys: Set[str]) -> Stored:
    _keys(value, keys, name)
    dtype = value.get("dtype", "float32")
    if dtype not in _DTYPES:
        raise ValueError("{}.dtype is {}; it must be one of {}".format(name, shown(dtype), ", ".join(_DTYPES)))
    return Stored(_name(value["name"], name + ".name"), _shape(value["shape"], name + ".shape"), dtype)


def _trained(value: Any, ids: Set[str]) -> Stored:
    if not isinstance(value, dict) or "ids" not in value:
        return _stored(value, "trained", {"name", "shape"})
    _keys(value, {"name", "shape", "ids", "padding"}, "trained")
    table = _stored({key: value[key] for key in ("name", "shape")}, "trained", {"name", "shape"})
    if value["ids"] not in ids or len(table.shape) != 2:
        raise ValueError("trained.ids is {}; it must be ids of the batch, of a table".format(shown(value["ids"])))
    padding = value["padding"]
    if padding is not None:
        _whole(padding, "trained.padding", 0, table.shape[0] - 1)
    return table._replace(ids=value["ids"], padding=padding)


def _dropout(value: Any, number: int) -> DropoutMask:
    _keys(value, {"value", "shape", "p"}, "dropouts")
    if value["value"] != "dropout:{}".format(number):
        raise ValueError("dropouts has {}; number {} is dropout:{}".format(shown(value["value"]), number, number))
    p = value["p"]
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        raise ValueError("dropouts.p is {}; it must be a number from 0 to 1".format(shown(p)))
    shape = tuple(_list(value["shape"], "dropouts.shape", _MOST_DIMENSIONS))
    elements = 1
    for count in shape:
        if count not in ("rows", "length"):
            elements *= _whole(count, "dropouts.shape", 1, _MOST_MASK)
    if elements > _MOST_MASK or shape.count("rows") > 1 or shape.count("length") > 2:
        raise ValueError("dropouts.shape is {}, which is too large".format(shown(list(shape))))
    return DropoutMask(shape, float(p))


def _merged(value: Any, stored: Dict[str, Stored]) -> Merged:
    _keys(value, {"name", "parts", "axis", "shape"}, "merge")
    name, shape = _name(value["name"], "merge.name"), _shape(value["shape"], "merge.shape")
    axis = _whole(value["axis"], "merge.axis", 0, max(0, len(shape) - 1))
    parts = []
    for entry in _list(value["parts"], "merge.parts"):
        _keys(entry, {"value", "index"}, "merge.parts")
        if not isinstance(entry["value"], str) or entry["value"] not in stored:
            raise ValueError("merge takes {}, which is no tensor".format(shown(entry["value"])))
        index = entry["index"]
        parts.append(Part(entry["value"], None if index is None else tuple(_list(index, "merge.index", _MOST_SIZE))))
    shapes = [stored[part.value].shape for part in parts]
    if len(parts) == 1 and parts[0].places is None:
        fits = shapes[0] == shape
    else:
        fits = bool(shape) and all(_fits(part, found, shape, axis) for part, found in zip(parts, shapes))
        fits = fits and sorted(_taken(parts)) == list(range(shape[axis]))
    if not fits:
        raise ValueError("the parts of {} do not make up its shape {}".format(shown(name), list(shape)))
    return Merged(name, tuple(parts), axis, shape)


def _taken(parts: Sequence[Part]) -> List[int]:
    return [place for part in parts for place in part.places or () if place != -1]


def _fits(part: Part, found: Tuple[int, ...], shape: Tuple[int, ...], axis: int) -> bool:
    """Whether a part has a merged tensor's shape but for its axis, and its places are distinct ones there."""
    places = part.places
    if places is None or len(found) != len(shape) or not all(type(place) is int for place in places):
        return False
    others = [i for i in range(len(shape)) if i != axis]
    return len(places) == found[axis] and all(found[i] == shape[i] for i in others)


def _call(value: Any, name: str, graphs: int, version: int) -> Call:
    _keys(value, {"graph", "inputs", "outputs"} | ({"rows"} if version > 1 else set()), name)
    for side in ("inputs", "outputs"):
        table = value[side]
        if not isinstance(table, dict) or not 0 < len(table) <= _MOST_ENTRIES:
            raise ValueError("{}.{} is {}; it must be a table of values".format(name, side, shown(table)))
        for key, entry in table.items():
            _name(key, "{}.{}".format(name, side))
            _name(entry, "{}.{}".format(name, side))
    _once(list(value["outputs"].values()), name + ".outputs")
    rows = tuple(_list(value.get("rows", []), name + ".rows"))
    sliced = [key for key, entry in value["inputs"].items() if not entry.startswith(("weight:", "size:"))]
    for key in rows:
        if not isinstance(key, str) or key not in sliced + list(value["outputs"]):
            raise ValueError("{}.rows has {}, which is no value of rows".format(name, shown(key)))
    number = _whole(value["graph"], name + ".graph", 0, graphs - 1)
    return Call(number, dict(value["inputs"]), dict(value["outputs"]), rows)


def _check_order(program: Program) -> None:
    """Check that each value exists when it is taken, is made once, and that all results are made."""
    weights = {"weight:" + tensor.name for tensor in program.trained + program.frozen}
    inputs = {"batch:" + entry.name for entry in program.batch}
    inputs |= {"size:rows", "size:length"}
    masks = {"dropout:{}".format(i) for i in range(len(program.dropouts))}
    wanted = {"loss"} | {"gradient:" + tensor.name for tensor in program.trained}
    _check_calls("step", program.step, weights | inputs | masks, [wanted])
    targets = {"batch:" + entry.name for entry in program.batch if entry.form in ("targets", "classes")}
    _check_calls("predict", program.predict, weights | inputs - targets, [set(names) for names in _LOGITS])


def _check_calls(name: str, calls: Sequence[Call], given: Set[str], results: Sequence[Set[str]]) -> None:
    known = set(given)
    made: Set[str] = set()
    allowed = set().union(*results)
    for call in calls:
        for value in call.inputs.values():
            if value not in known:
                raise ValueError("{} takes {} before it is made".format(name, shown(value)))
        for value in call.outputs.values():
            if value in known or not (value in allowed or _INTERMEDIATE.fullmatch(value)):
                raise ValueError("{} makes {}, which exists or is no result".format(name, shown(value)))
            known.add(value)
            made.add(value)
    if made & allowed not in results:
        missing = sorted(min(results, key=len) - made) or sorted(made & allowed)
        raise ValueError("{} does not make {} as a result of its own".format(name, shown(missing[0])))
