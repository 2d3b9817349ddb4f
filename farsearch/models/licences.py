"""Licences of pre-trained models, from their cards or by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from farsearch.models.source import ModelSource

__all__ = ["licence_of"]

_KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "minilm": "apache-2.0",
        "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
        "distilbert-base-uncased": "apache-2.0",
        "distilbert/distilbert-base-uncased": "apache-2.0",
        "bert-base-uncased": "apache-2.0",
        "google-bert/bert-base-uncased": "apache-2.0",
        "google/bert_uncased_L-2_H-128_A-2": "apache-2.0",
    }
)
"""From their model cards on the hub (read in 2026)."""


_LICENCE = re.compile(r"""^license:[ \t]*["']?([A-Za-z0-9][A-Za-z0-9.+-]{0,60})["']?[ \t]*(?:#.*)?$""", re.MULTILINE)
"""The licence in the front matter; the rest of that YAML is untrusted and not parsed."""


def licence_of(source: ModelSource) -> str | None:
    """Return the licence in the front matter of the model's card, or the known one of its name, else None."""
    card = source.folder("config") / "README.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        front = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
        stated = _LICENCE.search(front)
        if stated is not None:
            return stated.group(1)
    return _KNOWN.get(source.name)
