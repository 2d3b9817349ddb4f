"""Checks of a model's ``config.json`` that need no vendor: what it names as code, and the sizes that it asks for.

A configuration comes from others. transformers builds what it asks for before any weights are compared, and some of its
values make transformers fetch code.
"""

import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..shown import shown

__all__ = ["config_problem"]

_LAYERS, _WIDTH, _HEADS, _VOCABULARY, _POSITIONS, _OTHERS = 1024, 1 << 17, 4096, 1 << 22, 1 << 20, 1 << 16

_SIZES = {
    "num_hidden_layers": (1, _LAYERS), "n_layers": (1, _LAYERS),
    "hidden_size": (1, _WIDTH), "dim": (1, _WIDTH), "embedding_size": (1, _WIDTH), "true_hidden_size": (1, _WIDTH),
    "intra_bottleneck_size": (1, _WIDTH), "pooler_hidden_size": (1, _WIDTH),
    "intermediate_size": (1, _WIDTH), "hidden_dim": (1, _WIDTH),
    "num_attention_heads": (1, _HEADS), "n_heads": (1, _HEADS), "attention_head_size": (1, _WIDTH),
    "head_dim": (1, _WIDTH),
    "vocab_size": (1, _VOCABULARY), "type_vocab_size": (0, _OTHERS), "num_labels": (1, _OTHERS),
    "max_position_embeddings": (1, _POSITIONS), "max_relative_positions": (-1, _POSITIONS),
    "position_buckets": (-1, _POSITIONS), "relative_attention_num_buckets": (1, _OTHERS),
    "num_feedforward_networks": (1, 64), "num_hidden_groups": (1, _LAYERS), "inner_group_num": (1, 64),
    "conv_kernel_size": (0, 1024), "chunk_size_feed_forward": (0, _POSITIONS), "local_attention": (1, _POSITIONS),
    "global_attn_every_n_layers": (1, _LAYERS),
}  # fmt: skip
"""Smallest and largest value of each size, in all spellings of the families; far above any published model."""

_OPTIONAL = ("num_labels", "attention_head_size", "head_dim", "conv_kernel_size", "pooler_hidden_size")
"""Sizes that may also be null, which means that they follow from others."""

_KERNELS = (
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "_experts_implementation", "_experts_implementation_internal",
)  # fmt: skip
"""Keys that choose an implementation; a name of a repository makes transformers download and run it."""

_IMPLEMENTATION = re.compile("[a-z0-9_]{1,40}")

_CODE = ("quantization_config", "kernel_config", "use_kernels")
"""Keys that choose a library which replaces modules of the model."""

_MODEL_TYPE = re.compile("[A-Za-z0-9_.-]{1,60}")


def config_problem(values: Any) -> Optional[str]:
    """Return why a model of this configuration must not be loaded, in one line, or None.

    Args:
        values: the parsed JSON of ``config.json``. Whether transformers knows its ``model_type``, and so needs no
            ``auto_map``, is left to whoever imports transformers.
    """
    if not isinstance(values, dict):
        return "it is {}, not a table".format(shown(values))
    model_type = values.get("model_type")
    if not isinstance(model_type, str) or not _MODEL_TYPE.fullmatch(model_type):
        return "model_type is {}; it must be the name of a family".format(shown(model_type))
    for table in _tables(values):
        problem = _code_problem(table) or _size_problem(table)
        if problem:
            return problem
    return None


def _tables(values: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
    """The configuration and all tables nested in it."""
    left: List[Any] = [values]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _code_problem(table: Dict[str, Any]) -> Optional[str]:
    for key in _CODE:
        if table.get(key):
            return "it has {}, which replaces parts of the model; save the model without it".format(key)
    for key in _KERNELS:
        chosen = table.get(key)
        # transformers also takes a table, of the sub-configurations' choices
        for name in chosen.values() if isinstance(chosen, dict) else [chosen]:
            if name is not None and not (isinstance(name, str) and _IMPLEMENTATION.fullmatch(name)):
                return "{} is {}; only a plain name is loaded, as eager or sdpa, no code of others".format(
                    key, shown(name)
                )
    return None


def _size_problem(table: Dict[str, Any]) -> Optional[str]:
    for key, limits in _SIZES.items():
        if key in table and not (table[key] is None and key in _OPTIONAL):
            problem = _outside(table[key], limits)
            if problem:
                return "{} is {}; {}".format(key, shown(table[key]), problem)
    return None


def _outside(value: Any, limits: Tuple[int, int]) -> Optional[str]:
    least, most = limits
    if type(value) is int and least <= value <= most:
        return None
    return "it must be a whole number from {} to {}".format(least, most)
