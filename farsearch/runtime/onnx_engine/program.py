"""Run the graphs of a program in order with onnxruntime: weights are passed as they lie, values freed at once."""

import ctypes
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np
import onnxruntime

from ...far.display import shown, shown_text
from ..program_file import Call, Program, Stored
from .buffers import Buffers, Declared, portion_rows

__all__ = ["Draw", "OnGradient", "Runner", "as_value", "load_session", "table_gradient", "vendor_errors"]

Draw = Callable[[int, Tuple[int, ...]], np.ndarray]
"""Called with the number of a dropout and its shape; returns its mask, bool, True where an element is dropped."""
OnGradient = Callable[[str, np.ndarray], None]
"""Called with the name of a trained tensor and its gradient, a view that is valid only during the call."""

_MEMORY = ("bad_alloc", "failed to allocate memory", "out of memory", "bfcarena")
"""Parts of onnxruntime's messages when memory runs out."""
_NUMPY_TYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64", "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}  # fmt: skip
"""numpy's types by onnxruntime's."""
_REFUSED = {b"location": "another file", b"Loop": "a loop", b"Scan": "a loop"}
"""Names in graphs that are not run: a tensor outside of its graph's file could be any file of this machine, and a loop
may never end."""


class _Lifetimes(NamedTuple):
    """For each call: the values that nothing takes after it, and the gradients whose tensor nothing takes after it."""

    last: Tuple[Tuple[str, ...], ...]
    ready: Tuple[Tuple[str, ...], ...]


