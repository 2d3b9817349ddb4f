"""Memory of a compiled step, from its graphs, their order, and the lifetimes of their values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, shape_inference
from torch import nn

from farsearch.far.layout import ModelLayout
from farsearch.graph.compiler import PROGRAM, WEIGHTS, Compiled, compile_training
from farsearch.models.heads import Head
from farsearch.runtime.program_file import Call, DropoutMask, Program, Stored, read_program

__all__ = ["Allocation", "CallMemory", "EngineMemory", "StepMemory", "held_bytes"]

_ARENA_SHARE = 0.3
"""Memory that onnxruntime's allocator holds beside the values that live, as a share of them (docs/log.md)."""

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity"})
"""Operators whose output is their input's memory."""
_IN_PLACE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Where", "Sqrt", "Reciprocal", "Neg", "Exp", "Tanh", "Relu", "Softmax", "Not", "Erf"}
)
"""Operators that write over an input of the same size that nothing takes afterwards."""


class Allocation(NamedTuple):
    """Memory that is allocated, or freed where ``bytes`` is negative; ``shape`` is the tensor's."""

    bytes: int
    shape: tuple[int, ...]

    def freed(self) -> Allocation:
        """Return the end of this allocation."""
        return Allocation(-self.bytes, self.shape)


class CallMemory(NamedTuple):
    """Memory of one call of a program.

    Attributes:
        inside: allocated and freed while its graph runs, masks and results included, in order; all of it is freed.
        outputs: results that live on, by the program's names.
        after: allocated and freed before a later call: what the runner makes of the results.
        last: values of this and of earlier calls that are freed after it.
    """

    inside: tuple[Allocation, ...]
    outputs: Mapping[str, Allocation]
    after: tuple[Allocation, ...]
    last: tuple[str, ...]


Bytes = TypeVar("Bytes", int, NDArray[np.float64])


@dataclass(frozen=True)
class StepMemory(Generic[Bytes]):
    """Bytes of a training step beside the process, or of many.

    Attributes:
        mapped: weights in their file, which the system reads as they are needed and may drop again.
        held: trained weights, the optimizer's state, and the sums of gradients of micro-batches.
        passing: peak of activations, gradients and masks.
    """

    mapped: Bytes
    held: Bytes
    passing: Bytes

    @property
    def allocated(self) -> Any:
        """``passing`` with what onnxruntime's allocator holds beside it."""
        return (1 + _ARENA_SHARE) * self.passing

    @property
    def resident(self) -> Any:
        """Everything, with all mapped weights in memory."""
        return self.mapped + self.held + self.allocated


def held_bytes(trained: Bytes, optimizer: str, parts: bool) -> Bytes:
    """Return ``StepMemory.held`` from the bytes of the trained weights."""
    return trained * ({"adamw": 3, "sgd": 1}[optimizer] + int(parts))


