"""The reader and writer of safetensors files: compatible with the package in both directions, and strict."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from farsearch.far.safetensors import load, save
from farsearch.far.tensor_file import metadata

TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool,
)  # fmt: skip


@st.composite
def tensor_files(draw: st.DrawFn) -> dict[str, Tensor]:
    """Strategy: tensors of any type and shape, including empty ones and scalars."""
    names = draw(st.lists(st.text(min_size=1, max_size=8), max_size=4, unique=True))
    shapes = st.lists(st.integers(0, 4), max_size=3)
    return {
        name: torch.randint(0, 2, draw(shapes)).to(draw(st.sampled_from(TYPES)))
        for name in names
        if name != "__metadata__"
    }


@given(tensor_files())
def test_compatible_with_the_package_in_both_directions(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]
) -> None:
    """Types, shapes and bytes are equal."""
    folder = tmp_path_factory.mktemp("files")
    safetensors.torch.save_file(tensors, folder / "theirs", metadata={"who": "they"})
    save(str(folder / "ours"), tensors, {"who": "we"})
    for found in (load(str(folder / "theirs")), safetensors.torch.load_file(folder / "ours")):
        assert found.keys() == tensors.keys()
        for name, value in tensors.items():
            assert found[name].dtype == value.dtype
            assert found[name].shape == value.shape
            assert torch.equal(found[name], value)
    assert metadata(str(folder / "ours")) == {"who": "we"}
    assert metadata(str(folder / "theirs")) == {"who": "they"}


def written(folder: Path, header: Any, data: bytes = b"\0" * 8, claimed: int | None = None) -> str:
    """Write a file of that header, valid or not, and these bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "broken.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if claimed is None else claimed) + text + data)
    return str(path)


def entry(**changes: Any) -> dict[str, Any]:
    """The header's entry of a tensor of two floats."""
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


BROKEN: dict[str, tuple[Callable[[Path], str], str]] = {
    "a header longer than the file": (lambda f: written(f, entry(), claimed=1 << 40), "claims 1099511627776 bytes"),
    "no json": (lambda f: written(f, b"{"), "Expecting"),
    "no utf-8": (lambda f: written(f, b"\xff\xfe"), "no JSON"),
    "no table": (lambda f: written(f, []), "no table"),
    "a name twice": (lambda f: written(f, b'{"a":1,"a":2}'), "twice"),
    "bytes that are nobody's": (lambda f: written(f, entry(), b"\0" * 9), "take 8 bytes, of 9"),
    "bytes that are missing": (lambda f: written(f, entry(), b"\0" * 7), "take 8 bytes, of 7"),
    "a gap": (lambda f: written(f, entry(data_offsets=[8, 16]), b"\0" * 16), "begin at 8, not at 0"),
    "an overlap": (lambda f: written(f, {**entry(), "b": entry()["a"]}), "begin at 0, not at 8"),
    "another size": (lambda f: written(f, entry(shape=[3])), "takes 8 bytes, its shape needs 12"),
    "a huge shape": (lambda f: written(f, entry(shape=[1 << 60, 1 << 60])), "its shape needs"),
    "a negative shape": (lambda f: written(f, entry(shape=[-2])), "no whole numbers"),
    "a shape of booleans": (lambda f: written(f, entry(shape=[True, True])), "no whole numbers"),
    "an unknown type": (lambda f: written(f, entry(dtype="F8")), "unknown type 'F8'"),
    "an extra key": (lambda f: written(f, entry(more=1)), "has not type, shape and place"),
    "metadata that are no texts": (lambda f: written(f, {"__metadata__": {"a": 1}}, b""), "no texts"),
    "a deep header": (lambda f: written(f, b"[" * 100_000), "JSON"),
}


@pytest.mark.parametrize(("make", "named"), BROKEN.values(), ids=BROKEN)
def test_malformed_files_are_refused(tmp_path: Path, make: Callable[[Path], str], named: str) -> None:
    """Before any tensor is made, with the problem in the message."""
    with pytest.raises(ValueError, match=named):
        load(make(tmp_path))


def test_a_short_file_is_refused(tmp_path: Path) -> None:
    """Too short for the header's own length."""
    (tmp_path / "short").write_bytes(b"\1\2")
    with pytest.raises(ValueError, match="2 bytes, too few"):
        load(str(tmp_path / "short"))


def test_writing_is_atomic(tmp_path: Path) -> None:
    """With an unsupported type the old file is unchanged, and no temporary file is left."""
    path = tmp_path / "weights"
    save(str(path), {"a": torch.ones(2)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="complex"):
        save(str(path), {"a": torch.ones(2, dtype=torch.complex64)})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]
