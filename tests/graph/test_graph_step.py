"""A compiled step in onnxruntime equals torch's autograd: losses, gradients, predictions, and the merged model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from farsearch.far.dropout import masks_from
from farsearch.far.features import Features, batch_of
from farsearch.far.layout import ModelLayout
from farsearch.far.loss import PLAIN, LossForm
from farsearch.far.surgery import apply_far, merge
from farsearch.graph.compiler import PROGRAM, WEIGHTS, compile_step, engine_execution
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.records import StepPlan
from farsearch.runtime.onnx_engine.program import Runner
from farsearch.runtime.onnx_engine.weights import load_weights, merged_tensors
from farsearch.runtime.program_file import Program, read_program
from tests.models.contract import FamilyCase
from tests.models.test_models_families import CASES

HEADS = (
    Head("classification", 3),
    Head("regression", 1),
    Head("multi-label", 3),
    Head("token-classification", 3),
    Head("question-answering", 2),
)
_PORTION = 16
"""Tokens: less than two rows."""
BY_NAME = {case.name: case for case in CASES}


@dataclass(frozen=True)
class Compiled:
    """A compiled model, beside the reconfigured one in torch."""

    model: nn.Module
    layout: ModelLayout
    program: Program
    runner: Runner
    weights: dict[str, NDArray[Any]]

    def step(self, inputs: dict[str, Tensor], masks: list[NDArray[Any]]) -> tuple[float, dict[str, NDArray[Any]]]:
        """Return loss and gradients in onnxruntime; without masks nothing is dropped."""
        gradients: dict[str, NDArray[Any]] = {}
        loss = self.runner.step(
            arrays_of(inputs),
            lambda number, shape: masks[number] if masks else np.zeros(shape, bool),
            lambda name, gradient: gradients.update({name: gradient.copy()}),
        )
        return loss, gradients


def arrays_of(inputs: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Return a batch for the runner, with a mask that is added to the scores."""
    arrays = {name: value.numpy() for name, value in inputs.items()}
    padding = inputs["attention_mask"].eq(0)[:, None, None]
    arrays["attention_mask"] = torch.zeros(padding.shape).masked_fill(padding, torch.finfo(torch.float32).min).numpy()
    return arrays


def make_inputs(head: Head, rows: int, length: int) -> dict[str, Tensor]:
    """Return random tokens; the first row is shorter than the others."""
    draw = torch.Generator().manual_seed(rows)
    ids = torch.randint(5, 60, (rows, length), generator=draw).tolist()
    ids[0] = ids[0][: length - 2]
    features = head.features(ids)
    return dict(batch_of(Features(features.input_ids, features.targets, features.segments), 1).inputs)


def compile_model(
    folder: Path, case: FamilyCase, head: Head, prepare: Callable[[nn.Module, ModelLayout], None], dropout: float = 0.0,
    form: LossForm = PLAIN,
) -> Compiled:  # fmt: skip
    """Compile a tiny model of a family as ``prepare`` reconfigures it."""
    torch.manual_seed(0)
    model, layout = build_model(case.make(2, 32, 64, dropout), head)
    names = list(model.state_dict())
    prepare(model, layout)
    model.train()
    compile_step(model, layout, head, names, form).write(folder)
    program = read_program(json.loads((folder / PROGRAM).read_text(encoding="utf-8")))
    program = program._replace(portion=_PORTION)
    trained, frozen = load_weights(str(folder / WEIGHTS), program)
    weights = {**trained, **frozen}
    return Compiled(
        model, layout, program, Runner(program, [str(folder / name) for name in program.graphs], weights), weights
    )


def far(
    embeddings: bool = False, attention_layers: int = 0, plan: StepPlan | None = None
) -> Callable[[nn.Module, ModelLayout], None]:
    """Return a reconfiguration with 4 learners in each block of the first layer, and one trained head in the last."""

    def prepare(model: nn.Module, layout: ModelLayout) -> None:
        first = len(layout.layers[0].blocks)
        learners = [list(range(3, 7))] * first + [None] * (len(layout.blocks) - first)
        execution = engine_execution(layout, plan)
        heads = [None] * (len(layout.layers) - 1) + [[1]]
        apply_far(model, layout, learners, embeddings, attention_layers, execution=execution, heads=heads)

    return prepare


