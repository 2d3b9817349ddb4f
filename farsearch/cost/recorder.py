"""The record of a traced training step: storages that are allocated and freed, and operations, by segment."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from farsearch.cost.operations import VIEWS, Operation, describe, tensors_in
from farsearch.cost.shapes import Key, key_of, run_known

__all__ = ["Event", "Phase", "Recorder", "Segment", "SegmentKey", "StepLog", "Storages", "step_order"]


Phase = Literal["start", "forward", "release", "head", "backward head", "backward", "backward embeddings"]


class SegmentKey(NamedTuple):
    """A segment of a training step; ``layer`` is None for a segment outside of the layers.

    ``start`` is the embeddings, ``head`` the head and the loss. ``release`` has the storages of a layer that are
    freed when the forward pass of all layers is done.
    """

    phase: Phase
    layer: int | None = None

    @property
    def is_backward(self) -> bool:
        """Whether the segment is part of the backward pass."""
        return self.phase in ("backward head", "backward", "backward embeddings")

    def is_behind(self, layer: int) -> bool:
        """Whether the backward pass has gone through ``layer`` when it is in this segment."""
        return self.phase == "backward embeddings" or (
            self.phase == "backward" and self.layer is not None and self.layer < layer
        )


START = SegmentKey("start")


def step_order(layers: int) -> list[SegmentKey]:
    """Return all segments of a step of a model, in the order in which they are executed."""
    forward = [SegmentKey("forward", i) for i in range(layers)]
    release = [SegmentKey("release", i) for i in range(layers)]
    backward = [SegmentKey("backward", i) for i in reversed(range(layers))]
    head = [SegmentKey("head"), SegmentKey("backward head")]
    return [START, *forward, *release, *head, *backward, SegmentKey("backward embeddings")]


@dataclass
class Event:
    """A storage is allocated (``size`` > 0) or freed (< 0), in bytes.

    ``kind``: ``gradient`` of a parameter, ``saved`` for a later segment (for the backward pass, or for the next
    layer), ``mask`` of a dropout that is saved, else ``temporary``. ``added`` (< 0) marks where a gradient is complete:
    it is freed there only if it is added to an existing gradient, that of an earlier micro-batch.
    """

    size: int
    kind: str = "temporary"


@dataclass
class Segment:
    """The events and operations of one segment, in their order."""

    events: list[Event] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)


class StepLog:
    """The segments recorded so far, and the one that is open.

    Attributes:
        segments: by key; those that do not occur are absent.
        key: of the open segment.
    """

    def __init__(self) -> None:
        self.segments: dict[SegmentKey, Segment] = {}
        self.key = START
        self.open = self.at(START)

    def at(self, key: SegmentKey) -> Segment:
        """Return the segment of ``key``, which may be new."""
        return self.segments.setdefault(key, Segment())

    def enter(self, key: SegmentKey) -> None:
        """Open a segment. A forward pass that checkpointing repeats stays in the backward segment that needs it."""
        if self.key.is_backward and not key.is_backward:
            return
        self.key, self.open = key, self.at(key)


class Storages:
    """Follows the lifetimes of storages, and logs their events.

    Args:
        known: tensors that exist before the step; their storages are not logged.
        layers: of the model.

    Attributes:
        lowest_input: key of the storage of the lowest layer's input.
        returning: the last layer is done, and the module that calls the layers is not.
    """

    def __init__(self, log: StepLog, known: Iterable[Tensor], layers: int = 0) -> None:
        self.lowest_input = 0
        self.returning = False
        self._log, self._last_layer = log, layers - 1
        self._known = {_key(tensor) for tensor in known}
        self._allocated: dict[int, Event] = {}
        self._lives: dict[int, object] = {}
        self._masks: set[int] = set()
        self._late: list[Event] = []
        self._closed = False

    def follow(self, tensor: Tensor, is_mask: bool) -> None:
        """Log the storage of a result, unless it is known."""
        storage = tensor.untyped_storage()
        key: int = storage._cdata
        if is_mask:
            self._masks.add(key)
        if key in self._allocated or key in self._known:
            return
        event = Event(storage.nbytes())
        log = self._log
        log.open.events.append(event)
        # which layer is the last to hold the attention mask depends on all layers below: it counts until the end
        is_shared = log.key == START and not tensor.is_floating_point()
        self._allocated[key] = event
        self._lives[key] = weakref.ref(storage, partial(self._free, key, log.key, is_shared))

    def _free(self, key: int, born: SegmentKey, is_shared: bool, _storage: object) -> None:
        if self._closed:
            return
        del self._lives[key]
        now = self._log.key
        event = self._allocated.pop(key)
        end = Event(-event.size)
        # a tensor that all layers use is freed with the lowest trained layer, whichever that is
        in_upper_layer = born == START and now.phase == "backward" and now.layer != 0
        is_late = now.is_backward and (is_shared or in_upper_layer)
        # the data of a layer's node of the graph itself, such as the state of dropout's generator, are freed with the
        # whole graph: in the segment of the lowest layer, for all layers, when counting has ended
        if not (born.phase == "forward" and born.layer is not None and now.is_behind(born.layer)):
            (self._late if is_late else self._events_of_end(key, born)).append(end)
        kind = "mask" if key in self._masks else "saved"
        self._masks.discard(key)
        # a layer's output counts as saved whether or not the next layer saves it, so that a layer's record does not
        # depend on the layer above
        if not born.is_backward and now != born:
            event.kind = end.kind = kind

    def _events_of_end(self, key: int, born: SegmentKey) -> list[Event]:
        """Return the events to which the end of a storage belongs.

        A layer's input that is freed behind the layers is that layer's: in ``release`` where all layers' outputs live
        until then, or, for the last layer, in its forward pass, as the other layers' inputs are. The lowest layer's may
        be freed in the head, because no other layer substitutes for it.
        """
        now = self._log.open.events
        is_lowest = born == START and key == self.lowest_input
        layer = 0 if is_lowest else born.layer + 1 if born.phase == "forward" and born.layer is not None else None
        if self._log.key.phase != "head" or layer is None or layer > self._last_layer:
            return now
        if self.returning and layer == self._last_layer:
            return self._log.at(SegmentKey("forward", layer)).events
        return now if is_lowest else self._log.at(SegmentKey("release", layer)).events

    def complete(self, parameter: Tensor) -> None:
        """Log that the gradient of a parameter is complete."""
        if parameter.grad is not None:
            self._log.open.events.append(Event(-self._allocated[_key(parameter.grad)].size, "added"))

    def close(self, model: nn.Module) -> None:
        """End the log, and mark the storages that are still held as gradients."""
        self._closed = True
        if self._late:
            self._log.at(SegmentKey("backward embeddings")).events.extend(self._late)
        for parameter in model.parameters():
            event = None if parameter.grad is None else self._allocated.get(_key(parameter.grad))
            if event is not None:
                event.kind = "gradient"


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


class Recorder(TorchDispatchMode):
    """Runs operations on meta tensors, and logs them and the storages of their results.

    Attributes:
        stepping: the operations are an optimizer's.
    """

    def __init__(self, log: StepLog, storages: Storages) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.stepping = False
        self._log, self._storages = log, storages
        self._unshared = _unshared()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Leave out torch's guard against compilation around every operation: a trace is never compiled."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = _known(func)
        kwargs = kwargs or {}
        if known.reads_a_number and args[0].is_meta:
            # read only to check that no row is padded, in which case there would be no mask
            return False
        if known.in_place is not None and self._works_in_place(args):
            func, known = known.in_place, _known(known.in_place)
        name = known.name
        key, tensors = key_of(func, args, kwargs)
        # torch has no kernel of it for meta tensors; it would write in place, and allocate nothing
        out = None if known.has_no_kernel else run_known(key, tensors, func, args, kwargs)
        if known.writes_lists:
            # they return nothing; a fused one writes every list but the gradients, the second, a foreach one its first
            lists = [arg for arg in args if isinstance(arg, list | tuple)]
            written = [lists[0], *lists[2:]] if name.startswith("_fused") else lists[:1]
            self._log.open.operations.append(
                describe(name, args, tensors_in(lists), tensors_in(written), self.stepping)
            )
        if not isinstance(out, Tensor | tuple | list):
            return out
        outputs = [out] if isinstance(out, Tensor) else tensors_in(out)
        for tensor in outputs:
            self._storages.follow(tensor, name == "bernoulli_")
        if outputs and not known.is_a_view:
            self._log.open.operations.append(self._operation(key, name, args, kwargs, outputs))
        return out

    def _operation(
        self, key: Key | None, name: str, args: Any, kwargs: Mapping[str, Any], outputs: list[Tensor]
    ) -> Operation:
        """Return the operation of a call, which equal calls share."""
        operation = None if key is None else _OPERATIONS.get((self.stepping, key))
        if operation is None:
            inputs = tensors_in((args, {key: value for key, value in kwargs.items() if key != "out"}))
            operation = describe(name, args, inputs, outputs, self.stepping)
            if key is not None:
                _OPERATIONS[self.stepping, key] = operation
        return operation

    def _works_in_place(self, args: Any) -> bool:
        """Return whether autograd would write the result into the first argument if no mode were active.

        It does so with a tensor that it alone holds, and which fills its storage: the sum of gradients (``accumulate``
        in torch's input_buffer.cpp), and tensors that it has just made (``areAnyTensorSubclassLike`` in
        FunctionsManual.cpp). Under a mode, and on ``meta``, it always makes another tensor.
        """
        if self.stepping or torch.is_grad_enabled() or torch._C._current_autograd_node() is None:
            return False
        return _references(args[0]) == self._unshared and _is_dense(args[0])


_OPERATIONS: dict[tuple[bool, Key], Operation] = {}
"""By whether an optimizer steps, and the call."""
_ATEN = torch.ops.aten
_IN_PLACE: Mapping[Any, Any] = {
    _ATEN.add.Tensor: _ATEN.add_.Tensor,
    _ATEN.scatter_add.default: _ATEN.scatter_add_.default,
    _ATEN.index_add.default: _ATEN.index_add_.default,
    _ATEN.index_put.default: _ATEN.index_put_.default,
    _ATEN.scatter.value: _ATEN.scatter_.value,
    _ATEN.scatter.src: _ATEN.scatter_.src,
}
"""Operations that autograd calls under a mode, and those that it calls otherwise."""


class _Known(NamedTuple):
    """What the recorder has to know of a function of torch's dispatcher, which is kept so that its id stays its own."""

    function: Any
    name: str
    in_place: Any
    is_a_view: bool
    writes_lists: bool
    reads_a_number: bool
    has_no_kernel: bool


