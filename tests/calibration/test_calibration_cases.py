"""Operations of the calibration: each case runs one operation, each workload the documented step."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
import torch
from torch import Tensor

from farsearch.calibration.measure.cases import CASES, cases, make_call
from farsearch.calibration.measure.workloads import WORKLOADS
from farsearch.calibration.script import board_script
from farsearch.cost.operations import Operation
from farsearch.cost.trace import trace_call
from farsearch.devices.rates import PRODUCTS, STREAMS
from tests.calibration.known import KINDS, tiny_operations, work_of, workload_operations

ALL = [*cases("products"), *cases("streams")]


def on_meta(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Return the operands of a case on the meta device."""
    return [torch.empty(shape, device="meta") for shape in shapes]


def traced(case: str, dims: tuple[int, ...]) -> list[Operation]:
    """Return the operations of one call of a case."""
    return trace_call(make_call(case, dims, on_meta), []).operations


@pytest.mark.parametrize("case", CASES)
def test_case_is_one_operation_of_its_kind(case: str) -> None:
    """At every size the trace agrees with formulas for kind, FLOPs, bytes and matrices."""
    some = [dims for name, dims in ALL if name == case]
    assert some
    for dims in some:
        (op,) = traced(case, dims)
        work = work_of(case, dims)
        assert (op.kind, op.matrices) == (work.kind, work.matrices)
        if case in KINDS:
            assert (op.category, op.bytes) == ("stream", work.moved), dims
        else:
            assert (op.category, op.flops) == (case[:4].rstrip("_"), work.flops), dims
            assert (op.left, op.right, op.out) == (work.left, work.right, work.out), dims


def test_every_kind_of_operation_has_a_case() -> None:
    assert {work_of(case, dims).kind for case, dims in ALL} == {*PRODUCTS, *STREAMS}


def test_cases_are_distinct() -> None:
    """Each form of a product has few and many rows and all its widths."""
    assert len(set(ALL)) == len(ALL)
    for form in ("gemm_nt", "gemm_nn", "gemm_tn"):
        dims = [dims for case, dims in ALL if case == form]
        assert {t for t, _, _ in dims} == {32, 128, 512, 1024, 2048}
        for t in (32, 2048):
            assert {(k, n) for rows, k, n in dims if rows == t} >= {(384, 1536), (1536, 384), (768, 3072), (3072, 768)}


@pytest.mark.parametrize("case", CASES)
def test_case_runs_on_real_tensors(case: str) -> None:
    """Run each case at its smallest size."""
    dims = min((dims for name, dims in ALL if name == case), key=lambda some: sum(some))

    def take(*shapes: tuple[int, ...]) -> list[Tensor]:
        return [torch.rand(shape) for shape in shapes]

    with torch.no_grad():
        found = make_call(case, dims, take)()
    for part in found if isinstance(found, tuple | list) else [found]:
        assert part is None or bool(torch.isfinite(part).all())


@pytest.mark.parametrize("name", WORKLOADS)
def test_products_of_a_workload_are_those_of_its_layers(name: str) -> None:
    """By formula: outputs, gradients of trained weights, and gradients of inputs except the first layer's."""
    rows, t, d, ff, learners, layers = WORKLOADS[name]
    maps, frozen = [(d, d)] * 4 + [(d, learners or ff), (learners or ff, d)], []
    if learners:
        frozen = [(d, ff - learners), (ff - learners, d)]
    both, trained = (2 * rows * t * sum(k * n for k, n in some) for some in (maps + frozen, maps))
    # no weight before the first layer's queries, keys and values is trained
    first = 2 * rows * t * 3 * d * d
    operations = workload_operations(name)
    gemm = sum(op.flops for op in operations if op.kind.startswith("gemm"))
    assert gemm == layers * (2 * both + trained) - first
    # scores and context, and the gradients of both factors of each
    bmm = sum(op.flops for op in operations if op.kind.startswith("bmm"))
    assert bmm == layers * 6 * 2 * rows * t * t * d
    forms = Counter(op.kind for op in operations if op.kind in PRODUCTS)
    count = len(maps) + len(frozen)
    assert forms == {
        "gemm_nt": layers * count, "gemm_nn": layers * count - 3, "gemm_tn": layers * len(maps),
        "bmm_nt": layers * 2, "bmm_nn": layers * 2, "bmm_tn": layers * 2,
    }  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload_steps_each_trained_tensor(name: str) -> None:
    """Each layer has three dropouts and two LayerNorms, forward and backward; SGD steps each trained tensor."""
    *_, layers = WORKLOADS[name]
    kinds = Counter(op.kind for op in workload_operations(name))
    assert kinds["bernoulli"] == 3 * layers
    assert kinds["norm"] == 2 * 2 * layers
    assert kinds["softmax"] == 2 * layers
    tensors = layers * (6 * 2 + 2 * 2)
    assert kinds["in_place"] >= tensors


def test_tiny_step_has_many_small_operations() -> None:
    """Overhead dominates; its tensors are smaller than a few kilobytes."""
    assert tiny_operations() > 200
    assert work_of("gemm_nt", (16, 24, 48)).flops < 1e5


def test_script_imports_only_torch_and_the_standard_library() -> None:
    lines = board_script().splitlines()
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported - sys.stdlib_module_names == {"torch"}
