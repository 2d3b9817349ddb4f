"""The safetensors format without a tensor library: header, rules, and writing tensor by tensor.

A file consists of eight bytes with the size of its header, the header (JSON: type, shape and offsets of each tensor),
and the tensors' bytes one after another. All rules of the format are checked before a tensor is read, so that a header
can't make the reader allocate more memory than the size of the file, or return the same bytes twice.
"""

import json
import os
import struct
import sys
from typing import Any, BinaryIO, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from .display import shown

__all__ = ["Entry", "metadata", "read_header", "shapes", "write"]

_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Names of the format's types in torch and, but for bfloat16, in numpy."""
_KINDS = {dtype: kind for kind, dtype in _TYPES.items()}
_SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

_MOST_HEADER = 1 << 24
"""Largest header in bytes, about 100,000 tensors: parsed JSON takes up to thirty times as much memory."""

_MOST_DIMENSIONS = 8

Entry = Tuple[str, str, List[int], int, int]
"""Name, type and shape of a tensor, and the offsets of its bytes behind the header."""


def shapes(path: str) -> Dict[str, List[int]]:
    """Return the shapes of a file's tensors by name; no tensor is read.

    Raises:
        OSError: if it can't be read.
        ValueError: if it violates the format.
    """
    with open(path, "rb") as file:
        return {name: shape for name, _, shape, _, _ in read_header(file, os.fstat(file.fileno()).st_size)[0]}


def metadata(path: str) -> Dict[str, str]:
    """Return the metadata of a file."""
    with open(path, "rb") as file:
        return read_header(file, os.fstat(file.fileno()).st_size)[1]


def read_header(file: BinaryIO, size: int) -> Tuple[List[Entry], Dict[str, str], int]:
    """Return the tensors in the order of their bytes, the metadata, and the offset of the first byte.

    Args:
        size: bytes of the file.

    Raises:
        ValueError: if it violates the format.
    """
    start = file.read(8)
    if len(start) < 8:
        raise ValueError("it has {} bytes, too few for a header".format(len(start)))
    (length,) = struct.unpack("<Q", start)
    if length > min(size - 8, _MOST_HEADER):
        raise ValueError("its header claims {} bytes, of {} that there are".format(length, size - 8))
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_repeats)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError("its header is no JSON") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts")
    entries = sorted((_entry(name, entry) for name, entry in header.items()), key=lambda entry: entry[3:])
    offset = 0
    for name, _, _, begin, end in entries:
        if begin != offset:
            raise ValueError("the bytes of {} begin at {}, not at {}".format(shown(name), begin, offset))
        offset = end
    if offset != size - 8 - length:
        raise ValueError("its tensors take {} bytes, of {} that there are".format(offset, size - 8 - length))
    return entries, metadata, 8 + length


def _without_repeats(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("its header names something twice")
    return table


def _entry(name: str, entry: Any) -> Entry:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("{} has not type, shape and place".format(shown(name)))
    kind, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError("{} has the unknown type {}".format(shown(name), shown(kind)))
    if not _counts(shape) or not _counts(place) or len(place) != 2:
        raise ValueError("{} has a shape or a place that are no whole numbers".format(shown(name)))
    elements = _elements(shape)
    begin, end = place
    if end - begin != elements * _SIZES[kind]:
        raise ValueError(
            "{} takes {} bytes, its shape needs {}".format(shown(name), end - begin, elements * _SIZES[kind])
        )
    return name, _TYPES[kind], shape, begin, end


def _counts(values: Any) -> bool:
    few = isinstance(values, list) and len(values) <= _MOST_DIMENSIONS
    return few and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def write(
    path: str,
    tensors: Sequence[Tuple[str, str, Sequence[int]]],
    data: Iterable[Any],
    texts: Optional[Mapping[str, str]] = None,
) -> None:
    """Write tensors and metadata ``texts`` to a temporary file, and atomically rename it to ``path``.

    Args:
        tensors: name, type and shape of each.
        data: the bytes of each in the same order. Each is written before the next is asked for, so that one at a time
            is in memory.

    Raises:
        OSError: if the file can't be written.
        ValueError: for a type that the format lacks.
    """
    header: Dict[str, Any] = {}
    if texts:
        header["__metadata__"] = dict(texts)
    sizes: List[int] = []
    offset = 0
    for name, dtype, shape in tensors:
        if dtype not in _KINDS:
            raise ValueError("{} is of {}, which the format has not".format(shown(name), dtype))
        size = _elements(shape) * _SIZES[_KINDS[dtype]]
        header[name] = {"dtype": _KINDS[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
        sizes.append(size)
        offset += size
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    temporary = "{}.part".format(path)
    with open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for size, part in zip(sizes, data):
            written = file.write(part)
            assert written == size, "a tensor's bytes are not those of its shape"
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(os.path.dirname(os.path.abspath(path)))


def _elements(shape: Sequence[int]) -> int:
    elements = 1
    for count in shape:
        elements *= count
    return elements


def _sync_folder(folder: str) -> None:
    """Flush a folder: a rename is durable only then. Windows opens no folders."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
