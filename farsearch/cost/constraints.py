"""Constraints on the costs of a configuration: the memory of the device, and the user's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from farsearch.cost.segments import Array
from farsearch.devices.profile import Profile
from farsearch.far.display import shown_seconds

__all__ = ["Constraints", "Peaks"]


class Peaks(NamedTuple):
    """Predicted costs to which constraints apply, ``[configurations]`` each.

    ``high_memory_mib`` is the high end of the range of ``memory_mib``.
    """

    high_memory_mib: Array
    memory_mib: Array
    time_s: Array


@dataclass(frozen=True)
class Constraints:
    """Upper limits of costs on a device.

    Attributes:
        profile: of the device, whose memory is a limit too.
        max_memory_mib, max_time_s: limits of the user; None for no limit.
    """

    profile: Profile
    max_memory_mib: float | None = None
    max_time_s: float | None = None

    def fits(self, peaks: Peaks) -> NDArray[np.bool_]:
        """Return which configurations satisfy all constraints."""
        return np.asarray(np.logical_and.reduce([values <= limit for values, limit, *_ in self._limits(peaks)]))

    def problems(self, peaks: Peaks) -> tuple[str, ...]:
        """Return a message for each constraint that the first configuration violates."""
        return tuple(
            message.format(shown(float(values[0])), shown(limit))
            for values, limit, message, shown in self._limits(peaks)
            if values[0] > limit
        )

    def _limits(self, peaks: Peaks) -> Iterator[tuple[Array, float, str, Callable[[float], str]]]:
        """Values, their limit, the message where they exceed it, and the format of both in that."""
        mib: Callable[[Any], str] = "{:.0f} MiB".format
        message = f"memory: up to {{}}, {self.profile.name} surely has {{}}"
        yield peaks.high_memory_mib, self.profile.available_mib[0], message, mib
        if self.max_memory_mib is not None:
            yield peaks.memory_mib, self.max_memory_mib, "max-memory: {}, allowed are {}", mib
        if self.max_time_s is not None:
            yield peaks.time_s, self.max_time_s, "max-time: {}, allowed are {}", shown_seconds
