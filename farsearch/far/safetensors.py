"""Read and write safetensors files with torch and the standard library: the package does not support old Pythons.

A file consists of eight bytes with the size of its header, the header (JSON: type, shape and offsets of each tensor),
and the tensors' bytes one after another. All rules of the format are checked before a tensor is read, so that a header
can't make the reader allocate more memory than the size of the file, or return the same bytes twice.
"""

import json
import os
import struct
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, List, Mapping, Optional, Tuple

from .display import shown

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load", "metadata", "read", "save", "shapes"]

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
"""torch's names of the format's types."""
_NAMES = {"torch." + dtype: name for name, dtype in _TYPES.items()}
_SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

_MOST_HEADER = 1 << 24
"""Largest header in bytes, about 100,000 tensors: parsed JSON takes up to thirty times as much memory."""

_MOST_DIMENSIONS = 8

Entry = Tuple[str, str, List[int], int, int]
"""Name, type and shape of a tensor, and the offsets of its bytes behind the header."""


def load(path: str) -> "Dict[str, Tensor]":
    """Return all tensors of a file by name.

    Raises:
        OSError: if it can't be read.
        ValueError: if it violates the format.
    """
    return dict(read(path))


def read(path: str) -> "Iterator[Tuple[str, Tensor]]":
    """Yield the tensors of a file one at a time, so that only one is in memory beside its destination."""
    import torch

    with open(path, "rb") as file:
        entries, _, data = _header(file, os.fstat(file.fileno()).st_size)
        for name, kind, shape, begin, end in entries:
            dtype = getattr(torch, kind)
            file.seek(data + begin)
            buffer = bytearray(end - begin)
            if file.readinto(buffer) != end - begin:
                raise ValueError("the file was cut while it was read")
            # an empty buffer has no address
            flat = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
            yield name, flat.reshape(shape)


def shapes(path: str) -> Dict[str, List[int]]:
    """Return the shapes of a file's tensors by name; no tensor is read.

    Raises:
        OSError, ValueError: as ``load``.
    """
    with open(path, "rb") as file:
        return {name: shape for name, _, shape, _, _ in _header(file, os.fstat(file.fileno()).st_size)[0]}


def metadata(path: str) -> Dict[str, str]:
    """Return the metadata of a file."""
    with open(path, "rb") as file:
        return _header(file, os.fstat(file.fileno()).st_size)[1]


def _header(file: BinaryIO, size: int) -> Tuple[List[Entry], Dict[str, str], int]:
    """Return the tensors in the order of their bytes, the metadata, and the offset of the first byte."""
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
    elements = 1
    for count in shape:
        elements *= count
    begin, end = place
    if end - begin != elements * _SIZES[kind]:
        raise ValueError(
            "{} takes {} bytes, its shape needs {}".format(shown(name), end - begin, elements * _SIZES[kind])
        )
    return name, _TYPES[kind], shape, begin, end


def _counts(values: Any) -> bool:
    few = isinstance(values, list) and len(values) <= _MOST_DIMENSIONS
    return few and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def save(path: str, tensors: "Mapping[str, Tensor]", texts: Optional[Mapping[str, str]] = None) -> None:
    """Write tensors and metadata ``texts`` to a temporary file, and atomically rename it to ``path``.

    Raises:
        OSError: if the file can't be written.
        ValueError: for a type that the format lacks.
    """
    header: Dict[str, Any] = {}
    if texts:
        header["__metadata__"] = dict(texts)
    offset = 0
    for name, tensor in tensors.items():
        if str(tensor.dtype) not in _NAMES:
            raise ValueError("{} is of {}, which the format has not".format(shown(name), tensor.dtype))
        kind = _NAMES[str(tensor.dtype)]
        size = tensor.numel() * _SIZES[kind]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    temporary = "{}.part".format(path)
    with open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(_bytes(tensor))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(os.path.dirname(os.path.abspath(path)))


def _bytes(tensor: "Tensor") -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # numpy has no bfloat16
    plain = flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat
    return plain.numpy().tobytes()


def _sync_folder(folder: str) -> None:
    """Flush a folder: a rename is durable only then."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
