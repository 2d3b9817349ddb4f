"""Options of a training whose cost is predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from farsearch.cli.options import ParamType
from farsearch.cli.task_options import with_options
from farsearch.far.display import shown

if TYPE_CHECKING:
    from farsearch.api.cost_query import CostQuery

__all__ = ["CONFIGURATION", "cost_options", "query_from", "title_of"]

F = TypeVar("F", bound=Callable[..., Any])

CONFIGURATION = (
    "frozen_fraction", "frozen_heads", "frozen_embeddings", "frozen_attention_layers", "frozen_bottom_layers",
    "priming_epochs",
)  # fmt: skip
"""Options of a configuration, which a method or a sweep decides too."""


class Fractions(ParamType):
    """One fraction for all layers, or one a layer, separated by commas."""

    name = "f[,f...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a tuple of floats."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{shown(value)} is not a fraction, or fractions with commas, each from 0 to 1", param, ctx)


_COST: Mapping[str, Mapping[str, Any]] = {
    "model": {"required": True, "metavar": "NAME", "help": "A well-known checkpoint, a folder, or a hub name."},
    "revision": {"metavar": "REV", "help": "Branch, tag or commit of a hub model.  [default: main]"},
    "batch_size": {"type": click.IntRange(min=1), "metavar": "N", "help": "Rows of a training step.  [default: 16]"},
    "max_length": {"type": click.IntRange(min=4), "metavar": "N", "help": "Tokens of a text.  [default: 128]"},
    "classes": {
        "type": click.IntRange(min=2),
        "metavar": "N",
        "default": 2,
        "show_default": True,
        "help": "Size of the head.",
    },
    "samples": {
        "type": click.IntRange(min=1),
        "metavar": "N",
        "help": "Time one epoch of so many rows instead of one step, each at full length.",
    },
    "method": {
        "metavar": "NAME",
        "help": "Another method in place of FAR: full, ffn-frozen, bitfit, or LoRA of any rank, lora8; far10 is FAR as "
        "published.",
    },
    "frozen_fraction": {
        "type": Fractions(),
        "help": "Share of frozen neurons, one for all layers or one each from the bottom.  [default: 0]",
    },
    "frozen_heads": {"type": Fractions(), "help": "Share of frozen attention heads, likewise.  [default: 0]"},
    "frozen_embeddings": {"is_flag": True, "help": "The embeddings are not trained."},
    "frozen_attention_layers": {
        "type": click.IntRange(min=0),
        "metavar": "N",
        "help": "Number of lowest layers whose attention is not trained.  [default: 0]",
    },
    "frozen_bottom_layers": {
        "type": click.IntRange(min=0),
        "metavar": "N",
        "help": "Number of lowest layers that are not trained at all.  [default: 0]",
    },
    "plan": {
        "type": click.Choice(["modules", "memory", "time", "balanced"]),
        "default": "modules",
        "show_default": True,
        "help": "Ordinary modules, or farsearch's own step plan for a goal.",
    },
    "optimizer": {
        "type": click.Choice(["adamw", "sgd"]),
        "default": "adamw",
        "show_default": True,
        "help": "Two tensors of state for each trained one, or none.",
    },
    "micro_batch_size": {
        "type": click.IntRange(min=1),
        "metavar": "N",
        "help": "Rows of one forward pass.  [default: the whole batch]",
    },
    "engine": {
        "type": click.Choice(["any", "torch", "onnx"]),
        "help": "onnx trains on the board's CPU without torch; any is the better one.  [default: torch]",
    },
}
"""The options, in the order of the help."""


def cost_options(function: F) -> F:
    """Add the options of a training whose cost is predicted, for ``query_from``."""
    return cast("F", with_options(function, _COST))


def query_from(values: Mapping[str, Any], **more: Any) -> CostQuery:
    """Return the query of given options.

    Args:
        values: of ``cost_options``, and of ``priming_epochs`` where the command has it.
        more: other fields of the query.
    """
    from farsearch.api.cost_query import query_of

    given = {name: values[name] for name in CONFIGURATION if values.get(name)}
    job = {name: value for name, value in values.items() if name not in (*CONFIGURATION, "model", "method")}
    job |= {"plan": None if values["plan"] == "modules" else values["plan"], "engine": values["engine"] or "torch"}
    return query_of(values["model"], None, values["method"], {**job, **more, **given})


def title_of(model: str, method: str | None) -> str:
    """Return the title of a model, and of the method in place of FAR."""
    from farsearch.baselines import method_named

    return model if method is None else f"{model} with {method_named(method).title}"
