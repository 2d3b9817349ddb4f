"""Trace a step of a model as a list of functional operations: no mutation, no view that is written to.

The step is the one that torch trains with: what far/ saves and recomputes shows in the trace, since its autograd
functions are called while it is made. A step is traced with two batches of different sizes; a size that differs between
them is an expression of the rows and the length.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from farsearch.errors import BadInput
from farsearch.far.dropout import masks_from
from farsearch.far.features import Batch
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.loss import PLAIN, LossForm, mean_loss
from farsearch.graph.operation import Operation, extent_of
from farsearch.models.heads import Head

__all__ = ["Trace", "trace_function", "trace_prediction", "trace_step"]

_BATCHES = ((3, 11), (5, 23))
"""Rows and length of the two traced batches: primes, so that products of them are told apart."""


@torch.library.custom_op("farsearch::boundary", mutates_args=())
def _boundary(x: Tensor) -> Tensor:
    return x.clone()


_boundary.register_fake(torch.empty_like)
_boundary.register_autograd(lambda _ctx, g: _boundary(g))


@torch.library.custom_op("farsearch::dropped", mutates_args=())
def _dropped(x: Tensor, p: float, number: int) -> Tensor:
    raise NotImplementedError("the mask is an input of the graph")


@_dropped.register_fake
def _(x: Tensor, p: float, number: int) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.bool)


@dataclass(frozen=True)
class Trace:
    """A step, or a prediction, as operations.

    Attributes:
        operations: in the order in which torch executes them.
        outputs: what the runner is given, by name.
        tables: of the outputs those gradients of tables that are left as gradients of rows, by the tables' names: the
            ids of the rows, and the id without a gradient, below 0 for none.
    """

    operations: list[Operation]
    outputs: dict[str, Operation]
    tables: Mapping[str, tuple[Operation, int]] = field(default_factory=dict)


class _Masks:
    """Dropout masks as operations of the trace, numbered in the order of the forward pass."""

    def __init__(self) -> None:
        self._next = 0

    def state(self) -> int:
        return self._next

    def restore(self, state: int) -> None:
        self._next = state

    def mask(self, x: Tensor, p: float) -> Tensor:
        self._next += 1
        return cast("Tensor", _dropped(x, p, self._next - 1))


def trace_step(model: nn.Module, layout: ModelLayout, head: Head, form: LossForm = PLAIN) -> Trace:
    """Trace the mean loss of a batch and the gradients of all parameters that require one.

    Args:
        model: reconfigured and frozen.
        form: of the loss. Weights of the classes are an input ``class_weights``.

    Raises:
        BadInput: for a model whose operations depend on the sizes of a batch in other ways than by their shapes.
    """
    trained = [name for name, value in model.named_parameters() if value.requires_grad]

    def step(state: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inputs = dict(batch)
        weights = inputs.pop("class_weights", None)
        loss = mean_loss(
            lambda **arguments: functional_call(model, dict(state), kwargs=arguments),
            Batch(_arguments(model, inputs), (), weights, form.smoothing),
        )
        gradients = torch.autograd.grad(loss, [state[name] for name in trained])
        return {"loss": loss, **{f"gradient:{name}": each for name, each in zip(trained, gradients, strict=True)}}

    with _prepared(model, layout, training=True):
        return _trace(step, model, head, targets=True, weighted=form.weighted)


def trace_prediction(model: nn.Module, layout: ModelLayout, head: Head) -> Trace:
    """Trace the outputs of a batch without targets and without dropout.

    Raises:
        BadInput: as ``trace_step``.
    """

    def predict(state: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            output = functional_call(model, dict(state), kwargs=_arguments(model, batch))
        names = ("start_logits", "end_logits") if hasattr(output, "start_logits") else ("logits",)
        return {name: output[name] for name in names}

    with _prepared(model, layout, training=False):
        return _trace(predict, model, head, targets=False)


@contextmanager
def _prepared(model: nn.Module, layout: ModelLayout, training: bool) -> Iterator[None]:
    """The model in a mode, with boundaries and plain products, and as it was afterwards."""
    mode = model.training
    model.train(training)
    try:
        with _boundaries(model, layout), _eager(model):
            yield
    finally:
        model.train(mode)


@contextmanager
def _boundaries(model: nn.Module, layout: ModelLayout) -> Iterator[None]:
    """Mark where the graph may be cut: after embeddings, attentions and layers, before feed-forward blocks."""

    def after(_module: nn.Module, _args: Any, output: Any) -> Any:
        return (_boundary(output[0]), *output[1:]) if isinstance(output, tuple) else _boundary(output)

    def before(_module: nn.Module, args: Any) -> Any:
        return (_boundary(args[0]), *args[1:])

    with ExitStack() as hooks:
        outputs = [layout.embeddings, *(layer.path for layer in layout.layers)]
        outputs += [layer.self_attention.path for layer in layout.layers if layer.self_attention is not None]
        for path in outputs:
            hooks.enter_context(_hook(get_module(model, path).register_forward_hook(after)))
        for block in layout.blocks:
            hooks.enter_context(_hook(get_module(model, block.split).register_forward_pre_hook(before)))
        yield


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Attention as plain products, where it is transformers' own."""
    before = model.config._attn_implementation
    model.config._attn_implementation = "eager"
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextmanager
def _hook(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _arguments(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """The batch in the form in which a model takes the mask: a mask of one value per token breaks most traces."""
    mask, config = batch["attention_mask"], cast("Any", model.config)
    if config.model_type == "deberta-v2":
        return {**batch, "attention_mask": mask[:, 0, 0].eq(0).long()}
    if config.model_type == "modernbert":
        place = torch.arange(mask.shape[-1])
        far = (place[:, None] - place[None]).abs() > config.sliding_window
        near = mask.masked_fill(far[None, None], torch.finfo(mask.dtype).min)
        return {**batch, "attention_mask": {"full_attention": mask, "sliding_attention": near}}
    return dict(batch)


def _batch(head: Head, rows: int, length: int, targets: bool, weighted: bool) -> dict[str, Tensor]:
    """Inputs of the model; the mask is added to the scores, so that the model makes none from the tokens."""
    inputs = dict(head.batch(rows, length).inputs)
    if not targets:
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}
    inputs["attention_mask"] = torch.zeros(rows, 1, 1, length)
    return {**inputs, "class_weights": torch.ones(head.outputs)} if weighted else inputs


def _trace(
    function: Callable[..., dict[str, Tensor]], model: nn.Module, head: Head, targets: bool, weighted: bool = False
) -> Trace:
    graphs = [_graph(function, model, _batch(head, *sizes, targets, weighted)) for sizes in _BATCHES]
    names: list[str] = graphs[0][1]
    try:
        return _joined(graphs[0][0], graphs[1][0], names, graphs[0][2])
    except ValueError as error:
        raise BadInput(
            f"{type(model).__name__} can't be compiled for all lengths: {error}; use `engine` torch"
        ) from error


def _graph(
    function: Callable[..., dict[str, Tensor]], model: nn.Module, batch: Mapping[str, Tensor]
) -> tuple[fx.GraphModule, list[str], list[str]]:
    """The functional graph of one batch, the names of its placeholders, and those of its outputs."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = [fake.from_tensor(value.detach()).requires_grad_(value.requires_grad) for value in state.values()]
    inputs = [fake.from_tensor(value) for value in batch.values()]
    outputs: list[str] = []

    def flat(values: list[Tensor], rows: list[Tensor]) -> list[Tensor]:
        found = function(dict(zip(state, values, strict=True)), dict(zip(batch, rows, strict=True)))
        outputs[:] = list(found)
        return list(found.values())

    with fake, enable_python_dispatcher(), masks_from(_Masks()):
        traced = make_fx(flat)(tensors, inputs)
        with torch.no_grad():
            graph = make_fx(functionalize(traced, remove="mutations_and_views"))(tensors, inputs)
    graph.graph.eliminate_dead_code()
    return graph, [*(f"weight:{name}" for name in state), *(f"batch:{name}" for name in batch)], outputs


def _joined(one: fx.GraphModule, two: fx.GraphModule, names: list[str], outputs: list[str]) -> Trace:
    """The operations of two traces of the same step.

    Raises:
        ValueError: where they differ in more than sizes.
    """
    made: dict[fx.Node, Operation] = {}
    if len(one.graph.nodes) != len(two.graph.nodes):
        raise ValueError("its operations depend on the length")
    placeholders = iter(names)
    for first, second in zip(one.graph.nodes, two.graph.nodes, strict=True):
        if first.op != second.op or (first.op == "call_function" and first.target != second.target):
            raise ValueError("its operations depend on the length")
        if first.op == "output":
            results = [made[node] for node in first.args[0]]
            return Trace(list(made.values()), dict(zip(outputs, results, strict=True)))
        made[first] = _operation(first, second, made, placeholders, one)
    raise ValueError("the trace has no end")


def _operation(
    first: fx.Node, second: fx.Node, made: Mapping[fx.Node, Operation], names: Iterator[str], graph: fx.GraphModule
) -> Operation:
    shape, dtype = _described(first.meta.get("val"), second.meta.get("val"))
    if first.op == "placeholder":
        return Operation("input", (next(names),), {}, shape, dtype)
    if first.op == "get_attr":
        value = getattr(graph, str(first.target))
        if any(not isinstance(size, int) for size in shape):
            raise ValueError("a constant of it depends on the length")
        array = np.asarray(value.detach().tolist(), dtype)
        return Operation("constant", (array,), {}, tuple(array.shape), dtype)
    name = "getitem" if first.target is operator.getitem else str(first.target).split(".")[1]
    args, kwargs = _unified(first.args, second.args, made), _unified(first.kwargs, second.kwargs, made)
    return Operation(name, args, kwargs, shape, dtype)


def _described(first: Any, second: Any) -> tuple[Any, Any]:
    """Shape and type of a value, or of several."""
    if isinstance(first, Tensor):
        sizes = zip(first.shape, second.shape, strict=True)
        return tuple(extent_of(int(a), int(b), _BATCHES) for a, b in sizes), str(first.dtype).split(".")[1]
    if isinstance(first, list | tuple):
        both = [_described(a, b) for a, b in zip(first, second, strict=True)]
        return tuple(shape for shape, _ in both), tuple(dtype for _, dtype in both)
    return (), None


def _unified(first: Any, second: Any, made: Mapping[fx.Node, Operation]) -> Any:
    """Arguments of two traces, with operations for nodes and expressions for sizes that differ."""
    if isinstance(first, fx.Node):
        return made[first]
    if isinstance(first, dict):
        return {key: _unified(value, second[key], made) for key, value in first.items()}
    if isinstance(first, list | tuple):
        return type(first)(_unified(a, b, made) for a, b in zip(first, second, strict=True))
    if isinstance(first, int) and not isinstance(first, bool):
        return extent_of(first, second, _BATCHES)
    if first != second:
        raise ValueError(f"a number of it depends on the length: {first} and {second}")
    return first


def trace_function(function: Callable[..., Any], examples: Sequence[Tensor]) -> Trace:
    """Trace a function of tensors at the sizes of these examples; its results are called ``0``, ``1`` and so on."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    inputs = [fake.from_tensor(example) for example in examples]

    def flat(*values: Tensor) -> list[Tensor]:
        found = function(*values)
        return [each for each in found if each is not None] if isinstance(found, list | tuple) else [found]

    with fake, enable_python_dispatcher(), torch.no_grad():
        traced = make_fx(flat)(*inputs)
        graph = make_fx(functionalize(traced, remove="mutations_and_views"))(*inputs)
    graph.graph.eliminate_dead_code()
    (results,) = (node.args[0] for node in graph.graph.nodes if node.op == "output")
    return _joined(graph, graph, [str(i) for i in range(len(inputs))], [str(i) for i in range(len(results))])
