"""Batches of rows as numpy arrays, with the values of far/features.py's tensors."""

from typing import Dict, List, NamedTuple, Tuple

import numpy as np

from ...far.features import Features, padded_rows
from ..program_file import Program

__all__ = ["Batch", "make_batch"]

_LOWEST = np.finfo(np.float32).min


class Batch(NamedTuple):
    """Inputs of a program by the names of transformers' arguments, and the weights of the rows in the mean loss.

    ``class_weights`` is an input too, ``[classes]``, of programs whose loss has them.
    """

    inputs: Dict[str, np.ndarray]
    weights: Tuple[float, ...]

    def parts(self, size: int) -> List["Batch"]:
        """Return parts of ``size`` rows with the padding of all, without those of rows that all weigh nothing."""
        parts = []
        for start in range(0, len(self.weights), size):
            weights = self.weights[start : start + size]
            if sum(weights):  # the mean of no values is NaN
                inputs = {
                    name: value if name == "class_weights" else np.ascontiguousarray(value[start : start + size])
                    for name, value in self.inputs.items()
                }
                parts.append(Batch(inputs, weights))
        return parts


def make_batch(program: Program, features: Features, pad_id: int, learn: bool = True) -> Batch:
    """Return all rows of ``features`` in the form that the program takes, padded on the right.

    Args:
        pad_id: token id of the padding.
        learn: include the targets.
    """
    rows, weights = padded_rows(features, pad_id, learn)
    inputs: Dict[str, np.ndarray] = {}
    for entry in program.batch:
        if entry.form in ("targets", "classes") and not learn:
            continue
        if entry.form == "classes":
            inputs[entry.name] = np.array(features.class_weights, np.float32)
            continue
        if entry.name == "token_type_ids" and features.segments is None:
            inputs[entry.name] = np.zeros_like(inputs["input_ids"])
            continue
        value = np.array(rows[entry.name])
        value = value.astype(np.float32 if value.dtype.kind == "f" else np.int64, copy=False)
        if entry.form == "additive":
            value = np.where(value[:, None, None, :], np.float32(0.0), _LOWEST)
        inputs[entry.name] = value
    return Batch(inputs, weights)
