"""Save and load a split module as the modules that it replaces, in torch's state dicts."""

from typing import Any, Callable, Dict, List

from torch import Tensor

__all__ = ["load_merged", "save_merged"]


def save_merged(values: Dict[str, Tensor], destination: Any, prefix: str) -> None:
    """Write the merged tensors, as ``nn.Module._save_to_state_dict`` would before the split."""
    for name, value in values.items():
        destination[prefix + name] = value


def load_merged(
    values: Dict[str, Tensor],
    put: Callable[[str, Tensor], None],
    state_dict: Any,
    prefix: str,
    strict: bool,
    missing_keys: List[str],
    unexpected_keys: List[str],
    error_msgs: List[str],
) -> None:
    """Load the output of ``save_merged`` by ``put``, and report errors as ``nn.Module._load_from_state_dict``."""
    known = {prefix + name for name in values}
    for name, value in values.items():
        key = prefix + name
        if key not in state_dict:
            missing_keys.extend([key] if strict else [])
        elif state_dict[key].shape != value.shape:
            shapes = tuple(state_dict[key].shape), tuple(value.shape)
            error_msgs.append("size mismatch for {}: {} in the checkpoint, {} in the model".format(key, *shapes))
        else:
            put(name, state_dict[key])
    if strict:
        unexpected_keys.extend(key for key in state_dict if key.startswith(prefix) and key not in known)
