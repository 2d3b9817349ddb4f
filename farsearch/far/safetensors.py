"""Read and write safetensors files with torch (tensor_file.py): the package does not support old Pythons."""

import os
from typing import TYPE_CHECKING, Dict, Iterator, Mapping, Optional, Tuple

from .tensor_file import read_header, write

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["load", "read", "save"]


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
        entries, _, data = read_header(file, os.fstat(file.fileno()).st_size)
        for name, kind, shape, begin, end in entries:
            dtype = getattr(torch, kind)
            file.seek(data + begin)
            buffer = bytearray(end - begin)
            if file.readinto(buffer) != end - begin:
                raise ValueError("the file was cut while it was read")
            # an empty buffer has no address
            flat = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
            yield name, flat.reshape(shape)


def save(path: str, tensors: "Mapping[str, Tensor]", texts: Optional[Mapping[str, str]] = None) -> None:
    """Write tensors and metadata ``texts`` as ``tensor_file.write`` does.

    Raises:
        OSError, ValueError: as ``write``.
    """
    kinds = [(name, str(tensor.dtype)[len("torch.") :], list(tensor.shape)) for name, tensor in tensors.items()]
    write(path, kinds, (_bytes(tensor) for tensor in tensors.values()), texts)


def _bytes(tensor: "Tensor") -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # numpy has no bfloat16
    plain = flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat
    return plain.numpy().tobytes()
