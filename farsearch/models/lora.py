"""Low-rank adapters in a model's attention. The only home of peft."""

from __future__ import annotations

from torch import nn

from farsearch.far.layout import ModelLayout

__all__ = ["add_lora"]


def add_lora(model: nn.Module, layout: ModelLayout, rank: int, alpha: int) -> None:
    """Add a low-rank adapter to the query and the value map of every layer, in place, and freeze all other parameters.

    If one map computes queries, keys and values, the adapter is added to that.

    Hu et al., "LoRA", ICLR 2022, section 4.2 and table 9: ``W x + (alpha / rank) B A x`` with A drawn as torch's own
    linear maps are (by torch's seed) and B zero, so that the output of the model is unchanged. No dropout of its own,
    as in the authors' scripts for GLUE. Modules keep their paths.
    """
    # takes seconds to import
    from peft import LoraConfig, inject_adapter_in_model

    # query, key, value, or one map of all three; then the output's
    maps = [layer.attention[:3] if len(layer.attention) > 2 else layer.attention[:1] for layer in layout.layers]
    query_and_value = [path for paths in maps for path in paths[::2]]
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=query_and_value), model
    )
