"""Measured rates of the kinds of operations of a training step.

A data sheet has one number for all products and one for all streams. A calibrated profile has a rate for each kind of
operation as a function of its size: narrow products are slower per FLOP than wide ones, small tensors stay in a cache
and large ones need new pages, random numbers take longer than sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from farsearch.errors import ProfileError

__all__ = ["HALF_PRODUCTS", "PRODUCTS", "STREAMS", "ProductRate", "Rates", "StreamRate"]

PRODUCTS = ("gemm_nn", "gemm_nt", "gemm_tn", "bmm_nn", "bmm_nt", "bmm_tn")
"""Products of matrices and of batches of them. ``nt``: the right factor is transposed, ``tn``: the left."""

HALF_PRODUCTS = {f"{half}_{kind}": (half, kind) for half in ("bfloat16", "float16") for kind in PRODUCTS}
"""Products with factors of 16 bits: their type, and the product in float32 whose rate times the speedup of the type is
theirs."""

STREAMS = (
    "arithmetic",
    "in_place",
    "masked",
    "copy",
    "fill",
    "activation",
    "softmax",
    "norm",
    "random",
    "bernoulli",
    "reduction",
    "gather",
    "fused",
)
"""Other operations. ``arithmetic`` makes a new tensor, ``in_place`` does not; ``masked`` writes where a mask is true;
``random`` draws bits, ``bernoulli`` masks; ``fused`` is an optimizer's own kernel."""


@dataclass(frozen=True)
class ProductRate:
    """Seconds of a product, linear in its work and its bytes: large products are bound by FLOPs, narrow ones by bytes.

    Attributes:
        s_per_tflop: an addition and a multiplication are 2 operations.
        s_per_gb_left, s_per_gb_right, s_per_gb_out: of the factors and the result, 10^9 bytes.
        us_per_matrix: of each matrix of a batch.
        us_per_call: in addition to the overhead of every operation.
    """

    s_per_tflop: float
    s_per_gb_left: float
    s_per_gb_right: float
    s_per_gb_out: float
    us_per_matrix: float
    us_per_call: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _check(math.isfinite(value) and value >= 0, f"{name} is {value:g}; it must be a number of at least 0")
        _check(any(vars(self).values()), "s_per_tflop is 0 like all others; a product must take some time")


@dataclass(frozen=True)
class StreamRate:
    """Time of an element-wise operation by the bytes that it reads and writes.

    Attributes:
        mib: measured sizes, ascending.
        us: microseconds at each of them, in addition to the overhead of every operation.
    """

    mib: tuple[float, ...]
    us: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = f"mib has {len(self.mib)} numbers and us {len(self.us)}"
        _check(len(self.mib) == len(self.us) > 0, f"{sizes}; each size needs one time, and there must be one at least")
        for name, values in (("mib", self.mib), ("us", self.us)):
            wrong = [value for value in values if not (math.isfinite(value) and value > 0)]
            _check(not wrong, f"{name} has {wrong[0] if wrong else 0:g}; all must be finite and above 0")
        ascending = all(a < b for a, b in zip(self.mib, self.mib[1:], strict=False))
        _check(ascending, f"mib is {list(self.mib)}; it must ascend")


@dataclass(frozen=True)
class Rates:
    """Rates measured by the calibration of a device.

    Attributes:
        conditions: of the measurement: date, versions, threads, clocks, power mode.
        bare_us: overhead of an operation outside autograd, such as an optimizer's.
        products, streams: by kind; a missing kind is predicted from the profile's general figures.
    """

    conditions: Mapping[str, str]
    bare_us: float
    products: Mapping[str, ProductRate]
    streams: Mapping[str, StreamRate]

    def __post_init__(self) -> None:
        right = math.isfinite(self.bare_us) and self.bare_us >= 0
        _check(right, f"bare_us is {self.bare_us:g}; it must be a number of at least 0")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ProfileError(message)