class EngineMemory:
    """Predicts the memory of a compiled engine's steps.

    Args:
        graphs: files of the program's graphs.
        mapped: bytes of all weights.
    """

    def __init__(self, program: Program, graphs: Sequence[bytes], mapped: int) -> None:
        self._program, self._graphs, self._mapped = program, graphs, mapped

    @classmethod
    def of(cls, compiled: Compiled) -> EngineMemory:
        """Return the memory of an engine that is not written."""
        mapped = sum(value.numel() * value.element_size() for value in compiled.tensors.values())
        return cls(read_program(json.loads(json.dumps(compiled.program))), compiled.graphs, mapped)

    @classmethod
    def of_training(cls, model: nn.Module, layout: ModelLayout, head: Head) -> EngineMemory:
        """Return the memory of a reconfigured model's training step, of which nothing else is compiled.

        Its ``mapped`` bytes are those of all parameters and buffers. The weights may be of the meta device.

        Raises:
            BadInput: as ``compile_step``.
        """
        entries, graphs = compile_training(model, layout, head)
        trained = (Stored(each["name"], each["shape"], ids=each.get("ids")) for each in entries["trained"])
        dropouts = (DropoutMask(tuple(each["shape"]), each["p"]) for each in entries["dropouts"])
        step = (Call(**each) for each in entries["step"])
        program = Program(graphs.opset, (), (), tuple(trained), (), tuple(dropouts), tuple(step), (), ())
        mapped = sum(value.numel() * value.element_size() for value in [*model.parameters(), *model.buffers()])
        return cls(program, graphs.models, mapped)

    def unused_bytes(self, model: nn.Module) -> int:
        """Return the bytes of the model's buffers that are neither saved nor taken by the step."""
        taken = {value for call in self._program.step for value in call.inputs.values()}
        saved = model.state_dict()
        buffers = {name: value for name, value in model.named_buffers() if name not in saved}
        return sum(
            value.numel() * value.element_size() for name, value in buffers.items() if f"weight:{name}" not in taken
        )

    @property
    def program(self) -> Program:
        """The program."""
        return self._program

    @classmethod
    def of_folder(cls, folder: Path) -> EngineMemory:
        """Return the memory of an engine in a folder."""
        program = read_program(json.loads((folder / PROGRAM).read_text(encoding="utf-8")))
        graphs = [(folder / name).read_bytes() for name in program.graphs]
        return cls(program, graphs, (folder / WEIGHTS).stat().st_size)

    def step(self, rows: int, length: int, *, optimizer: str = "adamw", parts: bool = False) -> StepMemory[int]:
        """Return the memory of a step of ``rows`` sequences of ``length`` tokens.

        Args:
            optimizer: ``adamw`` or ``sgd``.
            parts: the rows are part of a batch, whose gradients are added up.
        """
        trained = sum(4 * int(np.prod(tensor.shape, dtype=np.int64)) for tensor in self._program.trained)
        live: dict[str, int] = {}
        peak = 0
        for call in self.calls(rows, length):
            peak = max(peak, sum(live.values()) + _highest(call.inside))
            live.update((value, output.bytes) for value, output in call.outputs.items())
            peak = max(peak, sum(live.values()) + _highest(call.after))
            for value in call.last:
                del live[value]
        return StepMemory(self._mapped, held_bytes(trained, optimizer, parts), peak)

    def calls(self, rows: int, length: int) -> Iterator[CallMemory]:
        """Yield the memory of each call of a step of ``rows`` sequences of ``length`` tokens."""
        program, sizes = self._program, {"rows": rows, "length": length}
        last = {
            value: i for i, call in enumerate(program.step) for value in (*call.inputs.values(), *call.outputs.values())
        }
        live: set[str] = set()
        for i, call in enumerate(program.step):
            masks = [self._mask(value, sizes) for value in sorted(set(call.inputs.values())) if _is_mask(value)]
            results, inside = _graph_memory(self._graphs[call.graph], rows, length)
            outputs = {call.outputs[name]: result for name, result in results.items()}
            live.update(outputs)
            freed = tuple(value for value in sorted(live) if last[value] <= i)
            live.difference_update(freed)
            around = (*masks, *inside, *(mask.freed() for mask in masks))
            yield CallMemory(around, outputs, tuple(self._scattered(call)), freed)

    def _scattered(self, call: Call) -> Iterator[Allocation]:
        """The gradients of whole tables, which the runner makes from those of their rows."""
        tables = {f"gradient:{tensor.name}": tensor for tensor in self._program.trained if tensor.ids is not None}
        made = [_allocation(4, tables[value].shape) for value in call.outputs.values() if value in tables]
        yield from (*made, *(each.freed() for each in made))

    def _mask(self, value: str, sizes: Mapping[str, int]) -> Allocation:
        shape = self._program.dropouts[int(value.removeprefix("dropout:"))].shape
        return _allocation(1, [sizes.get(size, size) for size in shape])


def _is_mask(value: str) -> bool:
    return value.startswith("dropout:")


def _allocation(element: int, shape: Sequence[int]) -> Allocation:
    return Allocation(int(element * np.prod(shape, dtype=np.int64)), tuple(shape))


def _highest(allocations: Iterable[Allocation]) -> int:
    """The highest level of bytes over that before, at least 0."""
    return max(accumulate((each.bytes for each in allocations), initial=0))


