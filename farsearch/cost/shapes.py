"""Run operations on meta tensors, whose only result is shapes, and cache the shapes.

Many of torch's kernels for the device ``meta`` are written in Python and take up to milliseconds. A trace calls the
same few of them with the same shapes in every layer, so the results of a call are cached for the next equal one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Key", "key_of", "run_known", "run_on_meta"]

Key = tuple[Any, ...]
"""A call of torch's dispatcher up to the shapes, strides and types of its tensors."""


class _Fresh(NamedTuple):
    """A result with a storage of its own."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


class _Argument(NamedTuple):
    """A result that is one of the arguments, as of an in-place operation, by its position among their tensors."""

    position: int


class _Results(NamedTuple):
    """The results of a call, and whether it returns a tuple."""

    items: tuple[_Fresh | _Argument | None, ...]
    is_tuple: bool


_RESULTS: dict[Key, _Results] = {}
_MAKES_A_VIEW: dict[int, tuple[Any, bool]] = {}
"""By the id of a function, whose own hash takes long; the function stands beside it, so that no other gets its id."""


def run_on_meta(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the result of ``function`` of torch's dispatcher; only calls on ``meta`` tensors alone are cached."""
    return run_known(*key_of(function, args, kwargs), function, args, kwargs)


def key_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Key | None, list[Tensor]]:
    """Return the key of a call and its tensors; None for a call whose result must not be cached."""
    tensors: list[Tensor] = []
    if _makes_a_view(function):
        return None, tensors
    key = (id(function), _described(args, tensors), _described(tuple(kwargs.items()), tensors) if kwargs else ())
    if not tensors or not all(tensor.is_meta for tensor in tensors):
        return None, tensors
    return key, tensors


def run_known(
    key: Key | None, tensors: list[Tensor], function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Like ``run_on_meta``, with the key and the tensors that ``key_of`` returns."""
    if key is None:
        return function(*args, **kwargs)
    known = _RESULTS.get(key)
    if known is None:
        returned = function(*args, **kwargs)
        results = _results(returned, tensors)
        if results is not None:
            _RESULTS[key] = results
        return returned
    if known.is_tuple:
        return tuple([_make(result, tensors) for result in known.items])
    return _make(known.items[0], tensors)


def _makes_a_view(function: Any) -> bool:
    """Whether a result is a new tensor on the storage of an argument: that is quick, and must not be cached."""
    known = _MAKES_A_VIEW.get(id(function))
    if known is None:
        aliases = [result.alias_info for result in function._schema.returns]
        unsafe = function is torch.ops.aten._unsafe_view.default
        makes = unsafe or any(alias is not None and not alias.is_write for alias in aliases)
        known = _MAKES_A_VIEW[id(function)] = function, makes
    return known[1]


def _described(value: Any, tensors: list[Tensor]) -> Any:
    """Return a key that is equal only for arguments of equal shapes; append their tensors to ``tensors``."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return value.shape, value.stride(), value.storage_offset(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple([_described(each, tensors) for each in value])
    # 1, 1.0 and True are equal, and give results of different types
    return type(value), value


def _make(result: _Fresh | _Argument | None, tensors: list[Tensor]) -> Tensor | None:
    if result is None:
        return None
    if isinstance(result, _Argument):
        return tensors[result.position]
    return torch.empty_strided(result.shape, result.stride, dtype=result.dtype, device="meta")


def _results(returned: Any, tensors: list[Tensor]) -> _Results | None:
    """Return the cache entry of a call; None if a result is neither new nor an argument, such as a view."""
    is_tuple = isinstance(returned, tuple)
    results = [_result(value, tensors) for value in (returned if is_tuple else (returned,))]
    return None if NotImplemented in results else _Results(tuple(results), is_tuple)


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
