"""Save a tokenizer for older libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farsearch.runtime.tokenizer_proof import VOCABULARY

__all__ = ["PortableTokenizer", "save_portable"]


@dataclass(frozen=True)
class PortableTokenizer:
    """Settings of a tokenizer that older libraries do not read from its file.

    Attributes:
        special: its special tokens by their names in transformers.
        lower_case: texts are lower-cased before they are split into pieces.
    """

    special: Mapping[str, str]
    lower_case: bool


def save_portable(tokenizer: Any, folder: Path) -> PortableTokenizer:
    """Save a fast tokenizer as transformers does, and a word-piece tokenizer's vocabulary as ``vocab.txt``."""
    tokenizer.save_pretrained(folder)
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    if settings["model"]["type"] == "WordPiece":
        pieces = sorted(settings["model"]["vocab"], key=settings["model"]["vocab"].get)
        (folder / VOCABULARY).write_text("\n".join(pieces) + "\n", encoding="utf-8")
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return PortableTokenizer(special, bool((settings.get("normalizer") or {}).get("lowercase", False)))
