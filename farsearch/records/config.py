"""Configuration and step plan of a trial: which weights are trained, and how a step is executed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from farsearch.errors import BadInput
from farsearch.far.batches import MOST_EPOCHS
from farsearch.far.display import shown
from farsearch.json_records import UNLESS_DEFAULT, Record

__all__ = ["PER_LAYER", "Engine", "Engines", "FarConfig", "Precision", "StepPlan", "check"]

Engine = Literal["torch", "onnx"]
"""What executes a training step: torch, or compiled ONNX graphs without torch, on the CPU."""
Engines = Literal["any", "torch", "onnx"]
"""A choice of engines; ``any`` for all that a device is known for."""
Precision = Literal["float32", "bfloat16", "float16"]
"""Type of the layers' hidden states, products and frozen matrices; what is trained is stored in float32 in any case."""


PER_LAYER = {"frozen_fraction": "frozen_fractions", "frozen_heads": "frozen_heads"}
"""Parameters of a search that may differ between layers, and their fields of ``FarConfig``."""


def check(condition: bool, message: str) -> None:
    """Raise ``BadInput`` with the message unless the condition holds."""
    if not condition:
        raise BadInput(message)


@dataclass(frozen=True)
class FarConfig(Record):
    """Which weights are trained, how long and at which rate: the searched part of a trial.

    Attributes:
        priming_epochs: length of the priming in epochs; 0 selects without priming (only random selection can).
        frozen_fractions: share of frozen hidden neurons, one value per layer from the bottom. 0 leaves a layer
            whole, 1 freezes its feed-forward block.
        learning_rate: peak of the FAR phase's schedule.
        epochs: length of the FAR phase alone.
        frozen_embeddings: the embeddings (tables and their LayerNorm) are not trained.
        frozen_attention_layers: number of lowest layers whose attention is not trained.
        frozen_bottom_layers: number of lowest layers that are not trained at all, nor the embeddings, so that the
            backward pass stops above them.
        frozen_heads: share of frozen attention heads, one value per layer from the bottom, of which the nearest number
            of heads is frozen. Empty if none is frozen but those of ``frozen_attention_layers``, and then not stored,
            so that records and fingerprints from before there was a share stay the same.
    """

    frozen_fractions: tuple[float, ...]
    learning_rate: float
    epochs: float
    priming_epochs: float = 0.0
    frozen_embeddings: bool = False
    frozen_attention_layers: int = 0
    frozen_bottom_layers: int = 0
    frozen_heads: tuple[float, ...] = field(default=(), metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        layers = len(self.frozen_fractions)
        for i, fraction in enumerate(self.frozen_fractions):
            check(0 <= fraction <= 1, f"frozen fraction {fraction} of layer {i} is outside 0 to 1")
        check(
            len(self.frozen_heads) in (0, layers),
            f"frozen_heads has {len(self.frozen_heads)} values; the model has {layers} layers, give one each",
        )
        for i, fraction in enumerate(self.frozen_heads):
            check(0 <= fraction <= 1, f"frozen_heads {fraction} of layer {i} is outside 0 to 1")
        check(
            self.learning_rate > 0 and math.isfinite(self.learning_rate),
            f"learning_rate is {self.learning_rate}; it must be a number above 0",
        )
        most = f"at most {MOST_EPOCHS:,}"
        check(0 < self.epochs <= MOST_EPOCHS, f"epochs is {self.epochs}; it must be a number above 0, {most}")
        check(
            0 <= self.priming_epochs <= MOST_EPOCHS,
            f"priming_epochs is {self.priming_epochs}; it must be a number of at least 0, {most}",
        )
        for name in ("frozen_attention_layers", "frozen_bottom_layers"):
            count = getattr(self, name)
            check(0 <= count <= layers, f"{name} is {count}; the model has {layers} layers")

    @property
    def frozen_head_share(self) -> float:
        """Share of frozen attention heads, averaged over the layers; those of frozen attentions count as 1."""
        canonical = self.canonical()
        layers, lowest = len(canonical.frozen_fractions), canonical.frozen_attention_layers
        return math.fsum(canonical.frozen_heads or (1.0,) * lowest) / layers if layers else 0.0

    def canonical(self) -> FarConfig:
        """Return the canonical form, in which everything that a frozen bottom or frozen attention implies is explicit.

        Configurations with the same training have equal canonical forms, so that no training is done twice: a lowest
        attention of which all heads are frozen is a frozen attention.
        """
        bottom = self.frozen_bottom_layers
        attention = max(self.frozen_attention_layers, bottom)
        while self.frozen_heads[attention : attention + 1] == (1.0,):
            attention += 1
        heads = self.frozen_heads[attention:]
        return dataclasses.replace(
            self,
            frozen_fractions=(1.0,) * bottom + self.frozen_fractions[bottom:],
            frozen_embeddings=self.frozen_embeddings or bottom > 0,
            frozen_attention_layers=attention,
            frozen_heads=(1.0,) * attention + heads if any(heads) else (),
        )


_PIECES = {"attention": "attention", "dropout": "masks", "layer_norm": "norms"}
"""Parts of a plan besides the feed-forward block, and what ordinary modules store for each."""


@dataclass(frozen=True)
class StepPlan(Record):
    """How a training step is executed. All exact plans learn the same.

    Attributes:
        optimizer: ``adamw`` (two state tensors per trained tensor) or ``sgd`` (none).
        micro_batch_size: rows per forward and backward pass, whose gradients are accumulated; None for the whole batch.
        feed_forward: tensors that a feed-forward block stores for the backward pass: those of autograd
            (``modules``), its pre-activations (``store``), the frozen part's derivative in one byte (``compact``, not
            exact), or its input alone (``recompute``).
        attention: ``modules``, or ``recompute`` the probabilities.
        dropout: ``modules``, or redraw the masks from their ``seed``.
        layer_norm: ``modules``, or rebuild the normalised input from the ``output``.
        frozen_dtype: type of frozen feed-forward weights; fewer bits than ``float32`` round them.
        checkpointing: each layer stores its input alone and runs forward again.
        optimizer_kernel: ``loop`` over the parameters; ``foreach``, each operation on all parameters at once, with a
            copy of them; or one ``fused`` kernel.
        optimizer_step: all parameters at the ``end``, or each in the ``backward`` pass as soon as its gradient is
            complete, which frees the gradient.
        engine: what executes the step. Stored only if it is not ``torch``, so that records and fingerprints from before
            there was another stay the same.
        precision: of the layers, if not ``float32`` then not exact; what is trained, the optimizer's state, the
            embeddings and the head stay in float32. Stored only if it is not ``float32``, likewise.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    micro_batch_size: int | None = None
    feed_forward: Literal["modules", "store", "compact", "recompute"] = "modules"
    attention: Literal["modules", "recompute"] = "modules"
    dropout: Literal["modules", "seed"] = "modules"
    layer_norm: Literal["modules", "output"] = "modules"
    frozen_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpointing: bool = False
    optimizer_kernel: Literal["loop", "foreach", "fused"] = "loop"
    optimizer_step: Literal["end", "backward"] = "end"
    engine: Engine = field(default="torch", metadata=UNLESS_DEFAULT)
    precision: Precision = field(default="float32", metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        size = self.micro_batch_size
        check(size is None or size >= 1, f"micro_batch_size is {size}; it must be at least 1")
        check(
            size is None or self.optimizer_step == "end",
            f"micro_batch_size is {size} and optimizer_step is 'backward'; gradients that add up need 'end'",
        )
        check(
            self.optimizer_kernel != "foreach" or self.optimizer_step == "end",
            "optimizer_kernel is 'foreach' and optimizer_step 'backward'; all parameters at once need 'end'",
        )
        check(
            self.frozen_dtype == "float32" or self.feed_forward != "modules",
            f"frozen_dtype is {shown(self.frozen_dtype)} and feed_forward 'modules', which would hold float32 copies; "
            "choose another feed_forward",
        )
        if self.precision != "float32":
            half = f"precision is {shown(self.precision)} and"
            for name in ("feed_forward", "attention"):
                check(
                    getattr(self, name) != "modules",
                    f"{half} {name} 'modules', which compute in float32; choose another {name}",
                )
            check(
                self.frozen_dtype == "float32",
                f"{half} frozen_dtype {shown(self.frozen_dtype)}; frozen weights have the precision, leave it out",
            )
            check(
                self.engine == "torch", f"{half} engine {shown(self.engine)}, which computes in float32; choose torch"
            )

    @property
    def summary(self) -> str:
        """Tensors that are stored for the backward pass, such as ``recompute + kept masks``.

        Another engine stands before them; a precision, which is not exact, behind.
        """
        ordinary = [name for name in _PIECES if self.feed_forward != "modules" and getattr(self, name) == "modules"]
        engine = [] if self.engine == "torch" else [self.engine]
        parts = [*engine, self.feed_forward, *(f"kept {_PIECES[name]}" for name in ordinary)]
        half = [] if self.precision == "float32" else [f"{self.precision} (not exact)"]
        return " + ".join(parts + ["checkpointing"] * self.checkpointing + half)

    @property
    def title(self) -> str:
        """The summary with the optimizer's kernel and step: unique among the plans of a device."""
        return f"{self.summary}; {self.optimizer_kernel}, {self.optimizer_step}"

    @property
    def exact(self) -> bool:
        """Whether the step computes the same as ordinary modules, up to rounding."""
        return self.feed_forward != "compact" and self.frozen_dtype == self.precision == "float32"
