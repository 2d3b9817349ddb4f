"""The state of a phase on disk: trained tensors and the optimizer's arrays, by the names of far/savepoint.py."""

from typing import Dict, List, Mapping, Tuple

import numpy as np

from ...far.display import shown
from .optimizer import ArrayOptimizer
from .weights import map_tensors, write_tensors

__all__ = ["read_savepoint", "write_savepoint"]

_BEST = "best/"


def write_savepoint(
    path: str, trained: Mapping[str, np.ndarray], optimizer: ArrayOptimizer, texts: Mapping[str, str],
    best: Mapping[str, np.ndarray],
) -> None:  # fmt: skip
    """Write the state of a phase atomically, without a copy of it.

    Args:
        texts: metadata, such as the number of steps.
        best: trained arrays of the best state by name; empty without one.

    Raises:
        OSError: if the file can't be written.
    """
    arrays = _arrays(trained, optimizer) + [(_BEST + name, array) for name, array in best.items()]
    write_tensors(
        path, [(name, "float32", array.shape) for name, array in arrays], (array for _, array in arrays), texts
    )


def read_savepoint(path: str, trained: Mapping[str, np.ndarray], optimizer: ArrayOptimizer) -> Dict[str, np.ndarray]:
    """Restore the state of a savepoint in place; nothing is changed unless all of it fits.

    Returns:
        the trained arrays of the best state by name, mapped; empty without one.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is damaged, or of another model or optimizer.
    """
    stored, arrays = map_tensors(path), dict(_arrays(trained, optimizer))
    best = {name[len(_BEST) :]: stored.pop(name) for name in list(stored) if name.startswith(_BEST)}
    for name in sorted(set(stored) ^ set(arrays)):
        raise ValueError("it {} {}".format("lacks" if name in arrays else "has the unknown", shown(name)))
    for name, array in arrays.items():
        if stored[name].shape != array.shape or stored[name].dtype != array.dtype:
            raise ValueError("{} has another shape or type than the model's".format(shown(name)))
    for name, array in arrays.items():
        array[...] = stored[name]
    return best


def _arrays(trained: Mapping[str, np.ndarray], optimizer: ArrayOptimizer) -> List[Tuple[str, np.ndarray]]:
    arrays = [("weight/" + name, array) for name, array in trained.items()]
    for name, state in optimizer.state.items():
        arrays += [("state/{}/{}".format(field, name), array) for field, array in state.items()]
    return arrays
