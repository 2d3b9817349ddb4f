"""Every family that comes with farsearch keeps the contract; others are refused in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from farsearch.errors import BadInput
from farsearch.models.families import FAMILIES, Family, layout_of, max_length_of, register
from tests.models.contract import CONTRACT, PAD, VOCABULARY, FamilyCase, Golden, Promise, told


def _like_bert(config: Any, positions: int = 128, **more: Any) -> Any:
    def make(layers: int, hidden: int, neurons: int, dropout: float) -> Any:
        return config(
            vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=neurons, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            classifier_dropout=dropout, max_position_embeddings=positions, pad_token_id=PAD, **more,
        )  # fmt: skip

    return make


def _distilbert(layers: int, hidden: int, neurons: int, dropout: float) -> Any:
    return transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=hidden, n_layers=layers, n_heads=2, hidden_dim=neurons, dropout=dropout,
        attention_dropout=dropout, seq_classif_dropout=dropout, max_position_embeddings=128, pad_token_id=PAD,
    )  # fmt: skip


def _mobilebert(layers: int, hidden: int, neurons: int, dropout: float) -> Any:
    # in the bottleneck's width, which is that of the blocks; the outer one is twice as wide
    return _like_bert(
        transformers.MobileBertConfig, embedding_size=16, intra_bottleneck_size=hidden, num_feedforward_networks=3
    )(layers, 2 * hidden, neurons, dropout)


def _modernbert(layers: int, hidden: int, neurons: int, dropout: float) -> Any:
    return transformers.ModernBertConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=neurons, mlp_dropout=dropout, embedding_dropout=dropout, classifier_dropout=dropout,
        attention_dropout=dropout,
        max_position_embeddings=128, local_attention=8, pad_token_id=PAD, bos_token_id=2, cls_token_id=2,
        eos_token_id=3, sep_token_id=3,
    )  # fmt: skip


_DEBERTA_V3 = {
    "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip

CASES = (
    FamilyCase("bert", _like_bert(transformers.BertConfig)),
    FamilyCase("distilbert", _distilbert),
    FamilyCase("roberta", _like_bert(transformers.RobertaConfig, 130, type_vocab_size=1)),
    FamilyCase("xlm-roberta", _like_bert(transformers.XLMRobertaConfig, 130, type_vocab_size=1)),
    FamilyCase("camembert", _like_bert(transformers.CamembertConfig, 130, type_vocab_size=1)),
    FamilyCase("electra", _like_bert(transformers.ElectraConfig, embedding_size=16)),
    FamilyCase("mpnet", _like_bert(transformers.MPNetConfig, 130)),
    FamilyCase("deberta-v2", _like_bert(transformers.DebertaV2Config, **_DEBERTA_V3)),
    FamilyCase("mobilebert", _mobilebert, blocks=3),
    FamilyCase("modernbert", _modernbert),
)


@pytest.mark.parametrize("promise", CONTRACT, ids=told)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(case: FamilyCase, promise: Promise, tmp_path: Path) -> None:
    """A family keeps a promise of the contract; what it is, its own docstring says."""
    promise(case, tmp_path)


def test_every_family_is_under_contract() -> None:
    """A module of the package is a family by itself: none is left out above."""
    assert {case.name for case in CASES} == set(FAMILIES)