def check_step(compiled: Compiled, head: Head) -> None:
    """Compare losses and gradients at lengths and numbers of rows other than the traced ones."""
    trained = {name: value for name, value in compiled.model.named_parameters() if value.requires_grad}
    for rows, length in ((4, 9), (2, 16)):
        inputs = make_inputs(head, rows, length)
        loss = compiled.model(**inputs).loss
        gradients = torch.autograd.grad(loss, list(trained.values()))
        mine, found = compiled.step(inputs, [])
        assert mine == pytest.approx(loss.item(), abs=1e-5)
        assert set(found) == set(trained)
        for name, expected in zip(trained, gradients, strict=True):
            np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[] if name in ("distilbert", "modernbert") else pytest.mark.slow) for name in BY_NAME],
)
def test_step_of_every_family_equals_torch(family: str, tmp_path: Path) -> None:
    head = Head()
    check_step(compile_model(tmp_path, BY_NAME[family], head, far()), head)


def test_the_last_block_is_computed_for_the_token_that_the_head_takes(tmp_path: Path) -> None:
    """None of its values, which are saved until the backward pass, grows with the length of the texts."""
    compiled = compile_model(tmp_path, BY_NAME["bert"], Head(), far())
    calls = [call for call in compiled.program.step if any("layer.1.output" in value for value in call.inputs.values())]
    assert len(calls) >= 2
    for call in calls:
        graph = onnx.load(str(tmp_path / compiled.program.graphs[call.graph])).graph
        sizes = [size.dim_param for info in graph.output for size in info.type.tensor_type.shape.dim]
        assert not any("length" in size for size in sizes)


@pytest.mark.parametrize("portion", [None, 1, 24])
def test_portions_give_the_gradients_of_all_rows(portion: int | None, tmp_path: Path) -> None:
    """Single rows, two rows and one, and all at once, as programs before portions do."""
    compiled = compile_model(tmp_path, BY_NAME["bert"], Head(), far())
    program = compiled.program._replace(portion=portion)
    assert sum(bool(call.rows) for call in program.step) >= len(program.step) - 2  # all but the loss and the ids
    runner = Runner(program, [str(tmp_path / name) for name in program.graphs], compiled.weights)
    check_step(replace(compiled, runner=runner), Head())


def test_frozen_weights_of_16_bits_are_stored_as_such(tmp_path: Path) -> None:
    """The step equals torch's with the same rounded weights, and the merged model has float32."""
    plan = StepPlan(feed_forward="store", frozen_dtype="float16")
    compiled = compile_model(tmp_path, BY_NAME["bert"], Head(), far(plan=plan))
    names = {name for name, value in compiled.weights.items() if value.dtype == np.float16}
    assert {name.rsplit(".", 1)[-1] for name in names} == {"frozen_up", "frozen_down"}
    check_step(compiled, Head())
    assert {value.dtype for value in merged_tensors(compiled.program.merge, compiled.weights)} == {np.dtype("float32")}


@pytest.mark.parametrize("form", [LossForm(True), LossForm(True, 0.2)], ids=["plain", "smoothed"])
def test_weights_of_classes_are_an_input_of_the_loss(form: LossForm, tmp_path: Path) -> None:
    """Loss and gradients are those of torch's weighted cross entropy, with the weights that a batch brings."""
    head = Head("classification", 3)
    compiled = compile_model(tmp_path, BY_NAME["distilbert"], head, far(), form=form)
    trained = {name: value for name, value in compiled.model.named_parameters() if value.requires_grad}
    for given in ([0.4, 2.5, 1.0], [3.0, 0.1, 7.0]):
        inputs, weights = make_inputs(head, 4, 9), torch.tensor(given)
        logits = compiled.model(**inputs).logits
        loss = torch.nn.functional.cross_entropy(logits, inputs["labels"], weights, label_smoothing=form.smoothing)
        gradients = torch.autograd.grad(loss, list(trained.values()))
        mine, found = compiled.step({**inputs, "class_weights": weights}, [])
        assert mine == pytest.approx(loss.item(), abs=1e-5)
        for name, expected in zip(trained, gradients, strict=True):
            np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-5, err_msg=name)


