"""A family outside farsearch, in this one file: its model, its adapter, and the contract run on it.

The example of docs/families.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from farsearch.errors import BadInput
from farsearch.far.layout import FeedForwardLayout, LayerLayout, ModelLayout
from farsearch.models import families
from farsearch.models.families import Family, layout_of, register
from tests.models.contract import CONTRACT, PAD, VOCABULARY, FamilyCase, Promise, told


class ToyConfig(transformers.PreTrainedConfig):
    """Configuration of a pre-norm encoder with two bias-free residual feed-forward blocks per layer."""

    model_type = "toy"

    def __init__(
        self, vocab_size: int = 100, hidden_size: int = 32, num_hidden_layers: int = 2, neurons: int = 64,
        max_position_embeddings: int = 96, dropout: float = 0.1, **more: Any,
    ) -> None:  # fmt: skip
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        self.neurons, self.max_position_embeddings, self.dropout = neurons, max_position_embeddings, dropout
        super().__init__(**more)


class ToyBlock(nn.Module):
    """``wide`` and ``narrow`` with a SiLU between."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)
        self.wide = nn.Linear(config.hidden_size, config.neurons, bias=False)
        self.act = nn.SiLU()
        self.narrow = nn.Linear(config.neurons, config.hidden_size, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, length, hidden]`` to the same shape."""
        y: Tensor = x + self.dropout(self.narrow(self.act(self.wide(self.norm(x)))))
        return y


class ToyLayer(nn.Module):
    """Attention of one head, between two blocks."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.first, self.second = ToyBlock(config), ToyBlock(config)
        self.q, self.k, self.v, self.o = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``[rows, length, hidden]`` to the same shape."""
        x = self.first(x)
        y = self.norm(x)
        scores = self.q(y) @ self.k(y).transpose(1, 2) + mask
        return self.second(x + self.o(scores.softmax(-1) @ self.v(y)))  # type: ignore[no-any-return]


class ToyEmbeddings(nn.Module):
    """Words and positions."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        """``[rows, length]`` to ``[rows, length, hidden]``."""
        y: Tensor = self.words(ids) + self.positions.weight[: ids.shape[1]]
        return y


class ToyForSequenceClassification(transformers.PreTrainedModel):
    """Logits of the first token."""

    config_class = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.embeddings = ToyEmbeddings(config)
        self.stack = nn.ModuleDict({"layers": nn.ModuleList(ToyLayer(config) for _ in range(config.num_hidden_layers))})
        self.classifier = nn.Linear(config.hidden_size, int(config.num_labels or 0))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        """``[rows, length]`` to logits, with the loss if there are labels."""
        x = self.embeddings(input_ids)
        mask = (1.0 - attention_mask[:, None, :].to(x.dtype)) * -1e9
        for layer in self.stack["layers"].children():
            x = layer(x, mask)
        logits = self.classifier(x[:, 0])
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def _block(path: str) -> FeedForwardLayout:
    return FeedForwardLayout(up=f"{path}.wide", activation=f"{path}.act", down=f"{path}.narrow")


def _layer(path: str) -> LayerLayout:
    return LayerLayout(
        path=path,
        attention=tuple(f"{path}.{name}" for name in "qkvo"),
        blocks=(_block(f"{path}.first"), _block(f"{path}.second")),
        dropouts=(f"{path}.first.dropout", f"{path}.second.dropout"),
    )


def toy_layout(config: Any) -> ModelLayout:
    """The paths of a toy's parts."""
    return ModelLayout("embeddings", tuple(_layer(f"stack.layers.{i}") for i in range(config.num_hidden_layers)))


FAMILY = Family(("toy",), toy_layout)


@pytest.fixture(autouse=True, scope="module")
def known() -> Iterator[None]:
    """Register the model with transformers, and the family with farsearch, for the tests of this file."""
    transformers.AutoConfig.register("toy", ToyConfig)
    transformers.AutoModelForSequenceClassification.register(ToyConfig, ToyForSequenceClassification)
    register(FAMILY)
    yield
    del families._known["toy"]


def make_toy(layers: int, hidden: int, neurons: int, dropout: float) -> ToyConfig:
    """A toy's configuration."""
    return ToyConfig(VOCABULARY, hidden, layers, neurons, dropout=dropout, pad_token_id=PAD)


@pytest.mark.parametrize("promise", CONTRACT, ids=told)
def test_contract(promise: Promise, tmp_path: Path) -> None:
    """No code of farsearch was written for this family."""
    promise(FamilyCase("toy", make_toy, blocks=2, kinds=("classification",)), tmp_path)


def test_the_entry_point_of_another_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installed package adds its family by an entry point; a broken one is reported by name."""
    package = tmp_path / "gnomes-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: gnomes\nVersion: 1.0\n", encoding="utf-8")
    (package / "entry_points.txt").write_text("[farsearch.families]\ngnome = gnomes:FAMILY\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    families._from_entry_points.cache_clear()
    config = ToyConfig()
    config.model_type = "gnome"  # type: ignore[misc]
    with pytest.raises(BadInput, match="the family 'gnome' can't be loaded: No module named 'gnomes'; fix its package"):
        layout_of(config)
    (tmp_path / "gnomes.py").write_text(
        "from farsearch.models.families import Family\n"
        "from tests.models.test_models_toy_family import toy_layout\n"
        "FAMILY = Family(('gnome',), toy_layout)\n",
        encoding="utf-8",
    )
    try:
        assert layout_of(config) == toy_layout(config)
    finally:
        families._known.pop("gnome", None)
        families._from_entry_points.cache_clear()


def test_a_toy_learns() -> None:
    """Its logits depend on its tokens, so that the contract is meaningful."""
    model, _ = FamilyCase("toy", make_toy, blocks=2, kinds=("classification",)).build()
    mask = torch.ones(1, 3, dtype=torch.long)
    one, other = (model(input_ids=torch.tensor([row]), attention_mask=mask).logits for row in ([5, 6, 7], [5, 6, 8]))
    assert not torch.equal(one, other)
