"""The methods that a search is compared with: what each trains, at which learning rates, and what it costs.

All are trained by the loop, on the rows and batches, with the seed and by the scores of the trials. They are executed
as their users run them, with ordinary modules and AdamW. docs/baselines.md says where the learning rates come from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from farsearch.cost.pricer import Cost, Pricer, full_fine_tuning
from farsearch.far.layout import ModelLayout
from farsearch.models.lora import add_lora
from farsearch.records import FarConfig, StepPlan
from farsearch.training import Bench, Outcome

__all__ = ["CHOICES", "METHODS", "Choice", "Method", "chosen_methods", "price_method", "train_method"]

Choice = Literal["all", "paper", "none"]
CHOICES: Sequence[Choice] = get_args(Choice)

_PAPER = ("full", "far10", "bitfit")
"""What FAR's own paper compares (Vucetic et al., ISCAS 2022, tables I and II)."""


@dataclass(frozen=True)
class Method:
    """One baseline: either a configuration of FAR, or a way to prepare a model for training.

    Attributes:
        title: for tables and pictures.
        learning_rates: the three that are tried.
        config: of (layers, learning rate, epochs).
        prepare: leaves gradients where the method trains, in place. The head's new weights are drawn already.
    """

    name: str
    title: str
    learning_rates: tuple[float, float, float]
    config: Callable[[int, float, float], FarConfig] | None = None
    prepare: Callable[[nn.Module, ModelLayout], None] | None = None

    @property
    def further_rates(self) -> tuple[float, ...]:
        """Tried in turn where the method learned at none of its rates: above and below them, and far above."""
        low, *_, high = self.learning_rates
        return tuple(float(f"{rate:.1e}") for rate in (3 * high, low / 3, 10 * high))

    def far_config(self, layers: int, learning_rate: float, epochs: float) -> FarConfig | None:
        """The configuration of FAR that this method is, None where it is none."""
        return None if self.config is None else self.config(layers, learning_rate, epochs)


def _far10(layers: int, learning_rate: float, epochs: float) -> FarConfig:
    """FAR as published: the tenth of the neurons that a priming of 1 % of the iterations moved most."""
    return FarConfig((0.9,) * layers, learning_rate, epochs, priming_epochs=0.01 * epochs)


def _ffn_frozen(layers: int, learning_rate: float, epochs: float) -> FarConfig:
    return FarConfig((1.0,) * layers, learning_rate, epochs)


def _only(model: nn.Module, word: str) -> None:
    """Leave gradients where a parameter's name has the word, and in the head, which is all outside of the encoder."""
    encoder = f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(word in name or not name.startswith(encoder))


def _bitfit(model: nn.Module, _layout: ModelLayout) -> None:
    """Every bias, those of embeddings, LayerNorms and BERT's pooler among them, and the head.

    As in the authors' code (github.com/benzakenelad/BitFit, ``_deactivate_relevant_gradients``), which goes by the
    words ``bias`` and ``classifier`` in the names; other heads have other names. BERT's pooler trains its bias alone.
    """
    _only(model, "bias")


def _lora8(model: nn.Module, layout: ModelLayout) -> None:
    """Rank 8 and alpha 16 on query and value, and the head, as in the authors' scripts for GLUE."""
    add_lora(model, layout, rank=8, alpha=16)
    _only(model, "lora_")


# Learning rates. Full fine-tuning: three of the four of Turc et al. 2019 for BERT models of every size, two of which
# Devlin et al. 2019 name too. FAR's papers name none: the upper three of those four, because less is trained. BitFit:
# the upper part of the range that Ben Zaken et al. 2022 search; their code's default is the last. LoRA: the lowest and
# the highest that Hu et al. 2022 give for GLUE, and the one of peft's quick tour.
METHODS = {
    method.name: method
    for method in (
        Method("full", "full fine-tuning", (3e-5, 5e-5, 1e-4), config=full_fine_tuning),
        Method("far10", "FAR r=10 %", (5e-5, 1e-4, 3e-4), config=_far10),
        Method("ffn-frozen", "FFNs frozen", (5e-5, 1e-4, 3e-4), config=_ffn_frozen),
        Method("bitfit", "BitFit", (4e-4, 7e-4, 1e-3), prepare=_bitfit),
        Method("lora8", "LoRA r=8", (2e-4, 5e-4, 1e-3), prepare=_lora8),
    )
}


def chosen_methods(choice: Choice) -> tuple[Method, ...]:
    """The methods of ``--baselines all``, ``paper`` or ``none``."""
    names = {"all": tuple(METHODS), "paper": _PAPER, "none": ()}[choice]
    return tuple(METHODS[name] for name in names)


def price_method(method: Method, epochs: float, pricer: Pricer) -> Cost:
    """What a method costs on the device with ``ordinary_plan``; no learning rate changes that."""
    config = method.far_config(pricer.layers, method.learning_rates[0], epochs)
    if config is not None:
        return pricer.price(config)
    assert method.prepare is not None
    return pricer.price_prepared(method.prepare, epochs)


def train_method(
    method: Method,
    learning_rate: float,
    epochs: float,
    bench: Bench,
    on_step: Callable[[int, int, float], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Outcome:
    """Train and evaluate a method at one learning rate. The bench's model is left as it was.

    Raises:
        Diverged, OutOfMemory: as ``Bench.run``.
    """
    config = method.far_config(len(bench.layout.layers), learning_rate, epochs)
    if config is not None:
        return bench.run(config, StepPlan(), on_step, on_note)
    assert method.prepare is not None
    # a copy: whatever is put into it, and however it ends, the bench's own model knows nothing of it
    model = copy.deepcopy(bench.model)
    model.load_state_dict(bench.pretrained)
    torch.manual_seed(bench.job.seed)
    method.prepare(model, bench.layout)
    return bench.fit(model, learning_rate, epochs, on_step)
