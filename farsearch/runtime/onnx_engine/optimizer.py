"""AdamW and SGD in numpy, in place, equal to torch's up to rounding (far/optimizer.py has the settings)."""

from typing import Dict, Iterator, Mapping, Tuple

import numpy as np

__all__ = ["FIELDS", "ArrayOptimizer", "accumulate", "clip"]

FIELDS: Mapping[str, Tuple[str, ...]] = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ()}
"""Arrays of the state of a tensor by kind of optimizer, as torch calls them."""

_WEIGHT_DECAY, _BETA_1, _BETA_2, _EPSILON = 0.01, 0.9, 0.999, 1e-8

_BLOCK = 1 << 14
"""Elements stepped together: their temporaries stay in the cache."""


class ArrayOptimizer:
    """AdamW, or SGD without momentum, of float32 arrays, which are changed in place, one array at a time.

    Matrices are decayed by 0.01, vectors (biases, LayerNorm) are not.

    Attributes:
        state: arrays of ``FIELDS`` by the name of a tensor; zero at the start.

    Args:
        kind: ``adamw`` or ``sgd``.
        arrays: contiguous trained tensors by name.
    """

    def __init__(self, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        self.kind, self._arrays = kind, arrays
        self.state: Dict[str, Dict[str, np.ndarray]] = {
            name: {field: np.zeros_like(array) for field in FIELDS[kind]} for name, array in arrays.items()
        }
        self._scratch = np.empty((2, _BLOCK), np.float32)

    def step(self, name: str, gradient: np.ndarray, step: int, rate: float) -> None:
        """Step one tensor.

        Args:
            gradient: of the tensor's shape, contiguous; not changed.
            step: number of the step, counted from 0.
            rate: learning rate.
        """
        array = self._arrays[name]
        decay = _WEIGHT_DECAY if array.ndim > 1 else 0.0
        if self.kind == "adamw":
            self._adamw(name, gradient, step + 1, rate, decay)
            return
        for value, g in _blocks(array, gradient):
            change = self._scratch[0, : len(g)]
            np.multiply(value, np.float32(decay), out=change)
            change += g
            change *= np.float32(rate)
            value -= change

    def _adamw(self, name: str, gradient: np.ndarray, count: int, rate: float, decay: float) -> None:
        """Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, in torch's order of operations."""
        state = self.state[name]
        # float32 scalars, so that numpy before 2.0 computes as later versions do
        kept = np.float32(1.0 - rate * decay)
        size = np.float32(rate / (1.0 - _BETA_1**count))
        root = np.float32((1.0 - _BETA_2**count) ** 0.5)
        new_1, old_2, new_2 = np.float32(1.0 - _BETA_1), np.float32(_BETA_2), np.float32(1.0 - _BETA_2)
        epsilon = np.float32(_EPSILON)
        for value, g, mean, square in _blocks(self._arrays[name], gradient, state["exp_avg"], state["exp_avg_sq"]):
            first, second = self._scratch[0, : len(g)], self._scratch[1, : len(g)]
            np.subtract(g, mean, out=first)
            first *= new_1
            mean += first
            np.multiply(g, g, out=first)
            first *= new_2
            square *= old_2
            square += first
            np.sqrt(square, out=first)
            first /= root
            first += epsilon
            np.multiply(mean, size, out=second)
            second /= first
            value *= kept
            value -= second


def accumulate(total: np.ndarray, gradient: np.ndarray, weight: float) -> None:
    """Add a weighted gradient to ``total`` in place, without a temporary of its size."""
    scaled = np.empty(_BLOCK, np.float32)
    for part, g in _blocks(total, gradient):
        np.multiply(g, np.float32(weight), out=scaled[: len(g)])
        part += scaled[: len(g)]


def clip(gradients: Mapping[str, np.ndarray], norm: float) -> None:
    """Scale gradients in place so that all, taken as one vector, have at most this norm, as torch's clip_grad_norm_."""
    squares = 0.0
    for gradient in gradients.values():
        squares += sum(float(np.dot(block, block)) for (block,) in _blocks(gradient))
    scale = norm / (squares**0.5 + 1e-6)
    if scale < 1.0:
        for gradient in gradients.values():
            gradient *= np.float32(scale)


def _blocks(*arrays: np.ndarray) -> Iterator[Tuple[np.ndarray, ...]]:
    """Views of the same elements of contiguous arrays of one shape, block after block."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, len(flat[0]), _BLOCK):
        yield tuple(array[start : start + _BLOCK] for array in flat)
