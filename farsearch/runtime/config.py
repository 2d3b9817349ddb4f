"""Checks of a model's ``config.json`` without transformers: references to code, and the sizes of the model.

A configuration is untrusted input. transformers allocates the model that it describes before any weights are compared,
and some values make transformers download code.
"""

import re
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..far.display import shown

__all__ = ["config_problem", "longest_text", "weights_problem"]

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
"""Range of each size, by its key in any family; the upper bounds are far above any published model."""

_OPTIONAL = ("num_labels", "attention_head_size", "head_dim", "conv_kernel_size", "pooler_hidden_size")
"""Sizes that may be null, when they follow from others."""

_KERNELS = (
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
    "experts_implementation", "_experts_implementation", "_experts_implementation_internal",
)  # fmt: skip
"""Keys that choose an implementation; given a repository, transformers downloads and runs its code."""

_IMPLEMENTATION = re.compile("[a-z0-9_]{1,40}")

_CODE = ("quantization_config", "kernel_config", "use_kernels")
"""Keys that choose a library that replaces modules of the model."""

_MODEL_TYPE = re.compile("[A-Za-z0-9_.-]{1,60}")


def config_problem(values: Any) -> Optional[str]:
    """Return why a model of this configuration must not be loaded, in one line, or None.

    Args:
        values: the parsed JSON of ``config.json``. ``model_type`` and ``auto_map`` are left to callers that can ask
            transformers which types it knows.
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
    """The configuration and all objects nested in it."""
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
                return "{} is {}; only a plain name is loaded, as eager or sdpa, no foreign code".format(
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


_SHIFTED = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Families whose positions start behind the padding id."""


def longest_text(values: Mapping[str, Any]) -> int:
    """Return the maximum number of tokens of a text.

    Args:
        values: the configuration, completed with transformers' defaults.
    """
    positions = int(values.get("max_position_embeddings") or _POSITIONS)
    padding = values.get("pad_token_id") if values.get("model_type") in _SHIFTED else -1
    return positions - (padding if type(padding) is int else 0) - 1


def weights_problem(values: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> Optional[str]:
    """Return why the weights can't be those of a configuration, in one line, or None.

    The check uses a lower bound of the model's size, so that no model is allocated that is much larger than its files.

    Args:
        values: the configuration, completed with transformers' defaults.
        shapes: shapes of the tensors by name.
    """
    problem = config_problem(dict(values))
    if problem:
        return problem
    available = 0
    for shape in shapes.values():
        elements = 1
        for count in shape:
            elements *= count
        available += elements
    for name, elements in _least_elements(values).items():
        if elements > available:
            return "its {} ask for {:,} numbers, its weights have {:,}".format(name, elements, available)
    tensors = _size(values, "num_hidden_layers", "n_layers") * _size(values, "num_feedforward_networks") * 2
    if tensors > len(shapes):
        return "its layers ask for {:,} tensors, its weights have {:,}".format(tensors, len(shapes))
    return None


def _size(values: Mapping[str, Any], *names: str) -> int:
    """The first of these sizes that is set, or 1."""
    sizes = (values.get(name) for name in names)
    return next((value for value in sizes if type(value) is int and value > 0), 1)


def _least_elements(values: Mapping[str, Any]) -> Dict[str, int]:
    """Lower bounds of the elements of parts of a model, by the names of the sizes that determine them."""
    width = _size(values, "hidden_size", "dim")
    inner = _size(values, "intra_bottleneck_size") if values.get("use_bottleneck") else width
    layers, wide = _size(values, "num_hidden_layers", "n_layers"), _size(values, "intermediate_size", "hidden_dim")
    embedded = _size(values, "embedding_size") if "embedding_size" in values else width
    pooled = _size(values, "pooler_hidden_size")
    labels = values.get("id2label")
    least = {
        "vocabulary and width": _size(values, "vocab_size") * embedded,
        "layers": layers * _size(values, "num_feedforward_networks") * (2 * inner * wide + inner * inner),
        "types and width": _size(values, "type_vocab_size") * min(width, embedded),
        "pooler": pooled * pooled,
        "convolution": _size(values, "conv_kernel_size") * width,
        "relative positions": _size(values, "relative_attention_num_buckets"),
        "labels": len(labels) if isinstance(labels, dict) else 1,
    }
    if values.get("model_type") != "modernbert" and values.get("position_biased_input", True):
        least["positions and width"] = _size(values, "max_position_embeddings") * min(width, embedded)
    if values.get("relative_attention"):
        least["relative positions"] = _size(values, "position_buckets", "max_relative_positions") * width
    return least
