"""The contract on every family of the package, and models that no family supports."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from farsearch.cost.plans import exact_plans
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.errors import BadInput, MissingResource
from farsearch.far.execution import Execution
from farsearch.far.surgery import apply_far
from farsearch.models.config import load_config
from farsearch.models.families import FAMILIES, Family, layout_of, max_length_of, register
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import ModelSource
from farsearch.records import FarConfig
from tests.cost.reference import figure, make_profile
from tests.models.contract import CONTRACT, PAD, VOCABULARY, FamilyCase, Golden, Promise, told


def _like_bert(config: Any, positions: int = 128, **more: Any) -> Any:
    def make(layers: int, hidden: int, neurons: int, dropout: float) -> Any:
        return config(
            vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=neurons, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            classifier_dropout=dropout, max_position_embeddings=positions, pad_token_id=PAD, **more,
        )  # fmt: skip

    return make


def _roberta(config: Any) -> Any:
    return _like_bert(config, 130, type_vocab_size=1)


def _distilbert(layers: int, hidden: int, neurons: int, dropout: float) -> Any:
    return transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=hidden, n_layers=layers, n_heads=2, hidden_dim=neurons, dropout=dropout,
        attention_dropout=dropout, seq_classif_dropout=dropout, max_position_embeddings=128, pad_token_id=PAD,
    )  # fmt: skip


def _mobilebert(layers: int, hidden: int, neurons: int, dropout: float) -> Any:
    # the bottleneck's width is that of the blocks; the outer width is twice as large
    return _like_bert(
        transformers.MobileBertConfig, embedding_size=16, intra_bottleneck_size=hidden, num_feedforward_networks=3
    )(layers, 2 * hidden, neurons, dropout)


def _modernbert(layers: int, hidden: int, neurons: int, dropout: float) -> Any:
    return transformers.ModernBertConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=neurons, attention_dropout=dropout, mlp_dropout=dropout, embedding_dropout=dropout,
        classifier_dropout=dropout,
        max_position_embeddings=128, local_attention=8, pad_token_id=PAD, bos_token_id=2, cls_token_id=2,
        eos_token_id=3, sep_token_id=3,
    )  # fmt: skip


_DEBERTA_V3: dict[str, Any] = {
    "relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip

CASES = (
    FamilyCase("bert", _like_bert(transformers.BertConfig), Golden("bert-base-uncased", 109_483_778, 58_476_902)),
    FamilyCase("distilbert", _distilbert, Golden("distilbert-base-uncased", 66_955_010, 41_451_572)),
    FamilyCase("roberta", _roberta(transformers.RobertaConfig), Golden("roberta-base", 124_647_170, 73_640_294)),
    FamilyCase(
        "xlm-roberta", _roberta(transformers.XLMRobertaConfig), Golden("xlm-roberta-base", 278_045_186, 227_038_310)
    ),
    FamilyCase("camembert", _roberta(transformers.CamembertConfig), Golden("camembert-base", 110_623_490, 59_616_614)),
    FamilyCase(
        "electra",
        _like_bert(transformers.ElectraConfig, embedding_size=16),
        Golden("google/electra-small-discriminator", 13_549_314, 7_870_410),
    ),
    FamilyCase(
        "mpnet", _like_bert(transformers.MPNetConfig, 130), Golden("microsoft/mpnet-base", 109_488_002, 58_481_126)
    ),
    FamilyCase(
        "deberta-v2",
        _like_bert(transformers.DebertaV2Config, **_DEBERTA_V3),
        Golden("microsoft/deberta-v3-small", 141_896_450, 116_393_012),
    ),
    FamilyCase("mobilebert", _mobilebert, Golden("google/mobilebert-uncased", 24_582_914, 13_196_834), blocks=3),
    FamilyCase("modernbert", _modernbert, Golden("answerdotai/ModernBERT-base", 149_606_402, 97_042_946)),
)


@pytest.mark.parametrize("promise", CONTRACT, ids=told)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_contract(case: FamilyCase, promise: Promise, tmp_path: Path) -> None:
    """Each promise is described by its own docstring."""
    promise(case, tmp_path)


def test_every_family_is_under_contract() -> None:
    """Each module of the package is a family, and is in the list above."""
    assert {case.name for case in CASES} == {name for name, family in FAMILIES.items() if _is_ours(family)}


def _is_ours(family: Family) -> bool:
    return family.layout.__module__.startswith("farsearch.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "torch_version", "attention"),
    [
        *((case.golden.name, "2.13", "math") for case in CASES if case.golden is not None),
        ("distilbert-base-uncased", "1.10", "eager"),
        ("microsoft/deberta-v3-small", "1.10", "eager"),
    ],
)
def test_every_family_is_priced_under_every_exact_plan(name: str, torch_version: str, attention: str) -> None:
    """From the packaged configuration of its published checkpoint, without a network."""
    config = load_config(ModelSource(name, name), with_known=True)
    profile = make_profile(torch=torch_version, attention=attention, visible_mib=figure(65_536))
    pricer = Pricer(config, Head(), 4, 64, profile)
    for far in (full_fine_tuning(pricer.layers), FarConfig((0.9,) * pricer.layers, 1e-4, 1.0)):
        assert all(cost.fits for _, cost in pricer.all_plans(far))


def test_maximum_number_of_tokens() -> None:
    """RoBERTa's positions begin after the padding id: of 514 positions 512 are for tokens."""
    known = {
        "bert-base-uncased": 512,
        "distilbert-base-uncased": 512,
        "roberta-base": 512,
        "xlm-roberta-base": 512,
        "camembert-base": 512,
        "microsoft/mpnet-base": 512,
        "google/electra-small-discriminator": 512,
        "microsoft/deberta-v3-small": 512,
        "google/mobilebert-uncased": 512,
        "answerdotai/ModernBERT-base": 8192,
    }
    found = {name: max_length_of(load_config(ModelSource(name, name), with_known=True)) for name in known}
    assert found == known


