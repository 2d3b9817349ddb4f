"""What differs on a device when another engine than torch executes the training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farsearch.devices.decoding import encode, encode_rates, made, read_figure, read_rates, read_table
from farsearch.devices.figure import Figure, check
from farsearch.devices.rates import Rates

__all__ = ["EngineFigures"]


@dataclass(frozen=True)
class EngineFigures:
    """Figures of one engine; everything else on the device is as with torch.

    Attributes:
        process_mib: memory of the training process outside its tensors.
        time_factor: factor of every predicted time. Without ``rates`` it is relative to the rates of torch, and its
            range is accordingly wide.
        rates: measured with this engine; None if unknown.

    Raises:
        ProfileError: for a factor of 0.
    """

    process_mib: Figure
    time_factor: Figure
    rates: Rates | None = None

    def __post_init__(self) -> None:
        check(self.time_factor.low > 0, f"time_factor.low is {self.time_factor.low:g}; it must be above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the table of the profile's file."""
        rates = {} if self.rates is None else {"rates": encode_rates(self.rates)}
        return {"process_mib": encode(self.process_mib), "time_factor": encode(self.time_factor), **rates}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> EngineFigures:
        """Return the figures in the table ``where`` of a profile's file.

        Raises:
            ProfileError: for an unknown or missing key, or an invalid value.
        """
        table = read_table(data, where, ("process_mib", "time_factor"), ("rates",))
        figures = {key: read_figure(table[key], f"{where}.{key}") for key in ("process_mib", "time_factor")}
        rates = read_rates(table["rates"], f"{where}.rates") if "rates" in table else None
        engine: EngineFigures = made(where, cls, **figures, rates=rates)
        return engine
