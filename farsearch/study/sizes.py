"""Defaults by model size: batch, length and learning rates, from search_spaces/sizes.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from farsearch.errors import BadInput, SpaceError
from farsearch.far.display import shown
from farsearch.json_records import Record
from farsearch.study.space_files import SIZES, read_yaml, shipped_text

__all__ = ["Rates", "Size", "read_sizes", "shipped_sizes", "size_of"]

_SCHEMA = 1


@dataclass(frozen=True)
class Rates(Record):
    """Learning rates, searched from ``low`` to ``high``.

    Attributes:
        full: first rate of full fine-tuning.
        frozen: first rate where most neurons are frozen.
    """

    low: float
    high: float
    full: float
    frozen: float

    def __post_init__(self) -> None:
        starts = sorted((self.full, self.frozen))
        if not 0 < self.low <= starts[0] <= starts[1] <= self.high < 1:
            raise BadInput(f"low {self.low} to high {self.high} must be above 0, and have full and frozen between them")


@dataclass(frozen=True)
class Size(Record):
    """Defaults of models up to a size.

    Attributes:
        batch_size: rows of a training step.
        max_length: upper bound of the tokens of a text.
        most_parameters: of the layers, without embeddings; None for the largest models.
    """

    name: str
    batch_size: int
    max_length: int
    learning_rate: Rates
    most_parameters: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_length < 4:
            raise BadInput(f"batch_size {self.batch_size} must be at least 1, max_length {self.max_length} at least 4")

    def holds(self, parameters: int) -> bool:
        """Return whether a model with so many parameters in its layers is at most of this size."""
        return self.most_parameters is None or parameters <= self.most_parameters


def read_sizes(where: str, data: Any) -> tuple[Size, ...]:
    """Read the sizes of a parsed YAML file, the smallest first. ``where`` names it in messages.

    Raises:
        SpaceError: naming the file, the size and the rule.
    """
    if not isinstance(data, Mapping) or set(data) != {"schema_version", "sizes"} or not data["sizes"]:
        raise SpaceError(f"{where} must be a table of schema_version and sizes only")
    if data["schema_version"] != _SCHEMA:
        raise SpaceError(f"{where} has schema_version {shown(data['schema_version'])}; it must be {_SCHEMA}")
    sizes = []
    for name, values in data["sizes"].items():
        try:
            sizes.append(Size.from_dict({**values, "name": str(name)}))
        except BadInput as error:
            raise SpaceError(f"{where}: {name}: {error}") from error
    bounds = [size.most_parameters for size in sizes]
    known = [bound for bound in bounds[:-1] if bound is not None]
    if bounds[-1] is not None or len(known) < len(bounds) - 1 or known != sorted(set(known)):
        raise SpaceError(f"{where}: most_parameters must grow from size to size, and the last must have none")
    return tuple(sizes)


@cache
def shipped_sizes() -> tuple[Size, ...]:
    """Return the shipped sizes, the smallest first."""
    return read_sizes(f"{SIZES}.yaml", read_yaml(f"{SIZES}.yaml", shipped_text(SIZES)))


def size_of(parameters: int) -> Size:
    """Return the size of a model with so many parameters in its layers, without embeddings."""
    return next(size for size in shipped_sizes() if size.holds(parameters))
