"""A machine with known rates, and the measurement that the calibration script would make on it.

Work and traffic of the cases are written by hand, independently of the traces of ``fit.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from farsearch.calibration.engine_steps import STEPS
from farsearch.calibration.measure.cases import BY_NUMPY, cases
from farsearch.calibration.measure.session import RESULT, RESULT_VERSION
from farsearch.calibration.measure.workloads import WORKLOADS, tiny_step, workload
from farsearch.cost.trace import meta_tensors, trace_call
from farsearch.devices.rates import ProductRate

__all__ = [
    "GRAPH_S",
    "KINDS",
    "LAUNCH_S",
    "OVERHEAD_S",
    "KnownMachine",
    "Work",
    "tiny_operations",
    "work_of",
    "workload_operations",
]

OVERHEAD_S = 2e-6
"""Of an operation outside autograd."""

LAUNCH_S = 9e-6
"""Of an operation within autograd."""

GRAPH_S = 3e-6
"""Of the run of a graph."""


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs of an operation, and bytes of its factors and result; for a stream, all bytes are in ``moved``."""

    kind: str
    flops: int = 0
    left: int = 0
    right: int = 0
    out: int = 0
    matrices: int = 1
    moved: int = 0


KINDS = {
    "add": "arithmetic", "scale": "arithmetic", "add_in_place": "in_place", "fill_masked": "masked",
    "clone": "copy", "split_heads": "copy", "zeros": "fill", "gelu": "activation", "gelu_backward": "activation",
    "softmax": "softmax", "layer_norm": "norm", "layer_norm_backward": "norm", "random_bits": "random",
    "bernoulli": "bernoulli", "sum_rows": "reduction", "sum_columns": "reduction", "embedding_gradient": "gather",
    "fused_adamw": "fused",
}  # fmt: skip
"""Expected kind of operation of each stream case."""

