"""Trace of one training step on meta tensors: every allocation, every operation, nothing computed.

Tensors on the device ``meta`` have a shape and no memory; torch's own dispatch runs them. A ``TorchDispatchMode``
follows the storages that live and the operations that run. The sum of live storages is what the CPU allocator would
hold, byte for byte (docs/cost_model.md has the comparison with the profiler).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from farsearch.cost.operations import VIEWS, Operation, describe, tensors_in
from farsearch.cost.shapes import run_on_meta
from farsearch.cost.software import Software, emulated
from farsearch.far.features import Batch
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.loop import train_step
from farsearch.far.optimizer import BackwardOptimizer

__all__ = [
    "Event",
    "Segment",
    "meta_tensors",
    "second_step",
    "trace_call",
    "trace_step",
]


@dataclass
class Event:
    """A storage comes to life (``size`` > 0) or goes (< 0), in bytes.

    ``kind``: ``gradient`` of a parameter, ``saved`` for a later segment (for the backward pass, or for the next
    layer), ``mask`` of a dropout that is saved, else ``temporary``. ``added`` (< 0) marks where a gradient is complete:
    only where it is added to one that lives already, a micro-batch's, does it go there.
    """

    size: int
    kind: str = "temporary"


@dataclass
class Segment:
    """The part of a step between two marks."""

    events: list[Event] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


class _Recorder(TorchDispatchMode):
    """Follows storages and operations, and files them under the segment that is open."""

    def __init__(self, known: Iterator[Tensor], layers: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self._last = layers - 1
        self._unshared = _unshared()
        self.segments: dict[str, Segment] = {}
        self._name = "start"
        self._open: Segment = self.mark("start")
        self._births: dict[int, Event] = {}
        self._closed = False
        self._masks: set[int] = set()
        self._late: list[Event] = []
        self.stepping = False
        self.returning = False
        self.lowest_input = 0
        self._old = {tensor.untyped_storage()._cdata for tensor in known}

    def mark(self, name: str) -> Segment:
        """Open the segment ``name``. What checkpointing runs again belongs to the backward pass that asks for it."""
        if _is_backward(self._name) and not _is_backward(name):
            return self._open
        self._name = name
        self._open = self.segments.setdefault(name, Segment())
        return self._open

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            # asked only whether no row is padded, in which case there would be no mask
            return False
        if self._works_in_place(func, args):
            func = _IN_PLACE[func]
        # torch has no kernel of it for meta tensors; it would write in place, and make nothing
        out = None if func is torch.ops.aten._fused_sgd_.default else run_on_meta(func, args, kwargs or {})
        name = func.overloadpacket.__name__
        if name.startswith(("_fused", "_foreach")) and name.endswith("_"):
            # they give nothing back; the one writes every list but the gradients, the second, the other its first
            lists = [arg for arg in args if isinstance(arg, list | tuple)]
            written = [lists[0], *lists[2:]] if name.startswith("_fused") else lists[:1]
            self._record(name, args, tensors_in(lists), tensors_in(written))
        if not isinstance(out, Tensor | tuple | list):
            return out
        outputs = tensors_in(out)
        for tensor in outputs:
            self._follow(tensor, name == "bernoulli_")
        if outputs and name not in VIEWS:
            inputs = tensors_in((args, {key: value for key, value in (kwargs or {}).items() if key != "out"}))
            self._record(name, args, inputs, outputs)
        return out

    def _works_in_place(self, func: Any, args: Any) -> bool:
        """Autograd would write the result into its first argument, as it does where no mode looks on.

        It does so with what it alone holds, and which fills its storage: the sum of gradients (``accumulate`` in
        torch's input_buffer.cpp), and tensors that it has just made (``areAnyTensorSubclassLike`` in
        FunctionsManual.cpp). Under a mode, and on ``meta``, it always makes another tensor.
        """
        by_autograd = torch._C._current_autograd_node() is not None and not self.stepping
        if func not in _IN_PLACE or torch.is_grad_enabled() or not by_autograd:
            return False
        return _references(args[0]) == self._unshared and _is_dense(args[0])

    def _record(self, name: str, args: Any, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self._open.operations.append(describe(name, args, inputs, outputs, self.stepping))

    def _follow(self, tensor: Tensor, mask: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if mask:
            self._masks.add(key)
        if key in self._births or key in self._old:
            return
        size = storage.nbytes()
        event = Event(size)
        self._births[key] = event
        self._open.events.append(event)
        # which layer is the last to hold the attention mask depends on all layers below: it counts until the end
        shared = self._name == "start" and not tensor.is_floating_point()
        weakref.finalize(storage, self._gone, key, self._name, shared)

    def _gone(self, key: int, born: str, shared: bool) -> None:
        if self._closed:
            return
        event = self._births.pop(key)
        end = Event(-event.size)
        # what was made for all layers goes with the lowest that is trained, wherever that stands
        between = born == "start" and self._name[9:].isdigit() and int(self._name[9:]) > 0
        late = _is_backward(self._name) and (shared or between)
        # what a layer's node of the graph holds by itself, as the state of dropout's generator, goes with the whole
        # graph: in the segment of the lowest layer, for all layers, when nothing is counted any more
        if not _outlives(born, self._name):
            (self._late if late else self._where(key, born)).append(end)
        kind = "mask" if key in self._masks else "saved"
        self._masks.discard(key)
        # a layer's output counts as saved whether the next one keeps it or not: only so a layer's record does not
        # depend on what stands above it
        if not _is_backward(born) and self._name != born:
            event.kind = end.kind = kind

    def _where(self, key: int, born: str) -> list[Event]:
        """The events among which the end of a storage belongs.

        A layer's input that goes behind the layers is of that layer: by itself in ``release i``, where all layers'
        outputs live until then, or, for the last layer, in its forward pass, as the others' inputs are. The lowest
        layer's may go with the head: no other layer stands in its place.
        """
        lowest = born == "start" and key == self.lowest_input
        layer = 0 if lowest else int(born[8:]) + 1 if born.startswith("forward") else None
        if self._name != "head" or layer is None or layer > self._last:
            return self._open.events
        if self.returning and layer == self._last:
            return self.segments[f"forward {layer}"].events
        return self._open.events if lowest else self.segments.setdefault(f"release {layer}", Segment()).events

    def complete(self, parameter: Tensor) -> None:
        """The gradient of a parameter is all there."""
        if parameter.grad is not None:
            event = self._births[parameter.grad.untyped_storage()._cdata]
            self._open.events.append(Event(-event.size, "added"))

    def close(self, model: nn.Module) -> None:
        """End the record: what goes from now on is no part of it. Storages that gradients still hold are named so."""
        self._closed = True
        if self._late:
            self.segments.setdefault("backward embeddings", Segment()).events.extend(self._late)
        for parameter in model.parameters():
            if parameter.grad is not None:
                event = self._births.get(parameter.grad.untyped_storage()._cdata)
                if event is not None:
                    event.kind = "gradient"


_ATEN = torch.ops.aten
_IN_PLACE: Mapping[Any, Any] = {
    _ATEN.add.Tensor: _ATEN.add_.Tensor,
    _ATEN.scatter_add.default: _ATEN.scatter_add_.default,
    _ATEN.index_add.default: _ATEN.index_add_.default,
    _ATEN.index_put.default: _ATEN.index_put_.default,
    _ATEN.scatter.value: _ATEN.scatter_.value,
    _ATEN.scatter.src: _ATEN.scatter_.src,
}
"""What autograd calls under a mode, and what otherwise."""


def _references(x: Tensor) -> tuple[int, int]:
    """How often a tensor and its storage are held."""
    return x._use_count(), torch._C._storage_Use_Count(x.untyped_storage()._cdata)  # type: ignore[attr-defined]


def _is_dense(x: Tensor) -> bool:
    """No two elements are at one place, and none is left out between them."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True