_KNOWN: dict[int, _Known] = {}
"""By id, because a function's own hash takes long."""


def _known(function: Any) -> _Known:
    known = _KNOWN.get(id(function))
    if known is None:
        name = function.overloadpacket.__name__
        known = _KNOWN[id(function)] = _Known(
            function=function,
            name=name,
            in_place=_IN_PLACE.get(function),
            is_a_view=name in VIEWS,
            writes_lists=name.startswith(("_fused", "_foreach")) and name.endswith("_"),
            reads_a_number=function is _ATEN._local_scalar_dense.default,
            has_no_kernel=function is _ATEN._fused_sgd_.default,
        )
    return known


def _references(x: Tensor) -> tuple[int, int]:
    """Return the reference counts of a tensor and of its storage."""
    return x._use_count(), torch._C._storage_Use_Count(x.untyped_storage()._cdata)  # type: ignore[attr-defined]


def _is_dense(x: Tensor) -> bool:
    """Return whether the elements neither overlap nor leave gaps."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True


@cache
def _unshared() -> tuple[int, int]:
    """Return the reference counts, seen by a mode, of a gradient held by autograd alone when another is added to it."""
    seen: list[tuple[int, int]] = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.add.Tensor and not torch.is_grad_enabled():
                seen.append(_references(args[0]))
            return func(*args, **(kwargs or {}))

    with torch.enable_grad(), Counting():  # type: ignore[no-untyped-call]  # of torch
        x = torch.zeros(2, device="meta", requires_grad=True)
        torch.dot(x.sin(), x.cos()).backward()
    (counts,) = seen
    return counts
