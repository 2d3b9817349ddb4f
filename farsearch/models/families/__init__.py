"""Model families: the layouts of their embeddings, attentions and feed-forward blocks, one module per family.

=============  =====================================================================
bert.py        BERT, and the layers that many others have copied
distilbert.py  DistilBERT
roberta.py     RoBERTa, XLM-RoBERTa, CamemBERT: BERT's layers, positions that start late
electra.py     ELECTRA: BERT's layers over narrower embeddings
mpnet.py       MPNet: one table of relative positions for all layers
deberta_v2.py  DeBERTa v2 and v3: likewise
mobilebert.py  MobileBERT: several feed-forward blocks a layer
modernbert.py  ModernBERT: gated feed-forward blocks
=============  =====================================================================

To add a family, put a module that ends in ``FAMILY = Family(...)`` here, or, outside of farsearch, call ``register``
or name a ``Family`` in the entry point group ``farsearch.families``. Then let the contract of tests/models/contract.py
pass (docs/families.md).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.far.layout import ModelLayout
from farsearch.models.families.family import Family

__all__ = ["FAMILIES", "Family", "family_of", "layout_of", "max_length_of", "register", "with_layers"]

_GROUP = "farsearch.families"

_REFUSED = {
    "albert": (
        "'albert' has one feed-forward block, which all its layers share, so that there is nothing to freeze layer by "
        "layer; pass a BERT of its size, or another of {known}"
    ),
}
"""Known families that can't be searched, with the reason."""

_known: dict[str, Family] = {}

FAMILIES: Mapping[str, Family] = MappingProxyType(_known)
"""Families by transformers' ``model_type``; those of entry points are loaded when they are needed."""


def register(family: Family) -> None:
    """Register a family for all its model types.

    Raises:
        BadInput: for a model type that has a family already.
    """
    for model_type in family.model_types:
        if _known.get(model_type, family) is not family:
            raise BadInput(f"the model type {shown(model_type)} has a family already; give yours another name")
        _known[model_type] = family


def family_of(model_type: str) -> Family:
    """Return the family of a model type.

    Raises:
        BadInput: for unknown types, and for families that can't be searched.
    """
    if model_type not in _known and model_type not in _REFUSED:
        _from_entry_points()
    family = _known.get(model_type)
    if family is not None:
        return family
    known = ", ".join(sorted(_known))
    if model_type in _REFUSED:
        raise BadInput(_REFUSED[model_type].format(known=known))
    raise BadInput(
        f"model type {shown(model_type)} is not supported: a family must say where its layers keep attention and "
        f"feed-forward blocks, and known are {known}; docs/families.md says how to add one"
    )


@cache
def _from_entry_points() -> None:
    """Register other packages' families, once per process."""
    for point in entry_points(group=_GROUP):
        try:
            register(point.load())
        except (ImportError, AttributeError) as error:
            raise BadInput(f"the family {shown(point.name)} can't be loaded: {error}; fix its package") from error


def layout_of(config: Any) -> ModelLayout:
    """Return the layout of a model with this transformers configuration.

    Raises:
        BadInput: for an unsupported family or model.
    """
    return family_of(config.model_type).layout(config)


def max_length_of(config: Any) -> int:
    """Return the maximum tokens of a text, special tokens included.

    Raises:
        BadInput: as ``layout_of``.
    """
    return family_of(config.model_type).max_length(config)


def with_layers(config: Any, layers: list[int]) -> Any:
    """Return a copy of the configuration with only these layers.

    Raises:
        BadInput: as ``layout_of``.
    """
    return family_of(config.model_type).with_layers(config, layers)


for _module in pkgutil.iter_modules(__path__):
    _family = getattr(importlib.import_module(f"{__name__}.{_module.name}"), "FAMILY", None)
    if _family is not None:
        register(_family)