@cache
def _unshared() -> tuple[int, int]:
    """The references of a gradient that autograd's buffer alone holds, as a mode sees them when another is added."""
    seen: list[tuple[int, int]] = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.add.Tensor and not torch.is_grad_enabled():
                seen.append(_references(args[0]))
            return func(*args, **(kwargs or {}))

    with torch.enable_grad(), Counting():  # type: ignore[no-untyped-call]  # of torch
        x = torch.zeros(2, device=meta_tensors(), requires_grad=True)
        torch.dot(x.sin(), x.cos()).backward()
    (counts,) = seen
    return counts


def _is_backward(name: str) -> bool:
    return name.startswith("backward")


def _outlives(born: str, name: str) -> bool:
    """What a layer's forward pass has made goes in a segment after that layer's backward pass."""
    if not (born.startswith("forward") and _is_backward(name)):
        return False
    return name == "backward embeddings" or (name[9:].isdigit() and int(name[9:]) < int(born[8:]))


@contextmanager
def _marks(model: nn.Module, layout: ModelLayout, recorder: _Recorder) -> Iterator[None]:
    """Let the recorder's segments change at the borders of the layers, forwards and backwards."""
    # the module that calls the layers: only when it has returned is the last one's input gone, as the others' are
    # before the next begins
    stack = get_module(model, layout.layers[-1].path.rsplit(".", 2)[0])
    handles = [
        stack.register_forward_hook(lambda *_: setattr(recorder, "returning", False)),
        model.register_forward_hook(lambda *_: recorder.mark("backward head") and None),
        *(p.register_post_accumulate_grad_hook(recorder.complete) for p in model.parameters() if p.requires_grad),
    ]

    def enter(i: int) -> Callable[..., None]:
        def hook(_module: Any, inputs: tuple[Any, ...], *_rest: Any) -> None:
            recorder.mark(f"forward {i}")
            if i == 0:
                recorder.lowest_input = inputs[0].untyped_storage()._cdata
                watch(inputs[0], "backward embeddings")

        return hook

    def leave(i: int) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            watch(output if isinstance(output, Tensor) else output[0], f"backward {i}")
            if i == len(layout.layers) - 1:
                recorder.mark("head")
                recorder.returning = True

        return hook

    def watch(hidden: Tensor, name: str) -> None:
        if hidden.requires_grad:
            hidden.register_hook(lambda _grad: recorder.mark(name) and None)

    for i, layer in enumerate(layout.layers):
        module = get_module(model, layer.path)
        handles += [module.register_forward_pre_hook(enter(i)), module.register_forward_hook(leave(i))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace_step(
    model: nn.Module,
    layout: ModelLayout,
    batch: Batch,
    software: Software,
    optimizer: BackwardOptimizer | None = None,
) -> Mapping[str, Segment]:
    """Forward and backward pass of one training step, by segment.

    Args:
        model: of ``meta_tensors`` and ``build_ordinary``, reconfigured and frozen as it is to be traced.
        batch: of the model's head. software: of the device.
        optimizer: one that steps in the backward pass, with its state. None for a step that leaves the optimizer
            to ``trace_call``.

    Returns:
        Segments ``start`` (embeddings), ``forward i``, ``release i`` (what of layer i goes when all layers are done),
        ``head`` (head and loss), ``backward head``, ``backward i`` and ``backward embeddings``. Those that do not occur
        are absent. Gradients stay alive at the end; storages of the model's own parameters and buffers are in none.
    """
    model.train()
    batch = Batch({name: value.to(meta_tensors()) for name, value in batch.inputs.items()}, batch.weights)
    state = [] if optimizer is None else tensors_in([list(entry.values()) for entry in optimizer.state.values()])
    known = [*model.parameters(), *model.buffers(), *batch.inputs.values(), *state]
    recorder = _Recorder(iter(known), len(layout.layers))
    # an optimizer of nothing: what one at the end holds and moves is known from trace_call of one tensor
    idle = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    with _marks(model, layout, recorder), _optimizer_marks(recorder), emulated(software), recorder:
        train_step(model, optimizer or idle, batch)
    recorder.close(model)
    return recorder.segments


@contextmanager
def _optimizer_marks(recorder: _Recorder) -> Iterator[None]:
    """Let the recorder know which operations are an optimizer's."""

    def mark(stepping: bool) -> Callable[..., None]:
        return lambda *_: setattr(recorder, "stepping", stepping)

    handles = [register_optimizer_step_pre_hook(mark(True)), register_optimizer_step_post_hook(mark(False))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def second_step(optimizer: torch.optim.Optimizer, kernel: str) -> torch.optim.Optimizer:
    """Let an optimizer of meta tensors do its first step, which makes its state, and be ready for the second.

    Args:
        optimizer: made for the kernel ``loop``: torch makes no state for the fused kernel of tensors without memory,
            though the kernel itself knows them. All kernels have the same state.
        kernel: of the second step.
    """
    optimizer.step()
    for group in optimizer.param_groups:
        group.update(foreach=kernel == "foreach", fused=kernel == "fused")
    # of the fused kernel torch asks before its first step whether the tensors are of a device that has it
    optimizer._need_device_dtype_check_for_fused = False  # type: ignore[attr-defined]
    return optimizer


def trace_call(call: Callable[[], object], known: list[Tensor]) -> Segment:
    """Events and operations of any call on meta tensors; ``known`` live before it."""
    recorder = _Recorder(iter(known))
    with recorder:
        call()
    return recorder.segments["start"]


def meta_tensors() -> torch.device:
    """The context in which models that are traced are built."""
    return torch.device("meta")
