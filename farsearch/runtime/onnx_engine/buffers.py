"""Memory for the values of a program that is used again in each step, and the portions of a batch's rows."""

from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

import numpy as np

__all__ = ["Buffers", "Declared", "portion_rows", "size_of"]

_ALIGNED = 64
"""Bytes, those of a cache line."""


def size_of(dimension: Union[int, str, None], rows: int, length: int) -> int:
    """Return a dimension that a graph declares: a number, or factors such as ``2*rows*length-1`` and an offset.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(dimension, int):
        return dimension
    product, _, offset = str(dimension).replace("-", "+-").partition("+")
    size = 1
    for factor in product.split("*"):
        size *= {"rows": rows, "length": length}.get(factor) or int(factor)
    return size + int(offset or 0)


def portion_rows(rows: int, length: int, tokens: int) -> int:
    """Return how many rows are computed at once, so that portions of about ``tokens`` tokens differ little."""
    portions = -(-rows // max(1, tokens // length))
    return -(-rows // portions)


class Declared(NamedTuple):
    """Type and dimensions of a value, as ``size_of`` takes them."""

    dtype: str
    dimensions: Tuple[Union[int, str, None], ...]

    def shape(self, rows: int, length: int) -> Tuple[int, ...]:
        """The shape in a batch."""
        return tuple(size_of(dimension, rows, length) for dimension in self.dimensions)

    def nbytes(self, rows: int, length: int) -> int:
        """The size in a batch."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape(rows, length), dtype=np.int64))


class Buffers:
    """Blocks of memory of the largest batch so far, each for values of one size there.

    A block whose value is not needed any more is used for the next one of its size; the system's allocator is not asked
    again in each step, and between blocks there are no holes.
    """

    def __init__(self) -> None:
        self._rows = self._length = 0
        self._free: Dict[int, List[np.ndarray]] = {}

    def reserve(self, rows: int, length: int) -> None:
        """Prepare for a batch; none of the blocks may be in use."""
        if rows > self._rows or length > self._length:
            self._free.clear()
            self._rows, self._length = max(rows, self._rows), max(length, self._length)

    def take(self, value: Declared, shape: Sequence[int]) -> Tuple[np.ndarray, np.ndarray]:
        """Return an array of ``shape``, with any elements, and its block for ``give``."""
        size = value.nbytes(self._rows, self._length)
        free = self._free.get(size)
        block = free.pop() if free else np.empty(size + _ALIGNED, np.uint8)
        start = -block.ctypes.data % _ALIGNED
        used = np.dtype(value.dtype).itemsize * int(np.prod(shape, dtype=np.int64))
        return block[start : start + used].view(value.dtype).reshape(shape), block

    def give(self, block: np.ndarray) -> None:
        """Take a block back, whose array is not used any more."""
        self._free.setdefault(len(block) - _ALIGNED, []).append(block)

    def clear(self) -> None:
        """Return all blocks to the system."""
        self._free.clear()
        self._rows = self._length = 0