def test_labels_are_smoothed_as_by_torch(tmp_path: Path) -> None:
    head = Head("classification", 3)
    compiled = compile_model(tmp_path, BY_NAME["distilbert"], head, far(), form=LossForm(smoothing=0.1))
    trained = {name: value for name, value in compiled.model.named_parameters() if value.requires_grad}
    inputs = make_inputs(head, 4, 9)
    loss = torch.nn.functional.cross_entropy(compiled.model(**inputs).logits, inputs["labels"], label_smoothing=0.1)
    gradients = torch.autograd.grad(loss, list(trained.values()))
    mine, found = compiled.step(inputs, [])
    assert mine == pytest.approx(loss.item(), abs=1e-5)
    for name, expected in zip(trained, gradients, strict=True):
        np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_step_of_every_head_equals_torch(head: Head, tmp_path: Path) -> None:
    check_step(compile_model(tmp_path, BY_NAME["bert"], head, far(embeddings=True, attention_layers=1)), head)


def test_prediction_equals_torch_and_takes_no_targets(tmp_path: Path) -> None:
    head = Head()
    compiled = compile_model(tmp_path, BY_NAME["bert"], head, far(), dropout=0.1)
    inputs = make_inputs(head, 3, 12)
    del inputs["labels"]
    with torch.no_grad():
        expected = compiled.model.eval()(**inputs).logits.numpy()
    np.testing.assert_allclose(compiled.runner.predict(arrays_of(inputs)), expected, atol=1e-5)


class GivenMasks:
    """Dropout masks from arrays, in the order in which modules draw them."""

    def __init__(self, masks: list[NDArray[Any]]) -> None:
        self._masks, self._next = masks, 0

    def state(self) -> int:
        return self._next

    def restore(self, state: int) -> None:
        self._next = state

    def mask(self, x: Tensor, _p: float) -> Tensor:
        self._next += 1
        return torch.from_numpy(self._masks[self._next - 1]).view(x.shape)


@contextmanager
def last_mask(model: nn.Module, mask: NDArray[Any], p: float) -> Iterator[None]:
    """Give the dropout of the head, which is torch's own, the same mask."""
    module = model.dropout
    model.dropout = _Masked(torch.from_numpy(mask), p)
    try:
        yield
    finally:
        model.dropout = module


class _Masked(nn.Module):
    def __init__(self, mask: Tensor, p: float) -> None:
        super().__init__()
        self.mask, self.p = mask, p

    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(self.mask, 0.0) / (1.0 - self.p)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_step_with_the_same_dropout_equals_torch(family: str, tmp_path: Path) -> None:
    head, rows, length = Head(), 4, 9
    compiled = compile_model(tmp_path, BY_NAME[family], head, far(embeddings=True), dropout=0.2)
    sizes = {"rows": rows, "length": length}
    draw = np.random.default_rng(0)
    masks = [draw.random([sizes.get(n, n) for n in mask.shape]) < mask.p for mask in compiled.program.dropouts]
    inputs = make_inputs(head, rows, length)
    trained = {name: value for name, value in compiled.model.named_parameters() if value.requires_grad}
    with masks_from(GivenMasks(masks)), last_mask(compiled.model, masks[-1], compiled.program.dropouts[-1].p):
        loss = compiled.model(**inputs).loss
        gradients = torch.autograd.grad(loss, list(trained.values()))
    mine, found = compiled.step(inputs, masks)
    assert mine == pytest.approx(loss.item(), abs=1e-5)
    for name, expected in zip(trained, gradients, strict=True):
        np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_merged_model_is_that_of_torch(family: str, tmp_path: Path) -> None:
    compiled = compile_model(tmp_path, BY_NAME[family], Head(), far())
    merged = dict(
        zip(
            [entry.name for entry in compiled.program.merge],
            merged_tensors(compiled.program.merge, compiled.weights),
            strict=True,
        )
    )
    expected = merge(compiled.model, compiled.layout).state_dict()
    assert set(merged) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(merged[name], value.numpy().astype(np.float32), err_msg=name)


def test_equal_layers_share_their_graphs_which_hold_no_weights(tmp_path: Path) -> None:
    case, head = BY_NAME["bert"], Head()
    sizes = []
    for layers in (3, 6):
        folder = tmp_path / str(layers)
        folder.mkdir()
        model, layout = build_model(case.make(layers, 32, 64, 0.1), head)
        names = list(model.state_dict())
        apply_far(model, layout, [[0, 5]] * layers, True, layers, execution=engine_execution(layout))
        compile_step(model, layout, head, names).write(folder)
        graphs = sorted(folder.glob("*.onnx"))
        sizes.append([graph.stat().st_size for graph in graphs])
        for graph in graphs:
            onnx.checker.check_model(str(graph))
    assert sizes[0] == sizes[1]
    assert sum(sizes[1]) < 100_000
