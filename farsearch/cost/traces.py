"""The traced layers of one model under one plan, in memory and in a file that processes and studies share."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import filelock
import numpy as np

from farsearch.cache import touch, trim
from farsearch.cost.layer_kinds import LayerKind
from farsearch.cost.operations import FEATURES
from farsearch.cost.segments import Part, Tensors
from farsearch.files import disk_errors, write_bytes

__all__ = ["Ends", "Layer", "Traces"]

_BOUND_MIB = 64.0
"""Size limit of the traces of all models. One model has about 1 MiB with all plans of a device."""


@dataclass(frozen=True)
class Layer:
    """A layer of one kind: its segments, its trained tensors, and its elements in 16 bits.

    ``half`` has of the last a constant and the slope in learners, without zero padding.
    """

    forward: Part
    release: Part
    backward: Part
    trained: Tensors
    half: tuple[float, float]


@dataclass(frozen=True)
class Ends:
    """The parts of a model outside of the layers above the lowest: embeddings, the lowest layer, the head.

    ``below`` and ``above`` are the trained tensors outside the layers, ``half`` are the elements in 16 bits there.
    """

    start: Part
    lowest: Layer
    head: Part
    backward_head: Part
    backward_embeddings: Part
    below: Tensors
    above: Tensors
    half: int


_T = TypeVar("_T", Part, Tensors)


class Traces:
    """The traced layers, and the ends of models by the kind of the lowest layer and the reach of the backward pass.

    Args:
        file: in a folder of the model's, shared with other processes; None for this one alone.

    Attributes:
        unused_bytes: of buffers that a compiled step does not take.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.layers: dict[LayerKind, Layer] = {}
        self.ends: dict[tuple[LayerKind, int], Ends] = {}
        self.unused_bytes = 0
        self._file = file
        self._interned: dict[tuple[Any, ...], Any] = {}

    def intern(self, new: _T) -> _T:
        """Intern by value, so that equal parts share cache entries."""
        numbers: list[Any] = [
            value.tobytes() if isinstance(value, np.ndarray) else value for value in vars(new).values()
        ]
        interned: _T = self._interned.setdefault((type(new), *numbers), new)
        return interned

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Read what other processes have traced, and write what the block adds; they wait meanwhile.

        Raises:
            MissingResource: when the file can't be written.
        """
        if self._file is None:
            yield
            return
        with disk_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self._file.with_suffix(".lock")):
            self._read(self._file)
            known = len(self.layers), len(self.ends)
            yield
            if known != (len(self.layers), len(self.ends)):
                write_bytes(self._file, self._packed())
                trim(self._file.parent.parent, _BOUND_MIB, {self._file})
            touch(self._file)

    def _packed(self) -> bytes:
        """Return the content of the file: parts and tensors, each once, and an index of what refers to them."""
        parts: dict[Part, int] = {}
        tensors: dict[Tensors, int] = {}

        def layer(each: Layer) -> list[float]:
            numbers = [parts.setdefault(part, len(parts)) for part in (each.forward, each.release, each.backward)]
            return [*numbers, tensors.setdefault(each.trained, len(tensors)), *each.half]

        def ends(each: Ends) -> list[float]:
            outside = each.start, each.head, each.backward_head, each.backward_embeddings
            numbers = [parts.setdefault(part, len(parts)) for part in outside]
            groups = [tensors.setdefault(group, len(tensors)) for group in (each.below, each.above)]
            return [*numbers, *layer(each.lowest), *groups, each.half]

        index = {
            "layers": [[*kind, *layer(each)] for kind, each in self.layers.items()],
            "ends": [[*kind, reach, *ends(each)] for (kind, reach), each in self.ends.items()],
            "unused_bytes": self.unused_bytes,
        }
        arrays: dict[str, Any] = {"index": np.frombuffer(json.dumps(index).encode(), dtype=np.uint8)}
        arrays |= _of_parts(list(parts)) | _of_tensors(list(tensors))
        file = BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def _read(self, file: Path) -> None:
        """Add the content of the file; one that is missing or damaged has none."""
        try:
            # not the file: numpy leaves a damaged one open
            with np.load(BytesIO(file.read_bytes()), allow_pickle=False) as content:
                index = json.loads(content["index"].tobytes())
                parts = [self.intern(part) for part in _parts(content)]
                tensors = [self.intern(group) for group in _tensors(content)]
            fields = len(LayerKind._fields)

            def layer(numbers: Sequence[Any]) -> Layer:
                forward, release, backward, trained, *half = numbers
                return Layer(parts[forward], parts[release], parts[backward], tensors[trained], (half[0], half[1]))

            for row in index["layers"]:
                self.layers.setdefault(LayerKind(*row[:fields]), layer(row[fields:]))
            for row in index["ends"]:
                start, head, backward_head, backward_embeddings, *lowest, below, above, half = row[fields + 1 :]
                ends = Ends(
                    parts[start], layer(lowest), parts[head], parts[backward_head], parts[backward_embeddings],
                    tensors[below], tensors[above], half,
                )  # fmt: skip
                self.ends.setdefault((LayerKind(*row[:fields]), row[fields]), ends)
            self.unused_bytes = index["unused_bytes"]
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
            return


def _of_parts(parts: Sequence[Part]) -> dict[str, Any]:
    """Return parts as arrays: most share most of their operations and sizes, so each of these is stored once."""
    events = np.concatenate([np.column_stack([part.event_kinds, part.events]) for part in parts])
    operations = np.concatenate(
        [
            np.column_stack([part.operation_kinds, part.categories, part.operations.reshape(-1, 5 * len(FEATURES))])
            for part in parts
        ]
    )
    arrays: dict[str, Any] = {
        "parts": np.array([[len(part.event_kinds), len(part.operation_kinds), part.width] for part in parts])
    }
    for name, rows in (("events", events), ("operations", operations)):
        arrays[name], which = np.unique(rows, axis=0, return_inverse=True)
        arrays[f"{name}_of"] = which.astype(np.int32)
    return arrays


def _parts(content: Mapping[str, Any]) -> Iterator[Part]:
    sizes = content["parts"]
    events, operations = (
        np.split(content[name][content[f"{name}_of"]], np.cumsum(sizes[:-1, column]))
        for column, name in enumerate(("events", "operations"))
    )
    for event, operation, (_, count, width) in zip(events, operations, sizes.tolist(), strict=True):
        yield Part(
            events=np.ascontiguousarray(event[:, 1:]),
            event_kinds=event[:, 0].astype(np.int64),
            operations=operation[:, 2:].reshape(count, len(FEATURES), 5),
            operation_kinds=operation[:, 0].astype(np.int64),
            categories=operation[:, 1].astype(np.int64),
            width=width,
        )


def _of_tensors(tensors: Sequence[Tensors]) -> dict[str, Any]:
    return {
        "tensors": np.array([[len(group.elements), group.width] for group in tensors]),
        "elements": np.concatenate([np.column_stack([group.matrices, group.elements]) for group in tensors]),
    }


def _tensors(content: Mapping[str, Any]) -> Iterator[Tensors]:
    sizes = content["tensors"]
    groups = np.split(content["elements"], np.cumsum(sizes[:-1, 0]))
    for group, (_, width) in zip(groups, sizes.tolist(), strict=True):
        yield Tensors(np.ascontiguousarray(group[:, 1:]), group[:, 0] > 0, width)
