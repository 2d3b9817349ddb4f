"""Cached results of operations on meta tensors equal those of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from farsearch.cost.shapes import run_on_meta

aten = torch.ops.aten
CALLS: dict[str, Callable[[Tensor, Tensor], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    "product": lambda x, y: (aten.mm.default, (x, y.t())),
    "sum with a number": lambda x, y: (aten.add.Tensor, (x, 1)),
    "sum with a float": lambda x, y: (aten.add.Tensor, (x.to(torch.int64), 1.0)),
    "comparison": lambda x, y: (aten.lt.Scalar, (x, 0)),
    "sum over rows": lambda x, y: (aten.sum.dim_IntList, (x, [0], True)),
    "concatenation": lambda x, y: (aten.cat.default, ([x, y], 0)),
    "several results": lambda x, y: (aten.native_layer_norm.default, (x, [x.shape[-1]], None, None, 1e-5)),
    "no second result": lambda x, y: (aten.native_dropout.default, (x, 0.1, True)),
    "copy of transposed": lambda x, y: (aten.clone.default, (x.t(),)),
}


def meta(rows: int, columns: int) -> Tensor:
    """Return a matrix without memory."""
    return torch.empty(rows, columns, device="meta")


def described(returned: object) -> list[tuple[object, ...]]:
    """Return shape, strides, type and bytes of storage of each result."""
    each = returned if isinstance(returned, tuple) else (returned,)
    return [(x.shape, x.stride(), x.dtype, x.untyped_storage().nbytes()) for x in each]


@pytest.mark.parametrize("call", CALLS)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_cached_results_equal_those_of_torch(call: str, rows: int, columns: int) -> None:
    """The first and the second call return the shapes, strides, types and storages of torch."""
    function, args = CALLS[call](meta(rows, columns), meta(rows, columns))
    expected = described(function(*args))
    for _ in range(2):
        assert described(run_on_meta(function, args, {})) == expected


def test_every_result_has_its_own_storage() -> None:
    """A trace counts storages: no two results share one."""
    x = meta(2, 3)
    results = [run_on_meta(aten.mul.Tensor, (x, 2.0), {}) for _ in range(3)]
    assert len({result.untyped_storage()._cdata for result in (x, *results)}) == 4


def test_in_place_operation_returns_its_argument() -> None:
    """The result is the argument itself, or ``out``."""
    for _ in range(2):
        x, y, out = meta(2, 3), meta(2, 3), meta(2, 3)
        assert run_on_meta(aten.add_.Tensor, (x, y), {}) is x
        assert run_on_meta(aten.mul.out, (x, y), {"out": out}) is out


@pytest.mark.parametrize("view", [aten.t.default, aten.detach.default])
def test_view_shares_the_storage_of_its_argument(view: object) -> None:
    """A cached result is a view of the current argument, not of the first one."""
    for _ in range(2):
        x = meta(2, 3)
        assert run_on_meta(view, (x,), {}).untyped_storage()._cdata == x.untyped_storage()._cdata


def test_errors_of_torch_are_not_cached() -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError):
            run_on_meta(aten.mm.default, (meta(2, 3), meta(2, 3)), {})


def test_tensors_with_memory_are_not_cached() -> None:
    x = torch.arange(3.0)
    for _ in range(2):
        assert torch.equal(run_on_meta(aten.add.Tensor, (x, 1), {}), x + 1)