def test_albert_is_refused_with_the_reason() -> None:
    """Its layers share one block, so none can be frozen alone."""
    for ask in (layout_of, max_length_of):
        with pytest.raises(BadInput, match=r"'albert' has one feed-forward block, which all its layers share") as said:
            ask(transformers.AlbertConfig())
        assert "\n" not in str(said.value)


def test_an_unknown_family_is_refused_with_instructions() -> None:
    """One line: the model type, the known families, and where to read how to add one."""
    with pytest.raises(BadInput) as said:
        layout_of(transformers.GPT2Config())
    words = str(said.value)
    assert words.startswith("model type 'gpt2' is not supported: a family must say where its layers keep attention")
    assert "known are bert, camembert, deberta-v2, distilbert" in words
    assert words.endswith("docs/families.md says how to add one")
    assert "\n" not in words


def _saved_without(case: FamilyCase, folder: Path) -> Iterator[tuple[str, ModelSource]]:
    """Each key of a configuration, and a folder whose config.json lacks it."""
    whole = case.make(2, 32, 64, 0.1).to_dict()
    for key in whole:
        (folder / key).mkdir()
        text = json.dumps({name: value for name, value in whole.items() if name != key})
        (folder / key / "config.json").write_text(text, encoding="utf-8")
        yield key, ModelSource(str(folder / key), str(folder / key))


def _refused(call: Callable[[], object]) -> str | None:
    """Return the error of a call that is refused in one line, or None if it works."""
    try:
        call()
    except (BadInput, MissingResource) as error:
        words = str(error)
    else:
        return None
    assert "\n" not in words
    return words


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_configuration_without_a_key_makes_a_model_or_is_refused(case: FamilyCase, tmp_path: Path) -> None:
    """With the default of transformers: layouts only read attributes that the configuration class guarantees."""
    refused = {}
    for key, source in _saved_without(case, tmp_path):

        def make(source: ModelSource = source) -> None:
            config = load_config(source)
            assert max_length_of(config) > 0
            with torch.device("meta"):
                build_model(config, Head())

        refused[key] = _refused(make)
    assert refused.pop("model_type")
    allowed = {"num_attention_heads", "n_heads", "num_hidden_layers", "pad_token_id"}
    assert {key for key, words in refused.items() if words} <= allowed
    assert None in refused.values()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_configuration_without_a_key_is_priced_or_refused(case: FamilyCase, tmp_path: Path) -> None:
    """Inconsistent sizes show when the model runs, and give one line too."""
    for _, source in _saved_without(case, tmp_path):

        def price(source: ModelSource = source) -> None:
            config = load_config(source)
            Pricer(config, Head(), 2, 16, make_profile()).price(full_fine_tuning(config.num_hidden_layers))

        _refused(price)


@pytest.mark.parametrize(("key", "words"), [("norm_rel_ebd", "'NoneType' object has no attribute 'lower'")])
def test_a_value_that_transformers_rejects_is_refused(key: str, words: str) -> None:
    """With its own message, in one line."""
    config = next(case for case in CASES if case.name == "deberta-v2").make(2, 32, 64, 0.1)
    setattr(config, key, None)
    with pytest.raises(BadInput, match=f"no model can be made of this deberta-v2 configuration: {words}"):
        build_model(config, Head())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pickled_weights_need_an_option(case: FamilyCase, dtype: torch.dtype) -> None:
    """``pytorch_model.bin`` alone is refused with the option that allows it; then weights and digest are its own."""
    config = case.make(2, 32, 64, 0.1)
    config.dtype = dtype
    with torch.device("meta"):
        model, _ = build_model(config, Head())
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert config.dtype == dtype


def test_a_convolution_between_the_layers_is_refused() -> None:
    """As in deberta-v2-xlarge: it is in no layer, so no layer's cost would include it."""
    with pytest.raises(BadInput, match="a convolution of 3 tokens behind its lowest layer"):
        layout_of(transformers.AutoConfig.for_model("deberta-v2", conv_kernel_size=3))


def test_a_model_type_has_one_family() -> None:
    """Registering a second one is refused; registering the same one again is not."""
    register(FAMILIES["bert"])
    with pytest.raises(BadInput, match="'bert' has a family already"):
        register(Family(("bert",), FAMILIES["distilbert"].layout))


def test_unsupported_plans_are_not_offered() -> None:
    """Attention that cannot be recomputed and gated blocks are not replaced, so such plans are not priced."""
    offered = {case.name: exact_plans(make_profile(), layout_of(case.make(2, 32, 64, 0.1))) for case in CASES}
    assert offered["roberta"] == exact_plans(make_profile())
    for name in ("mpnet", "deberta-v2", "mobilebert"):
        assert {(plan.feed_forward, plan.attention) for plan in offered[name]} == {
            ("modules", "modules"), ("store", "modules"), ("recompute", "modules"),
        }  # fmt: skip
    assert {(plan.feed_forward, plan.attention, plan.checkpointing) for plan in offered["modernbert"]} == {
        ("modules", "modules", False), ("modules", "modules", True),
    }  # fmt: skip


def test_a_policy_without_gated_blocks_is_refused() -> None:
    """Before the model is changed."""
    model, layout = CASES[-1].build()
    before = [name for name, _ in model.named_modules()]
    with pytest.raises(ValueError, match=r"mlp is gated .* 'modules', not 'store'"):
        apply_far(model, layout, [[1], [2]], execution=Execution(feed_forward="store"))
    assert [name for name, _ in model.named_modules()] == before
