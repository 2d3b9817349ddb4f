"""Bytes that a forward pass saves for its backward pass, from the tensors that autograd saves."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

__all__ = ["saved_bytes"]


def saved_bytes(run: Callable[[], Tensor], own: Iterable[Tensor] = ()) -> int:
    """Bytes of all distinct storages that ``run`` saves, except those of ``own`` (parameters)."""
    left_out = {tensor.untyped_storage().data_ptr() for tensor in own}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in left_out:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
        del result
    return sum(saved.values())
