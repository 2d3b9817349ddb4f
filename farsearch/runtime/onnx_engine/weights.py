"""Weights as numpy arrays: mapped from their file, and merged into transformers' tensors one at a time."""

import mmap
import os
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np

from ...far import tensor_file
from ...far.display import shown
from ..program_file import Merged, Program, Stored

__all__ = ["Arrays", "load_weights", "map_tensors", "merged_tensors", "write_merged", "write_tensors"]

Arrays = Dict[str, np.ndarray]


def map_tensors(path: str) -> Arrays:
    """Return the tensors of a safetensors file by name, as read-only views of the mapped file.

    The system reads their pages as they are needed, and may drop them again.

    Raises:
        OSError: if it can't be read.
        ValueError: if it violates the format, or has a type that numpy lacks or a tensor at an odd offset.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        entries, _, start = tensor_file.read_header(file, size)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays: Arrays = {}
    for name, kind, shape, begin, end in entries:
        if kind == "bfloat16":
            raise ValueError("{} is of bfloat16, which numpy has not".format(shown(name)))
        dtype = np.dtype(kind)
        if (start + begin) % dtype.itemsize:
            raise ValueError("{} begins at byte {}, no multiple of its size".format(shown(name), start + begin))
        count = (end - begin) // dtype.itemsize
        # an empty array can't be a view of the end of the file
        flat = np.frombuffer(mapped, dtype, count, start + begin) if count else np.empty(0, dtype)
        arrays[name] = flat.reshape(shape)
    return arrays


def load_weights(path: str, program: Program) -> Tuple[Arrays, Arrays]:
    """Return trained weights, as arrays of their own, and frozen ones, as views of the mapped file.

    Raises:
        OSError: as ``map_tensors``.
        ValueError: as ``map_tensors``, and when names, shapes or types are not those of the program.
    """
    stored = map_tensors(path)
    expected = {tensor.name: tensor for tensor in program.trained + program.frozen}
    for name in sorted(set(stored) ^ set(expected)):
        raise ValueError("{} {}".format("it lacks" if name in expected else "the program has no", shown(name)))
    for name, tensor in expected.items():
        _check(tensor, stored[name])
    trained = {tensor.name: stored.pop(tensor.name).copy() for tensor in program.trained}
    return trained, stored


def _check(tensor: Stored, found: np.ndarray) -> None:
    if found.shape != tensor.shape or str(found.dtype) != tensor.dtype:
        raise ValueError(
            "{} is {} {}, the program's {} {}".format(
                shown(tensor.name), found.dtype, list(found.shape), tensor.dtype, list(tensor.shape)
            )
        )


def write_tensors(
    path: str,
    tensors: Sequence[Tuple[str, str, Sequence[int]]],
    arrays: Iterable[np.ndarray],
    texts: Optional[Mapping[str, str]] = None,
) -> None:
    """Write arrays as they come, so that one at a time need exist; ``tensors`` has name, type and shape of each.

    Raises:
        OSError: if the file can't be written.
    """
    tensor_file.write(path, tensors, (_bytes(array) for array in arrays), texts)


def _bytes(array: np.ndarray) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def merged_tensors(entries: Sequence[Merged], values: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the tensors of the merged model in float32, in the order of ``entries``.

    Args:
        values: the tensors of the reconfigured model by name.
    """
    for entry in entries:
        (first, *_), axis = entry.parts, entry.axis
        if first.places is None:
            yield values[first.value].astype(np.float32, copy=False)
            continue
        merged = np.empty(entry.shape, np.float32)
        before = (slice(None),) * axis
        for part in entry.parts:
            places = np.array(part.places, np.int64)
            merged[before + (places[places >= 0],)] = values[part.value][before + (places >= 0,)]
        yield merged


def write_merged(path: str, program: Program, values: Mapping[str, np.ndarray]) -> None:
    """Write the merged model as ``model.safetensors`` of transformers, with at most one of its tensors in memory.

    Raises:
        OSError: if the file can't be written.
    """
    tensors = [(entry.name, "float32", entry.shape) for entry in program.merge]
    write_tensors(path, tensors, merged_tensors(program.merge, values), {"format": "pt"})
