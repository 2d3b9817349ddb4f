"""Low-rank adapters in a model's attention. The only home of peft."""

from __future__ import annotations

from torch import nn

from farsearch.far.layout import ModelLayout

__all__ = ["add_lora"]


def add_lora(model: nn.Module, layout: ModelLayout, rank: int, alpha: int) -> None:
    """Put a low-rank adapter beside the query and the value map of every layer, in place, and freeze all else.

    Where one map makes queries, keys and values, it is beside that.

    Hu et al., "LoRA", ICLR 2022, section 4.2 and table 9: ``W x + (alpha / rank) B A x`` with A drawn as torch's own
    linear maps are (by torch's seed) and B zero, so that the model computes what it did before. No dropout of its own,
    as in the authors' scripts for GLUE. Modules keep their paths.
    """
    # seconds, which only those wait for who train or price LoRA
    from peft import LoraConfig, inject_adapter_in_model

    # query, key, value, or one map of all three; then the output's
    maps = [layer.attention[:3] if len(layer.attention) > 2 else layer.attention[:1] for layer in layout.layers]
    query_and_value = [path for paths in maps for path in paths[::2]]
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=query_and_value), model
    )
