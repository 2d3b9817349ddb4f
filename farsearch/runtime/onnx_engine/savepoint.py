"""The state of a phase on disk: trained tensors and the optimizer's arrays, by the names of far/savepoint.py."""

from typing import List, Mapping, Tuple

import numpy as np

from ...far.display import shown
from .optimizer import ArrayOptimizer
from .weights import map_tensors, write_tensors

__all__ = ["read_savepoint", "write_savepoint"]


def write_savepoint(
    path: str, trained: Mapping[str, np.ndarray], optimizer: ArrayOptimizer, texts: Mapping[str, str]
) -> None:
    """Write the state of a phase atomically, without a copy of it.

    Args:
        texts: metadata, such as the number of steps.

    Raises:
        OSError: if the file can't be written.
    """
    arrays = _arrays(trained, optimizer)
    write_tensors(
        path, [(name, "float32", array.shape) for name, array in arrays], (array for _, array in arrays), texts
    )


def read_savepoint(path: str, trained: Mapping[str, np.ndarray], optimizer: ArrayOptimizer) -> None:
    """Restore the state of a savepoint in place; nothing is changed unless all of it fits.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is damaged, or of another model or optimizer.
    """
    stored, arrays = map_tensors(path), dict(_arrays(trained, optimizer))
    for name in sorted(set(stored) ^ set(arrays)):
        raise ValueError("it {} {}".format("lacks" if name in arrays else "has the unknown", shown(name)))
    for name, array in arrays.items():
        if stored[name].shape != array.shape or stored[name].dtype != array.dtype:
            raise ValueError("{} has another shape or type than the model's".format(shown(name)))
    for name, array in arrays.items():
        array[...] = stored[name]


def _arrays(trained: Mapping[str, np.ndarray], optimizer: ArrayOptimizer) -> List[Tuple[str, np.ndarray]]:
    arrays = [("weight/" + name, array) for name, array in trained.items()]
    for name, state in optimizer.state.items():
        arrays += [("state/{}/{}".format(field, name), array) for field, array in state.items()]
    return arrays
