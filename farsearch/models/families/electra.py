"""ELECTRA (Clark et al., ICLR 2020, arXiv 2003.10555): small ones project their embeddings to the layers' width."""

from __future__ import annotations

from typing import Any

from farsearch.far.layout import ModelLayout
from farsearch.models.families.bert import bert_model
from farsearch.models.families.family import Family

__all__ = ["FAMILY"]


def _layout(config: Any) -> ModelLayout:
    projected = config.embedding_size != config.hidden_size
    return bert_model("electra", config, below=("electra.embeddings_project",) if projected else ())


FAMILY = Family(("electra",), _layout)
