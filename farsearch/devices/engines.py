"""What differs on a device when another engine than torch executes the training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farsearch.devices.decoding import encode, encode_rates, made, read_figure, read_rates, read_table
from farsearch.devices.figure import Figure, check
from farsearch.devices.rates import Rates

__all__ = ["COMPUTE", "EngineFigures"]

COMPUTE = ("gemm_gflops", "bmm_gflops", "bandwidth_gbs", "launch_us", "step_us", "token_us")
"""Figures of a profile's ``[compute]`` that an engine may have measured for itself."""


@dataclass(frozen=True)
class EngineFigures:
    """Figures of one engine; everything else on the device is as with torch.

    Attributes:
        process_mib: memory of the training process outside its tensors.
        time_factor: factor of every predicted time. Without ``rates`` it is relative to the rates of torch, and its
            range is accordingly wide.
        rates: measured with this engine; None if unknown.
        gemm_gflops, bmm_gflops, bandwidth_gbs, launch_us, step_us, token_us: as in a profile, measured with this
            engine; None for those of torch.

    Raises:
        ProfileError: for a factor or a rate of 0.
    """

    process_mib: Figure
    time_factor: Figure
    rates: Rates | None = None
    gemm_gflops: Figure | None = None
    bmm_gflops: Figure | None = None
    bandwidth_gbs: Figure | None = None
    launch_us: Figure | None = None
    step_us: Figure | None = None
    token_us: Figure | None = None

    def __post_init__(self) -> None:
        for name, figure in self.figures().items():
            may_be_zero = name == "process_mib" or name.endswith("_us")
            check(may_be_zero or figure.low > 0, f"{name}.low is {figure.low:g}; it must be above 0")

    def figures(self) -> dict[str, Figure]:
        """Return the figures that are known, by the names of the profile's fields that they replace."""
        values = {name: getattr(self, name) for name in ("process_mib", "time_factor", *COMPUTE)}
        return {name: figure for name, figure in values.items() if figure is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the table of the profile's file."""
        rates = {} if self.rates is None else {"rates": encode_rates(self.rates)}
        return {**{name: encode(figure) for name, figure in self.figures().items()}, **rates}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> EngineFigures:
        """Return the figures in the table ``where`` of a profile's file.

        Raises:
            ProfileError: for an unknown or missing key, or an invalid value.
        """
        table = read_table(data, where, ("process_mib", "time_factor"), (*COMPUTE, "rates"))
        figures = {key: read_figure(value, f"{where}.{key}") for key, value in table.items() if key != "rates"}
        rates = read_rates(table["rates"], f"{where}.rates") if "rates" in table else None
        engine: EngineFigures = made(where, cls, **figures, rates=rates)
        return engine
