"""RoBERTa (Liu et al. 2019, arXiv 1907.11692), and XLM-RoBERTa and CamemBERT, which differ in their vocabularies."""

from __future__ import annotations

from typing import Any

from farsearch.errors import BadInput
from farsearch.models.families.bert import bert_model
from farsearch.models.families.family import Family

__all__ = ["FAMILY"]


def _max_length(config: Any) -> int:
    """Positions are counted from the one behind the padding's.

    Raises:
        BadInput: for a configuration without the padding's.
    """
    if config.pad_token_id is None:
        raise BadInput(
            f"this {config.model_type} configuration has no pad_token_id, behind which its positions are counted; pass "
            "the config.json that was saved with the model"
        )
    return int(config.max_position_embeddings - config.pad_token_id - 1)


# transformers calls the encoder of all three by the first one's name
FAMILY = Family(("roberta", "xlm-roberta", "camembert"), lambda config: bert_model("roberta", config), _max_length)
