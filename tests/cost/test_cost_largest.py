"""The search for the largest batch: on any memory that grows with the rows, in few prices."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from farsearch.cost.largest import largest_batch
from farsearch.cost.pricer import Price

AVAILABLE = 1000.0


def price_of(mib: float) -> Price:
    """Return a price with that memory, of which the device has 1,000 MiB."""
    return Price(
        peak_memory_mib=mib, wall_time_s=1.0, energy_j=None, memory={}, time={}, trainable=1,
        feasible=mib <= AVAILABLE, tensor_peak_mib=mib, available_range_mib=(AVAILABLE, 2 * AVAILABLE),
        peak_memory_range_mib=(mib, mib), wall_time_range_s=(1.0, 1.0), step_time_s=1.0,
        problems=() if mib <= AVAILABLE else ("memory",),
    )  # fmt: skip


@given(
    static=st.floats(0, 1200),
    row=st.floats(0.001, 300),
    floor=st.floats(0, 1200),
    step=st.floats(0, 30),
    most=st.none() | st.integers(1, 500),
)
def test_the_largest_batch_fits_and_one_row_more_does_not(
    static: float, row: float, floor: float, step: float, most: int | None
) -> None:
    """Memory is a line above a floor, such as an optimizer's step, with a jump every 16 rows."""
    priced: dict[int, Price] = {}

    def price(rows: int) -> Price:
        mib = max(floor, static + row * rows + step * math.floor(rows / 16))
        priced[rows] = price_of(mib)
        return priced[rows]

    rows, limit = largest_batch(price, most), most or 2**16
    assert rows == 0 or price(rows).fits
    assert rows == limit or not price(rows + 1).fits
    assert len(priced) <= 5 * math.log2(limit + 1) + 3


def test_memory_that_is_linear_takes_five_prices() -> None:
    asked = []

    def price(rows: int) -> Price:
        asked.append(rows)
        return price_of(300 + 7.5 * rows)

    assert largest_batch(price) == 93
    assert len(asked) <= 5