class Runner:
    """The graphs of a program, loaded, and its weights.

    Args:
        paths: files of the graphs, in the program's order.
        weights: trained and frozen tensors by name, contiguous. They are not copied: a change in place is seen.
        threads: of a graph; None for onnxruntime's choice.
        redraw: draw a mask again for each call that takes it, instead of holding it from the first to the last.

    Raises:
        ValueError: for a graph that onnxruntime refuses, in one line.
    """

    def __init__(
        self,
        program: Program,
        paths: Sequence[str],
        weights: Mapping[str, np.ndarray],
        threads: Optional[int] = None,
        redraw: bool = False,
    ) -> None:
        self._program, self._paths, self._threads, self._redraw = program, paths, threads, redraw
        self._arrays = weights  # owns the memory
        self._weights = {"weight:" + name: as_value(array) for name, array in weights.items()}
        self._sessions: Dict[int, Any] = {}
        self._declared: Dict[int, Dict[str, Declared]] = {}
        self._buffers, self._kind = Buffers(), ""
        self._load(program.step)
        self._lifetimes = {"step": _lifetimes(program.step), "predict": _lifetimes(program.predict)}
        self._trained = {tensor.name: tensor for tensor in program.trained}

    def step(self, batch: Mapping[str, np.ndarray], draw: Draw, on_gradient: OnGradient) -> float:
        """Run a training step; return the loss, the mean over all that counts in the batch.

        Args:
            batch: inputs by the names of transformers' arguments, targets included.
            on_gradient: called as soon as a gradient exists and no later graph takes its tensor, which it may change.

        Raises:
            MemoryError: when memory runs out.
            ValueError: when a graph fails, or a result has another shape than the program's.
        """
        loss: List[float] = []

        def take(name: str, value: Any) -> None:
            if name == "loss":
                loss.append(float(_view(value).reshape(-1)[0]))
                return
            tensor, array = self._trained[name[len("gradient:") :]], _view(value)
            if tensor.ids is not None:
                array = table_gradient(tensor, array, batch[tensor.ids[len("batch:") :]])
            if array.shape != tensor.shape:
                raise ValueError("the gradient of {} has the shape {}".format(shown(tensor.name), list(array.shape)))
            on_gradient(tensor.name, array)

        self._run("step", self._program.step, batch, draw, take)
        return loss[0]

    def predict(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the logits of a batch without targets: ``[rows, outputs]`` or ``[rows, length, outputs]``.

        Raises:
            MemoryError, ValueError: as ``step``.
        """
        self._load(self._program.predict)
        found: Dict[str, np.ndarray] = {}

        def take(name: str, value: Any) -> None:
            found[name] = _view(value).copy()

        self._run("predict", self._program.predict, batch, _no_masks, take)
        logits = [found[name] for name in self._program.results]
        return logits[0] if len(logits) == 1 else np.stack(logits, -1)

    def release(self) -> None:
        """Return the memory of the values to the system; a later step or prediction takes it again."""
        self._buffers.clear()

    def _load(self, calls: Sequence[Call]) -> None:
        for number in sorted({call.graph for call in calls} - set(self._sessions)):
            self._sessions[number] = load_session(self._paths[number], self._program.graphs[number], self._threads)
            self._declared[number] = {
                output.name: Declared(_NUMPY_TYPES.get(output.type, output.type), tuple(output.shape))
                for output in self._sessions[number].get_outputs()
            }
        for call in calls:
            _check_names(self._program.graphs[call.graph], self._sessions[call.graph], call)

    def _run(
        self, kind: str, calls: Sequence[Call], batch: Mapping[str, np.ndarray], draw: Draw,
        take: Callable[[str, Any], None],
    ) -> None:  # fmt: skip
        lifetimes = self._lifetimes[kind]
        rows, length = batch["input_ids"].shape
        if kind != self._kind:
            self._kind = kind
            self._buffers.clear()
        self._buffers.reserve(rows, length)
        values = {"batch:" + name: as_value(array) for name, array in batch.items()}
        sizes = {"rows": rows, "length": length}
        values.update(("size:" + name, as_value(np.array([size], np.int64))) for name, size in sizes.items())
        blocks: Dict[str, np.ndarray] = {}
        masks: Set[str] = set()
        for i, call in enumerate(calls):
            masks.update(self._draw(call, sizes, draw, values))
            feeds = {name: self._weights.get(value) or values[value] for name, value in call.inputs.items()}
            with vendor_errors(self._program.graphs[call.graph]):
                if call.rows:
                    self._in_portions(call, feeds, rows, length, values, blocks)
                else:
                    outputs = list(call.outputs)
                    results = self._sessions[call.graph].run_with_ort_values(outputs, feeds)
                    values.update((call.outputs[name], result) for name, result in zip(outputs, results))
                    del results
            feeds.clear()
            for name in lifetimes.ready[i]:
                take(name, values[name])
            for name in lifetimes.last[i] + lifetimes.ready[i]:
                values.pop(name, None)
                if name in blocks:
                    self._buffers.give(blocks.pop(name))
            for name in masks.intersection(call.inputs.values()) if self._redraw else ():
                values.pop(name, None)

    def _in_portions(
        self, call: Call, feeds: Mapping[str, Any], rows: int, length: int, values: Dict[str, Any],
        blocks: Dict[str, np.ndarray],
    ) -> None:  # fmt: skip
        """Run a call in portions of the rows, with its outputs in buffers."""
        session, declared = self._sessions[call.graph], self._declared[call.graph]
        at_once = portion_rows(rows, length, self._program.portion or rows * length)
        arrays: Dict[str, np.ndarray] = {}
        for name, value in call.outputs.items():
            arrays[name], blocks[value] = self._buffers.take(declared[name], declared[name].shape(rows, length))
            values[value] = as_value(arrays[name])
        parted = {name: _view(feeds[name]) for name in call.inputs if name in call.rows}
        for start in range(0, rows, at_once):
            stop = min(start + at_once, rows)
            binding = session.io_binding()
            for name, value in call.inputs.items():
                here = feeds[name]
                if name in parted:
                    here = as_value(_part(parted[name], start, stop, rows))
                elif value == "size:rows":
                    here = as_value(np.array([stop - start], np.int64))
                binding.bind_ortvalue_input(name, here)
            sums: Dict[str, Tuple[np.ndarray, np.ndarray]] = {}
            for name, array in arrays.items():
                if name in call.rows:
                    array = _part(array, start, stop, rows)
                elif start:
                    sums[name] = self._buffers.take(declared[name], array.shape)
                    array = sums[name][0]
                binding.bind_ortvalue_output(name, as_value(array))
            session.run_with_iobinding(binding)
            for name, (array, block) in sums.items():
                arrays[name] += array
                self._buffers.give(block)

    def _draw(self, call: Call, sizes: Mapping[str, int], draw: Draw, values: Dict[str, Any]) -> Iterator[str]:
        """Draw the masks of a call that do not exist; yield their names."""
        for name in call.inputs.values():
            if name.startswith("dropout:") and name not in values:
                number = int(name[len("dropout:") :])
                shape = tuple(sizes.get(count, count) for count in self._program.dropouts[number].shape)
                values[name] = as_value(draw(number, shape))
                yield name


def _no_masks(number: int, _shape: Tuple[int, ...]) -> np.ndarray:
    raise ValueError("a prediction takes the mask dropout:{}".format(number))


def _lifetimes(calls: Sequence[Call]) -> _Lifetimes:
    last: Dict[str, int] = {}
    results: Set[str] = set()
    for i, call in enumerate(calls):
        for value in call.inputs.values():
            last[value] = i
        for value in call.outputs.values():
            last[value] = i
            if not value.startswith("v"):
                results.add(value)
    freed: List[List[str]] = [[] for _ in calls]
    ready: List[List[str]] = [[] for _ in calls]
    for value, i in last.items():
        if not value.startswith("weight:") and value not in results:
            freed[i].append(value)
        elif value in results:
            ready[max(i, last.get(value.replace("gradient:", "weight:", 1), 0))].append(value)
    return _Lifetimes(tuple(map(tuple, freed)), tuple(map(tuple, ready)))


def table_gradient(table: Stored, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the gradient of a table from those of the rows that a batch used."""
    rows, flat = rows.reshape(-1, rows.shape[-1]), ids.reshape(-1)
    order = np.argsort(flat, kind="stable")
    used, first = np.unique(flat[order], return_index=True)
    gradient = np.zeros(table.shape, np.float32)
    gradient[used] = np.add.reduceat(rows[order], first, axis=0)
    if table.padding is not None:
        gradient[table.padding] = 0.0
    return gradient


def as_value(array: np.ndarray) -> Any:
    """Return an array as onnxruntime's value, over the same memory."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _view(value: Any) -> np.ndarray:
    """The elements of a value, valid as long as it is: older versions of onnxruntime would copy them."""
    kind, shape = str(value.data_type()), tuple(value.shape())
    if kind not in _NUMPY_TYPES:
        raise ValueError("a result is a {}".format(shown_text(kind)))
    dtype = np.dtype(_NUMPY_TYPES[kind])
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if not size:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_char * size).from_address(value.data_ptr())
    return np.frombuffer(memory, dtype).reshape(shape)


def _part(array: np.ndarray, start: int, stop: int, rows: int) -> np.ndarray:
    """A portion of an array whose first dimension consists of ``rows`` rows."""
    each = len(array) // rows
    return array[start * each : stop * each]


_SAME_AS_REQUESTED = 1
_arenas: List[Any] = []


def _share_arena() -> None:
    """Make one arena for the graphs of all sessions, which grows by what is asked for.

    Without an arena a step of DistilBERT held 1.3 to 1.45 times as much, for the C library's heap is fragmented; an
    arena for each session would hold the peak of each (docs/log.md).
    """
    if not _arenas:
        info = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg(0, _SAME_AS_REQUESTED, -1, -1))
        _arenas.append(info)


def load_session(path: str, name: str, threads: Optional[int]) -> Any:
    """Return the session of a graph's file, as a training step runs it.

    Args:
        name: of the graph, in errors.
        threads: None for onnxruntime's choice.

    Raises:
        MemoryError: when memory runs out.
        ValueError: for a graph that onnxruntime refuses, in one line.
    """
    _share_arena()
    with open(path, "rb") as file:
        graph = file.read()
    for word, what in _REFUSED.items():
        if word in graph:
            raise ValueError("{} has {}".format(shown_text(name), what))
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_env_allocators", "1")
    # frozen weights stay in their file
    options.add_session_config_entry("session.disable_prepacking", "1")
    # each session has threads of its own: those of twenty spinning ones made a step seven times as long
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with vendor_errors(name):
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _check_names(name: str, session: Any, call: Call) -> None:
    """Check that a graph takes what a call passes, and returns what is taken from it."""
    passed, known = set(call.inputs), {value.name for value in session.get_inputs()}
    other = sorted(passed ^ known) or sorted(set(call.outputs) - {value.name for value in session.get_outputs()})
    if other:
        raise ValueError("{} is another graph than the program calls: {}".format(shown_text(name), shown(other[0])))


@contextmanager
def vendor_errors(name: str) -> Iterator[None]:
    """Translate onnxruntime's errors, which have many types, into MemoryError and ValueError."""
    try:
        yield
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        if any(part in reason.lower() for part in _MEMORY):
            raise MemoryError(shown_text(reason, 160)) from error
        raise ValueError("{} fails: {}".format(shown_text(name), shown_text(reason, 160))) from error
