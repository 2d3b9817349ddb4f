"""FAR in a user's own training loop: prime a model, select its learners, reconfigure it, and merge it.

::

    priming = prime(model, loader, epochs=0.5)
    apply_far(model, config, select_learners(model, config, priming))
    ...                             # any training loop, with an optimizer that is made here
    model.save_pretrained(folder)   # at any time: what is saved is an ordinary model
    merge(model)

docs/library.md has a complete example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from farsearch.errors import BadInput, Diverged
from farsearch.far import surgery
from farsearch.far.display import shown
from farsearch.far.ffn import SplitFeedForward
from farsearch.far.layout import ModelLayout, get_module
from farsearch.far.optimizer import has_fused, make_optimizer
from farsearch.far.schedule import constant_rate
from farsearch.far.selection import head_counts, head_scores, learner_counts, neuron_scores, top_learners
from farsearch.far.selection import random_learners as draw_learners
from farsearch.far.split_linear import SplitLinear
from farsearch.models.families import layout_of
from farsearch.priming import start_state
from farsearch.records import FarConfig
from farsearch.runtime.memory import free_at_once

__all__ = [
    "PrimingResult",
    "Selection",
    "apply_far",
    "merge",
    "prime",
    "prime_with",
    "random_learners",
    "select_learners",
]


class Batches(Protocol):
    """Batches with a known length, as of a DataLoader: mappings of a model's arguments, including labels."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Mapping[str, Tensor]]: ...