@lru_cache(maxsize=4096)
def _graph_memory(graph: bytes, rows: int, length: int) -> tuple[Mapping[str, Allocation], tuple[Allocation, ...]]:
    """The results of a graph by its own names, and all that it allocates and frees."""
    model = shape_inference.infer_shapes(_with_sizes(onnx.load_from_string(graph), rows, length), data_prop=True)
    sizes = {info.name: _described(info) for info in (*model.graph.value_info, *model.graph.output)}
    results = {info.name for info in model.graph.output}
    owner = {name: name for name in sizes}
    uses = Counter(name for node in model.graph.node for name in node.input)
    live: Counter[str] = Counter()
    held: dict[str, Allocation] = {}
    log: list[Allocation] = []
    for node in model.graph.node:
        made = [name for name in node.output if name in sizes]
        taken = [owner[name] for name in node.input if name in owner]
        if node.op_type in _VIEWS and taken and made:
            owner[made[0]] = taken[0]
            live[taken[0]] += uses[made[0]] + (made[0] in results)
        else:
            reused = _reused(node, made, taken, sizes, live, results)
            for name in made:
                if reused is not None:
                    owner[name] = reused
                    live[reused] += uses[name]
                    reused = None
                    continue
                live[name] = uses[name] + (name in results)
                held[name] = sizes[name]
                log.append(sizes[name])
        for name in taken:
            live[name] -= 1
            if live[name] == 0:
                log.append(held.pop(name).freed())
    log += [each.freed() for each in held.values()]
    return {name: sizes[name] for name in results}, tuple(log)


def _reused(
    node: Any, made: list[str], taken: list[str], sizes: Mapping[str, Allocation], live: Mapping[str, int],
    results: set[str],
) -> str | None:  # fmt: skip
    """The operand whose memory the only output takes over."""
    if node.op_type not in _IN_PLACE or len(made) != 1 or made[0] in results:
        return None
    size = sizes[made[0]].bytes
    return next((name for name in taken if live[name] == taken.count(name) and sizes[name].bytes == size), None)


def _with_sizes(model: Any, rows: int, length: int) -> Any:
    """The graph with the sizes of one batch in place of names such as ``2*rows*length``."""
    for info in (*model.graph.input, *model.graph.output):
        for dimension in info.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_value = _evaluated(dimension.dim_param, rows, length)
    given = {"size:rows": rows, "size:length": length}
    for info in list(model.graph.input):
        if info.name in given:
            model.graph.input.remove(info)
            value = helper.make_tensor(info.name, onnx.TensorProto.INT64, [1], [given[info.name]])
            model.graph.initializer.append(value)
    for node in model.graph.node:
        if node.domain:
            _use_standard(node)
    return model


def _use_standard(node: Any) -> None:
    """Replace a vendor's operator, whose shapes onnx does not infer, by a standard one with the same."""
    swapped = {attribute.name for attribute in node.attribute if attribute.i}
    node.domain = ""
    del node.attribute[:]
    if node.op_type == "FusedMatMul":
        left, right = ("ki" if "transA" in swapped else "ik"), ("jk" if "transB" in swapped else "kj")
        node.op_type = "Einsum"
        node.attribute.append(helper.make_attribute("equation", f"...{left},...{right}->...ij"))
    else:
        assert node.op_type == "Gelu", node.op_type
        node.op_type = "Sigmoid"


def _evaluated(text: str, rows: int, length: int) -> int:
    """The value of a name as ``program`` gives them: factors, then an offset."""
    product, _, offset = text.replace("-", "+-").partition("+")
    size = 1
    for factor in product.split("*"):
        size *= {"rows": rows, "length": length}.get(factor) or int(factor)
    return size + int(offset or 0)


def _described(info: Any) -> Allocation:
    tensor = info.type.tensor_type
    element = helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    return _allocation(element, list(_dimensions(tensor)))


def _dimensions(tensor: Any) -> Iterator[int]:
    for dimension in tensor.shape.dim:
        if not dimension.HasField("dim_value"):
            raise ValueError("a size of a graph is not known")
        yield dimension.dim_value
