"""Baseline methods: the parameters that each trains, its learning rates, and its cost.

They have the loop, rows, batches, seed and scores of the trials, and run with ordinary modules and AdamW, as usual.
The sources of the learning rates are in docs/baselines.md.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import nn

from farsearch.cost.pricer import Price, Pricer, full_fine_tuning
from farsearch.cost.whole_model import Prepare
from farsearch.errors import BadInput
from farsearch.far.display import shown
from farsearch.far.layout import ModelLayout
from farsearch.models.lora import add_lora
from farsearch.records import FarConfig, StepPlan
from farsearch.runtime.near_names import did_you_mean
from farsearch.training import Bench, Outcome

__all__ = [
    "GROUPS",
    "METHODS",
    "RIVALS_FROM",
    "Method",
    "chosen_methods",
    "default_choice",
    "find_method",
    "method_named",
    "price_method",
    "train_method",
]

GROUPS: Mapping[str, tuple[str, ...]] = {
    # what a user would choose without a search
    "rivals": ("full", "far10", "ffn-frozen", "lora8"),
    "all": ("full", "far10", "ffn-frozen", "bitfit", "lora8"),
    # what FAR's paper compares (Vucetic et al., ISCAS 2022, tables I and II)
    "paper": ("full", "far10", "bitfit"),
    "none": (),
}
"""Methods by the names of their groups."""

RIVALS_FROM = 20
"""Trials from which a search trains its rivals by default: a shorter one would mostly train them."""


@dataclass(frozen=True)
class Method:
    """One baseline: either a configuration of FAR, or a way to prepare a model for training.

    Attributes:
        title: for tables and pictures.
        learning_rates: tried first, in rising order.
        config: of (layers, learning rate, epochs).
        prepare: restricts gradients to the trained parameters, in place. The head is already initialized.
    """

    name: str
    title: str
    learning_rates: tuple[float, float, float]
    config: Callable[[int, float, float], FarConfig] | None = None
    prepare: Prepare | None = None

    @property
    def further_rates(self) -> tuple[float, ...]:
        """Rates tried one by one where the method learned at none: above and below them, and far above."""
        low, *_, high = self.learning_rates
        return tuple(float(f"{rate:.1e}") for rate in (3 * high, low / 3, 10 * high))

    def far_config(self, layers: int, learning_rate: float, epochs: float) -> FarConfig | None:
        """Return the method's configuration of FAR; None where it has none."""
        return None if self.config is None else self.config(layers, learning_rate, epochs)


def _far10(layers: int, learning_rate: float, epochs: float) -> FarConfig:
    """Return FAR as published: train the tenth of the neurons that moved most in a priming of 1 % of the iterations."""
    return FarConfig((0.9,) * layers, learning_rate, epochs, priming_epochs=0.01 * epochs)


def _ffn_frozen(layers: int, learning_rate: float, epochs: float) -> FarConfig:
    return FarConfig((1.0,) * layers, learning_rate, epochs)


def _train_only(model: nn.Module, part: str) -> None:
    """Restrict gradients to parameters whose name contains ``part``, and to the head: all outside of the encoder."""
    encoder = f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part in name or not name.startswith(encoder))


def _bitfit(model: nn.Module, _layout: ModelLayout) -> None:
    """Train every bias, including those of embeddings, LayerNorms and BERT's pooler, and the head.

    The authors' code (github.com/benzakenelad/BitFit, ``_deactivate_relevant_gradients``) selects names that contain
    ``bias`` or ``classifier``; other heads have other names. BERT's pooler trains its bias alone.
    """
    _train_only(model, "bias")


def _train_lora(model: nn.Module, layout: ModelLayout, rank: int) -> None:
    """Train adapters on query and value, and the head: with rank 8 and alpha 16 as in the authors' scripts for GLUE."""
    add_lora(model, layout, rank=rank, alpha=2 * rank)
    _train_only(model, "lora_")