@dataclass(frozen=True)
class PrimingResult:
    """The change of each neuron and head in a priming, and the weights before it.

    Attributes:
        scores: L1 change of each hidden neuron (float64, ``[width]``), per feed-forward block from the bottom.
        pretrained: the state dict before priming, on the CPU: the values of frozen tensors.
        head_scores: L1 change of each attention head (float64, ``[heads]``), per layer from the bottom.
    """

    scores: tuple[Tensor, ...]
    pretrained: Mapping[str, Tensor]
    head_scores: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The hidden neurons and attention heads that learn.

    Attributes:
        learners: indices of the learners of each feed-forward block from the bottom; None for a block that is left
            whole.
        pretrained: values of frozen tensors; None to leave every weight unchanged.
        heads: indices of the trained heads of each layer from the bottom; None for an attention that is not split, and
            empty if none is.
    """

    learners: tuple[tuple[int, ...] | None, ...]
    pretrained: Mapping[str, Tensor] | None = None
    heads: tuple[tuple[int, ...] | None, ...] = ()


def prime(
    model: nn.Module, batches: Batches, epochs: float = 1.0, learning_rate: float = 5e-5, warmup_steps: int = 8
) -> PrimingResult:
    """Train all of a model briefly, in place, and score its hidden neurons by their change.

    Args:
        batches: mappings of the model's arguments, including labels, as of a DataLoader.
        epochs: passes over the batches; at least one step is run.
        learning_rate: of AdamW, constant after a linear warm-up over ``warmup_steps`` steps.

    Raises:
        BadInput: for an unsupported or already reconfigured model, and for batches without a loss.
        Diverged: when a loss or weight is not finite.
    """
    return prime_with(model, lambda model: _train(model, batches, epochs, learning_rate, warmup_steps))


def prime_with(model: nn.Module, loop: Callable[[nn.Module], object]) -> PrimingResult:
    """Prime with a user's own training loop.

    Args:
        loop: called once with the model; its result is ignored.

    Raises:
        BadInput: for an unsupported or already reconfigured model, and when no neuron changed.
        Diverged: when a weight is not finite afterwards.
    """
    layout = _plain_layout(model)
    before = _state(model)
    loop(model)
    after = _state(model)
    scores = tuple(neuron_scores(layout, before, after))
    heads = tuple(head_scores(layout, before, after)) if layout.heads else ()
    if not all(bool(score.isfinite().all()) for score in (*scores, *heads)):
        raise Diverged("a weight is not finite after the priming; a lower learning rate may help")
    if not any(bool(score.any()) for score in scores):
        raise BadInput("the priming moved no neuron, so none can be selected; let it train the feed-forward blocks")
    return PrimingResult(scores, before, heads)


def select_learners(model: nn.Module, config: FarConfig, priming: PrimingResult) -> Selection:
    """Select the neurons and heads that changed most in a priming, as many in each layer as the configuration trains.

    Raises:
        BadInput: for an unsupported or already reconfigured model, or a configuration or priming for another one.
    """
    counts, width = _counts(model, config), surgery.width_of(model, _layout(model).layers[0])
    if [len(score) for score in priming.scores] != [width] * len(counts):
        raise BadInput("the priming is of a model of another size; prime this model")
    pairs = zip(priming.scores, counts, strict=True)
    chosen = tuple(None if count is None else tuple(top_learners(score, count)) for score, count in pairs)
    heads = _head_counts(model, config)
    trained = zip(priming.head_scores, heads, strict=True) if any(count is not None for count in heads) else ()
    return Selection(
        chosen,
        priming.pretrained,
        tuple(None if count is None else tuple(top_learners(score, count)) for score, count in trained),
    )


def random_learners(model: nn.Module, config: FarConfig, seed: int = 0) -> Selection:
    """Draw learners at random, as many in each layer as the configuration trains: the control for a selection.

    Raises:
        BadInput: as ``select_learners``.
    """
    layout = _plain_layout(model)
    width = surgery.width_of(model, layout.layers[0])
    counts, heads = _counts(model, config), _head_counts(model, config)

    def drawn(units: int, counts: Sequence[int | None], seed: int) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(None if k is None else tuple(draw_learners(units, k, seed + i)) for i, k in enumerate(counts))

    split = any(count is not None for count in heads)
    return Selection(drawn(width, counts, seed), heads=drawn(layout.heads, heads, seed + len(counts)) if split else ())


def apply_far(
    model: nn.Module, config: FarConfig, selection: Selection, *, free_memory_at_once: bool = True
) -> nn.Module:
    """Reconfigure a model of transformers for FAR, in place, and return it.

    Trained tensors are not changed, and frozen ones get their values from before the priming. The feed-forward blocks
    get new parameters, so make the optimizer afterwards. The model's state dict, and with it ``save_pretrained`` and
    ``load_state_dict``, stay those of an ordinary model.

    Args:
        free_memory_at_once: return large tensors to the system as soon as they are freed, by glibc's ``mallopt``, so
            that this process takes the memory that ``estimate`` predicts. With False the C library retains some
            hundreds of MiB.

    Raises:
        BadInput: for an unsupported or already reconfigured model, or a selection for another model or configuration.
    """
    layout, counts = _plain_layout(model), _counts(model, config)
    width = surgery.width_of(model, layout.layers[0])
    _check_selection("learner", selection.learners, counts, width)
    heads = _head_counts(model, config)
    _check_selection("trained head", selection.heads or (None,) * len(heads), heads, layout.heads)
    config = config.canonical()
    if free_memory_at_once:
        free_at_once()
    learners, trained = (
        [None if chosen is None else list(chosen) for chosen in units]
        for units in (selection.learners, selection.heads)
    )
    if selection.pretrained is not None:
        primed = _state(model)
        if primed.keys() != selection.pretrained.keys():
            raise BadInput("the selection was made by the priming of another model; prime and select with this one")
        pretrained = dict(selection.pretrained)
        model.load_state_dict(start_state(layout, pretrained, primed, learners, config, "pretrained", trained))
    return surgery.apply_far(
        model, layout, learners, config.frozen_embeddings, config.frozen_attention_layers, config.frozen_bottom_layers,
        heads=trained or None,
    )  # fmt: skip


def merge(model: nn.Module) -> nn.Module:
    """Undo ``apply_far`` in place, with the trained weights and gradients everywhere, and return the model.

    Raises:
        BadInput: for an unsupported model.
    """
    return surgery.merge(model, _layout(model))


def _layout(model: nn.Module) -> ModelLayout:
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "model_type"):
        raise BadInput(f"{type(model).__name__} is no model of transformers; pass the model itself, without a wrapper")
    layout = layout_of(config)
    prefix = layout.embeddings.partition(".")[0]
    if not hasattr(model, prefix):
        raise BadInput(f"{type(model).__name__} has no {prefix!r} below a head; pass a model for a task")
    return layout


def _plain_layout(model: nn.Module) -> ModelLayout:
    """Return the layout of a model that is not reconfigured."""
    layout = _layout(model)
    linear = (path for layer in layout.layers for path in layer.attention)
    if any(
        isinstance(get_module(model, path), SplitFeedForward | SplitLinear)
        for path in (*(block.split for block in layout.blocks), *linear)
    ):
        raise BadInput("the model is reconfigured for FAR already; merge it first")
    return layout


def _counts(model: nn.Module, config: FarConfig) -> list[int | None]:
    """Return the number of learners of each feed-forward block; None for a block that is left whole."""
    layout, config = _plain_layout(model), config.canonical()
    if len(config.frozen_fractions) != len(layout.layers):
        raise BadInput(
            f"the configuration has {len(config.frozen_fractions)} layers, the model {len(layout.layers)}; "
            "give one fraction per layer"
        )
    width = surgery.width_of(model, layout.layers[0])
    return layout.by_block(learner_counts(width, config.frozen_fractions, config.frozen_bottom_layers))


def _head_counts(model: nn.Module, config: FarConfig) -> list[int | None]:
    """Return the number of trained heads of each layer; None for an attention that is not split."""
    layout, config = _layout(model), config.canonical()
    if config.frozen_heads and not layout.heads:
        raise BadInput(
            f"frozen_heads is {shown(config.frozen_heads)}, and the heads of {type(model).__name__} can't be frozen "
            "one by one; freeze whole attentions by frozen_attention_layers"
        )
    return head_counts(layout.heads, config.frozen_heads, len(layout.layers))


def _check_selection(
    unit: str, chosen: Sequence[Sequence[int] | None], counts: Sequence[int | None], units: int
) -> None:
    if [None if each is None else len(set(each)) for each in chosen] != list(counts):
        raise BadInput(f"the selection has other numbers of {unit}s than the configuration; select with this one")
    outside = next((j for each in chosen for j in each or () if not 0 <= j < units), None)
    if outside is not None:
        raise BadInput(f"{unit} {outside} is outside 0 to {units - 1}; select among these")


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _train(model: nn.Module, batches: Batches, epochs: float, learning_rate: float, warmup_steps: int) -> None:
    """Train with AdamW; the model's mode is restored."""
    if not hasattr(batches, "__len__") or not len(batches):
        raise BadInput(
            "there are no batches, or they have no length; pass a DataLoader, or your own loop to prime_with"
        )
    if not epochs > 0:
        raise BadInput(f"epochs is {shown(epochs)}; it must be a number above 0")
    steps = max(1, round(len(batches) * epochs))
    device, mode = next(model.parameters()).device, model.training
    optimizer = make_optimizer("adamw", model, kernel="fused" if has_fused() else "loop")
    rate = constant_rate(learning_rate, warmup_steps)
    model.train()
    for step, batch in enumerate(islice(chain.from_iterable(repeat(batches)), steps)):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        loss = _loss(model, batch, device)
        if not math.isfinite(loss.item()):
            raise Diverged(f"the loss of step {step} is {loss.item()}; a lower learning rate may help")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.train(mode)


def _loss(model: nn.Module, batch: object, device: torch.device) -> Tensor:
    if not isinstance(batch, Mapping):
        raise BadInput(
            f"a batch is a {type(batch).__name__}, not a mapping of the model's arguments; let the DataLoader give "
            "such, or pass your own loop to prime_with"
        )
    loss: Tensor | None = model(**{name: value.to(device) for name, value in batch.items()}).loss
    if loss is None:
        raise BadInput(f"the batches have {', '.join(map(str, batch))} and give no loss; add the labels")
    return loss
