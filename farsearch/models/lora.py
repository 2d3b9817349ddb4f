"""Low-rank adapters in a model's attention. The only home of peft."""

from __future__ import annotations

from torch import nn

from farsearch.far.layout import ModelLayout

__all__ = ["add_lora"]


def add_lora(model: nn.Module, layout: ModelLayout, rank: int, alpha: int) -> None:
    """Put a low-rank adapter beside the query and the value map of every layer, in place, and freeze all else.

    Hu et al., "LoRA", ICLR 2022, section 4.2 and table 9: ``W x + (alpha / rank) B A x`` with A drawn as torch's own
    linear maps are (by torch's seed) and B zero, so that the model computes what it did before. No dropout of its own,
    as in the authors' scripts for GLUE. Modules keep their paths.
    """
    # seconds, which only those wait for who train or price LoRA
    from peft import LoraConfig, inject_adapter_in_model

    query_and_value = [path for layer in layout.layers for path in (layer.attention[0], layer.attention[2])]
    inject_adapter_in_model(
        LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=query_and_value), model
    )
