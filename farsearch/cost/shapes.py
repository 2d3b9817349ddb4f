"""Run operations on meta tensors, whose only result is shapes, without computing the same shapes twice.

Many of torch's kernels for the device ``meta`` are written in Python and take up to milliseconds. A trace calls the
same few of them with the same shapes in every layer, so what a call has returned is kept for the next one like it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["run_on_meta"]


class _Fresh(NamedTuple):
    """A result with a storage of its own."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


class _Argument(NamedTuple):
    """A result that is one of the arguments, as of an operation in place: its place among their tensors."""

    position: int


class _Results(NamedTuple):
    """What a call returns: each of its results, and whether they come as a tuple."""

    each: tuple[_Fresh | _Argument | None, ...]
    is_tuple: bool


_RESULTS: dict[tuple[Any, ...], _Results] = {}


def run_on_meta(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``function`` of torch's dispatcher returns for tensors on ``meta``; others are left to torch every time."""
    if _makes_a_view(function):
        return function(*args, **kwargs)
    tensors: list[Tensor] = []
    key = (function, _described(args, tensors), _described(tuple(kwargs.items()), tensors))
    if not tensors or not all(tensor.is_meta for tensor in tensors):
        return function(*args, **kwargs)
    known = _RESULTS.get(key)
    if known is None:
        returned = function(*args, **kwargs)
        results = _results(returned, tensors)
        if results is not None:
            _RESULTS[key] = results
        return returned
    made = [_make(result, tensors) for result in known.each]
    return tuple(made) if known.is_tuple else made[0]


@cache
def _makes_a_view(function: Any) -> bool:
    """A result shares the storage of an argument and is another tensor: that is quick, and new every time."""
    aliases = [result.alias_info for result in function._schema.returns]
    unsafe = function is torch.ops.aten._unsafe_view.default
    return unsafe or any(alias is not None and not alias.is_write for alias in aliases)


def _described(value: Any, tensors: list[Tensor]) -> Any:
    """A key that is equal for arguments of the same shapes alone; the tensors among them are appended to a list."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.shape, value.stride(), value.storage_offset(), value.dtype
    if isinstance(value, tuple | list):
        return tuple(_described(each, tensors) for each in value)
    # 1, 1.0 and True are equal, and give results of different types
    return type(value), value


def _make(result: _Fresh | _Argument | None, tensors: list[Tensor]) -> Tensor | None:
    if result is None:
        return None
    if isinstance(result, _Argument):
        return tensors[result.position]
    return torch.empty_strided(result.shape, result.stride, dtype=result.dtype, device="meta")


def _results(returned: Any, tensors: list[Tensor]) -> _Results | None:
    """What to keep of what a call has returned; None where a result is neither new nor an argument, as a view is."""
    is_tuple = isinstance(returned, tuple)
    each = [_result(value, tensors) for value in (returned if is_tuple else (returned,))]
    kept = tuple(result for result in each if result is not NotImplemented)
    return _Results(kept, is_tuple) if len(kept) == len(each) else None


def _result(value: Any, tensors: list[Tensor]) -> Any:
    if value is None:
        return None
    if not isinstance(value, Tensor) or not value.is_meta:
        return NotImplemented
    for position, tensor in enumerate(tensors):
        if value is tensor:
            return _Argument(position)
    storage = value.untyped_storage()
    fresh = _Fresh(value.shape, value.stride(), value.dtype)
    alike = torch.empty_strided(*fresh[:2], dtype=value.dtype, device="meta").untyped_storage()
    is_view = any(storage._cdata == tensor.untyped_storage()._cdata for tensor in tensors)
    return NotImplemented if is_view or alike.nbytes() != storage.nbytes() else fresh