@cache
def _lora(rank: int) -> Method:
    """Return LoRA of a rank; neither its learning rates nor the adapters' factor alpha / rank depend on that."""
    prepare = partial(_train_lora, rank=rank)
    return Method(f"lora{rank}", f"LoRA r={rank}", (2e-4, 5e-4, 1e-3), prepare=prepare)


_LORA = re.compile("lora([1-9][0-9]{0,2})")


# Learning rates. Full fine-tuning: three of the four of Turc et al. 2019 for BERT models of every size, two of them
# in Devlin et al. 2019 too. FAR's papers have none: the upper three of those four, because less is trained. BitFit: the
# upper part of the range of Ben Zaken et al. 2022; the default of their code is the last. LoRA: the lowest and the
# highest of Hu et al. 2022 for GLUE, and that of peft's quick tour.
METHODS = {
    method.name: method
    for method in (
        Method("full", "full fine-tuning", (3e-5, 5e-5, 1e-4), config=full_fine_tuning),
        Method("far10", "FAR r=10 %", (5e-5, 1e-4, 3e-4), config=_far10),
        Method("ffn-frozen", "FFNs frozen", (5e-5, 1e-4, 3e-4), config=_ffn_frozen),
        Method("bitfit", "BitFit", (4e-4, 7e-4, 1e-3), prepare=_bitfit),
        _lora(8),
    )
}


def find_method(name: str) -> Method | None:
    """Return a method by its name, LoRA with any rank up to 999, such as ``lora4``; None for an unknown name."""
    rank = _LORA.fullmatch(name)
    return METHODS.get(name) if rank is None else _lora(int(rank[1]))


def method_named(name: str) -> Method:
    """Return a method by its name, as ``find_method``.

    Raises:
        BadInput: for an unknown name.
    """
    method = find_method(name)
    if method is None:
        raise _unknown(f"the method {shown(name)} is unknown; give one of {_NAMES}", name, METHODS)
    return method


def chosen_methods(choice: str) -> tuple[Method, ...]:
    """Return the methods of a group, or those that are named, with commas between: ``full,lora8``.

    Raises:
        BadInput: for an unknown name.
    """
    methods = []
    for name in GROUPS[choice] if choice in GROUPS else dict.fromkeys(choice.split(",")):
        method = find_method(name)
        if method is None:
            rule = f"give {', '.join(GROUPS)}, or some of {_NAMES}, with commas between"
            raise _unknown(f"the baseline {shown(name)} is unknown; {rule}", name, [*GROUPS, *METHODS])
        methods.append(method)
    return tuple(methods)


_NAMES = f"{', '.join(METHODS)} or another rank of LoRA, such as lora4"


def _unknown(message: str, name: str, known: Iterable[str]) -> BadInput:
    hint = did_you_mean(name, known)
    return BadInput(f"{message}; {hint}" if hint else message)


def default_choice(n_trials: int) -> str:
    """Return the baselines of a search of so many trials for which none are chosen."""
    return "rivals" if n_trials >= RIVALS_FROM else "none"


def price_method(method: Method, epochs: float, pricer: Pricer) -> Price:
    """Return a method's cost on the device with ``ordinary_plan``, the same for all learning rates."""
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
    """Train and evaluate a method at one learning rate. The bench's model is not changed.

    Raises:
        Diverged, OutOfMemory: as ``Bench.run``.
    """
    config = method.far_config(len(bench.layout.layers), learning_rate, epochs)
    if config is not None:
        return bench.run(config, StepPlan(), on_step, on_note)
    assert method.prepare is not None
    # a copy, so that the bench's model never changes, even after an error
    model = copy.deepcopy(bench.model)
    model.load_state_dict(bench.pretrained)
    torch.manual_seed(bench.job.seed)
    method.prepare(model, bench.layout)
    return bench.fit(model, learning_rate, epochs, on_step)