_STREAM_BYTES: Mapping[str, Callable[[int], float]] = {
    "add": lambda n: 3 * 4 * n,
    "scale": lambda n: 2 * 4 * n,
    "add_in_place": lambda n: 3 * 4 * n,
    "fill_masked": lambda n: 2 * 4 * n + n,  # the mask has one byte per element
    "clone": lambda n: 2 * 4 * n,
    "split_heads": lambda n: 2 * 4 * n,
    "zeros": lambda n: 2 * 4 * n,  # the template tensor counts as read
    "gelu": lambda n: 2 * 4 * n,
    "gelu_backward": lambda n: 3 * 4 * n,
    "softmax": lambda n: 2 * 4 * n,
    # 512 columns: weight and bias, mean and deviation of each row
    "layer_norm": lambda n: 4 * (2 * n + 2 * 512 + 2 * (n // 512)),
    "layer_norm_backward": lambda n: 4 * (3 * n + 2 * 512 + 2 * (n // 512) + 2 * 512),
    "random_bits": lambda n: 2 * 8 * (n // 4),  # words of 64 bits, each for the numbers of four masks
    "bernoulli": lambda n: 2 * 4 * n,
    "sum_rows": lambda n: 4 * (n + 512),
    "sum_columns": lambda n: 4 * (n + n // 512),
    "embedding_gradient": lambda n: 4 * (256 * 512 + n) + 8 * 256,
    # reads four tensors and a step count, writes all but the gradient and the count
    "fused_adamw": lambda n: 4 * (4 * n + 1) + 4 * (3 * n + 1),
}
"""Bytes read and written by each stream case of so many elements, arguments that are written counted as read too."""


def work_of(case: str, dims: tuple[int, ...]) -> Work:
    """Return the operation of a case: 2 m k n FLOPs of a product ``[m, k] @ [k, n]``, 4 bytes per number."""
    if case in _STREAM_BYTES:
        return Work(KINDS[case], moved=int(_STREAM_BYTES[case](*dims)))
    if case.startswith("gemm"):
        t, k, n = dims
        x, w, y = 4 * t * k, 4 * k * n, 4 * t * n
        sides = {"gemm_nt": (x, w, y), "gemm_nn": (y, w, x), "gemm_tn": (y, x, w)}
        return Work(case, 2 * t * k * n, *sides[case])
    b, length, h = dims
    scores, rows = 4 * b * length * length, 4 * b * length * h
    sides = {"bmm_nt": (rows, rows, scores), "bmm_nn": (scores, rows, rows), "bmm_tn": (scores, rows, rows)}
    return Work(case, 2 * b * length * length * h, *sides[case], matrices=b)


@cache
def workload_operations(name: str) -> tuple[Work, ...]:
    """Return the operations of a workload's step; ``test_calibration_cases`` checks their sums against formulas."""
    with meta_tensors():
        step = workload(name, meta_tensors())
    found = trace_call(step, []).operations
    return tuple(Work(op.kind, op.flops, op.left, op.right, op.out, op.matrices, op.bytes) for op in found)


@cache
def tiny_operations() -> int:
    """Return the number of operations of the tiny step."""
    with meta_tensors():
        step = tiny_step(meta_tensors())
    return len(trace_call(step, []).operations)


_RATES = {
    "gemm_nt": ProductRate(7.5, 0.05, 0.3, 0.1, 0.0, 4.0),
    "gemm_nn": ProductRate(8.0, 0.2, 0.25, 0.05, 0.0, 5.0),
    "gemm_tn": ProductRate(9.0, 0.1, 0.15, 0.4, 0.0, 6.0),
    "bmm_nt": ProductRate(15.0, 0.1, 0.1, 0.2, 0.5, 4.0),
    "bmm_nn": ProductRate(18.0, 0.3, 0.1, 0.1, 0.4, 5.0),
    "bmm_tn": ProductRate(20.0, 0.2, 0.1, 0.1, 0.6, 6.0),
}


@dataclasses.dataclass(frozen=True)
class KnownMachine:
    """A machine with product times linear in their work, and stream times that are a power of their bytes.

    Attributes:
        power: exponent of the bytes; 1 is a fixed bandwidth.
        ratios: of the workloads' times to the sum of their operations.
    """

    products: Mapping[str, ProductRate] = dataclasses.field(default_factory=lambda: dict(_RATES))
    us_per_mib: float = 200.0
    power: float = 1.0
    ratios: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(WORKLOADS, 1.0))

    def seconds(self, work: Work) -> float:
        """Return the seconds of an operation without its overhead."""
        if work.kind not in self.products:
            return float(1e-6 * self.us_per_mib * (work.moved / 2**20) ** self.power)
        rate = self.products[work.kind]
        gb = rate.s_per_gb_left * work.left + rate.s_per_gb_right * work.right + rate.s_per_gb_out * work.out
        overhead = rate.us_per_matrix * work.matrices + rate.us_per_call
        return rate.s_per_tflop * work.flops / 1e12 + gb / 1e9 + overhead / 1e6

    def result(self, **changes: Any) -> dict[str, Any]:
        """Return the result that the script would write.

        Args:
            changes: fields to replace; those of ``machine``, ``memory`` and ``launch`` are merged one by one.
        """
        everything = [*cases("products"), *cases("streams")]
        sustained = {}
        for name in WORKLOADS:
            seconds = self.ratios[name] * sum(LAUNCH_S + self.seconds(work) for work in workload_operations(name))
            # a cold start is faster; the final clock is used
            sustained[name] = {"seconds": 0.9 * seconds, "first": 0.8 * seconds, "last": seconds, "steps": 30}
        result: dict[str, Any] = {
            "what": RESULT,
            "schema_version": RESULT_VERSION,
            "date": "2025-03-02",
            "machine": {
                "kind": "cpu", "processor": "a processor for tests", "cores": 4, "threads": 2, "torch": "2.4.0",
                "python": "3.10.2", "memory_gib": 8,
            },
            "busy_cores": 0.0,
            "conditions": {
                "before": {"cpu_governor": "performance", "hottest_celsius": "41"},
                "after": {"cpu_governor": "performance", "hottest_celsius": "57"},
            },
            "memory": {
                "visible_mib": 8000.0, "others_mib": 1000.0, "process_mib": 400.0, "visible_is": "physical pages",
                "own": "torch and transformers",
            },
            "launch": {
                "operation": OVERHEAD_S, "tiny_step": LAUNCH_S * tiny_operations(), "optimizer_call": 9e-5,
                "batch_of_512_tokens": 2.56e-4,
            },
            "samples": [
                {
                    "case": case, "dims": list(dims), "rounds": 9,
                    "seconds": OVERHEAD_S + self.seconds(work_of(case, dims)),
                }
                for case, dims in everything
            ],
            "sustained": sustained,
            "took_s": 200.0,
        }  # fmt: skip
        for key, value in changes.items():
            result[key] = {**result[key], **value} if key in ("machine", "memory", "launch") else value
        return result

    def compiled_result(self, **changes: Any) -> dict[str, Any]:
        """Return the result that the script of the engine without torch would write.

        A graph's run has an overhead of ``GRAPH_S``, and each step takes 0.5 s.

        Args:
            changes: as of ``result``.
        """
        result = self.result()
        machine = {key: value for key, value in result["machine"].items() if key != "torch"}
        result["machine"] = {**machine, "onnxruntime": "1.22.0", "numpy": "2.1.3"}
        result["memory"].update(process_mib=60.0, own="numpy, onnxruntime and tokenizers")
        result["launch"].update(graph=GRAPH_S, tiny_step=0.01)
        for sample in result["samples"]:
            sample["seconds"] += 0.0 if sample["case"] in BY_NUMPY else GRAPH_S - OVERHEAD_S
        result["sustained"] = {name: {"seconds": 0.5, "first": 0.5, "last": 0.5, "steps": 30} for name in STEPS}
        for key, value in changes.items():
            result[key] = {**result[key], **value} if key in ("machine", "memory", "launch") else value
        return result
