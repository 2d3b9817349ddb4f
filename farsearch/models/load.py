"""Load and build BERT-like models, with all pre-trained weights and a head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from farsearch.errors import BadInput
from farsearch.far.display import shown_text
from farsearch.far.layout import ModelLayout
from farsearch.models.config import load_config
from farsearch.models.families import layout_of
from farsearch.models.heads import Head, settings_of
from farsearch.models.reading import reading
from farsearch.models.source import ModelSource
from farsearch.runtime.torch_engine.model import model_class

__all__ = ["build_model", "load_finetuned", "load_model", "unusable"]

_HEADS = frozenset({"classifier", "pre_classifier", "pooler", "qa_outputs", "score"})
"""transformers' names of the modules on an encoder that are trained with a task."""

_TASK_HEADS = _HEADS - {"pooler"}

_BESIDE_LAYERS = ("pooler.", "position_ids", "token_type_ids")
"""Name parts of tensors that no layer depends on: the pooler, and constants that old versions saved."""


def load_model(
    source: ModelSource, head: Head, names: Sequence[str], seed: int, keep_head: bool = False
) -> tuple[nn.Module, ModelLayout]:
    """Return a model with all its pre-trained weights and a new head, and its layout.

    Code that comes with a model is never run.

    Args:
        names: names of the head's outputs, which are set in the model's configuration; none for spans.
        seed: seed of the new head.
        keep_head: use the checkpoint's head, whose labels must be ``names``.

    Raises:
        BadInput: for an unsupported family, weights that do not fit the configuration, or a head that does not fit.
        MissingResource: when the weights can't be read.
    """
    config = load_config(source)
    layout = layout_of(config)
    if keep_head:
        _check_labels(source, config, names)
    model, info = _with_weights(source, head, names, seed)
    mismatched = {item[0]: item[1] for item in info["mismatched_keys"]}
    _check_encoder(source, model, info, set(mismatched))
    own = _own_head(model, info["missing_keys"])
    if own and any(name in mismatched for name in own) and keep_head:
        raise BadInput(
            f"the head of {source.name!r} has other shapes than {head.outputs} outputs ask for; drop `keep_head`"
        )
    if keep_head and not own:
        raise BadInput(f"{source.name!r} brings no head for this kind of task; drop `keep_head`")
    if keep_head:
        _check_whole(source, info["missing_keys"])
    if own and not keep_head:
        _renew_head(model, own, seed)
        if source.note is not None:
            source.note(
                f"{source.name}: its own head ({', '.join(sorted({name.split('.')[0] for name in own}))}) is replaced "
                "by a new one; --keep-head keeps it where the labels are the same"
            )
    return model, layout


def _with_weights(source: ModelSource, head: Head, names: Sequence[str], seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model and transformers' report on its weights; missing ones are initialised by ``seed``."""
    source.weights()
    folder = source.folder("weights")
    ids = dict(enumerate(names))
    named = {"id2label": ids, "label2id": {name: i for i, name in ids.items()}} if names else {}
    torch.manual_seed(seed)
    with reading(source):
        model, info = model_class(head.kind).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=None if source.allow_pickle else True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **settings_of(head),
            **named,
        )
    return model, info


def _check_encoder(source: ModelSource, model: Any, info: dict[str, Any], mismatched: set[str]) -> None:
    """Check that the encoder's weights are complete: transformers would initialise missing ones at random.

    Raises:
        BadInput: with the first tensor that is missing, unknown or of another shape.
    """
    base = f"{model.base_model_prefix}."
    inside = {name.split(".")[0] for name, _ in getattr(model, model.base_model_prefix).named_children()}

    def of_encoder(names: set[str]) -> list[str]:
        return sorted(
            name
            for name in names
            if (name.startswith(base) or name.split(".")[0] in inside)
            and not any(part in name for part in _BESIDE_LAYERS)
        )

    missing, left, other = (
        of_encoder(set(names)) for names in (info["missing_keys"], info["unexpected_keys"], mismatched)
    )
    if other:
        raise BadInput(
            f"the weights of {source.name!r} have other shapes than its config.json asks for, {other[0]} first; pass "
            "the configuration that they were saved with"
        )
    if not missing and not left:
        return
    prefix = _prefix(missing, base, info["unexpected_keys"])
    if prefix is not None:
        problem = f"have the prefix {prefix!r} in their names; save them without it"
    elif missing:
        problem = f"lack {missing[0]}{_more(missing)}, which would be drawn at random; save the whole model"
    else:
        problem = (
            f"have {left[0]}{_more(left)}, for which its config.json has no place; pass the one they were saved with"
        )
    raise BadInput(f"the weights of {source.name!r} {problem}")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _prefix(missing: list[str], base: str, unexpected: set[str]) -> str | None:
    """Return the common prefix of all missing tensors in the file, else None."""
    if not missing:
        return None
    for first in (missing[0], missing[0].removeprefix(base)):
        for name in sorted(unexpected, key=len):
            if name.endswith(f".{first}"):
                prefix = name[: -len(first)]
                cut = missing[0][: len(missing[0]) - len(first)]
                if all(prefix + other.removeprefix(cut) in unexpected for other in missing):
                    return prefix
    return None


def _own_head(model: nn.Module, missing: set[str]) -> list[str]:
    """Return the names of the head's parameters in the checkpoint; none without a head for tasks."""
    head = [name for name in model.state_dict() if name.split(".")[0] in _HEADS and name not in missing]
    return head if any(name.split(".")[0] in _TASK_HEADS for name in head) else []


def _renew_head(model: Any, own: list[str], seed: int) -> None:
    """Reinitialise these parameters as in a model without pre-trained weights."""
    torch.manual_seed(seed)
    fresh = type(model)(model.config).state_dict()
    with torch.no_grad():
        for name in own:
            model.state_dict()[name].copy_(fresh[name])


def _check_labels(source: ModelSource, config: Any, names: Sequence[str]) -> None:
    """Check that the checkpoint's head has the task's labels.

    Raises:
        BadInput: with both lists otherwise.
    """
    theirs = [config.id2label[i] for i in sorted(config.id2label)]
    if names and theirs != list(names):
        raise BadInput(
            f"the head of {source.name!r} is for {', '.join(map(str, theirs[:5]))}, the task has "
            f"{', '.join(names[:5])}; drop `keep_head` to train a new one"
        )


def load_finetuned(source: ModelSource, kind: str) -> nn.Module:
    """Return a model with its trained head for a kind of task.

    Raises:
        BadInput: for incomplete weights.
        MissingResource: when it can't be read.
    """
    source.weights()
    folder = source.folder("weights")
    with reading(source):
        model, info = model_class(kind).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    _check_encoder(source, model, info, set())
    _check_whole(source, info["missing_keys"])
    loaded: nn.Module = model
    return loaded


def _check_whole(source: ModelSource, missing: set[str]) -> None:
    """Check that no weight, of the head either, would be initialised at random.

    Raises:
        BadInput: with the first missing tensor.
    """
    names = sorted(missing)
    if names:
        raise BadInput(
            f"the weights of {source.name!r} lack {names[0]}{_more(names)}, which would be drawn at random; save the "
            "whole model"
        )


def build_model(config: Any, head: Head) -> tuple[nn.Module, ModelLayout]:
    """Return a model of a configuration with random weights, and its layout.

    Its type is float32, in which all training is done, whatever the checkpoint's type.

    Raises:
        BadInput: as ``layout_of``, and for a configuration that transformers can't build.
    """
    layout = layout_of(config)
    config = copy.deepcopy(config)
    for name, value in settings_of(head).items():
        setattr(config, name, value)
    try:
        return model_class(head.kind).from_config(config, trust_remote_code=False, dtype=torch.float32), layout
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise unusable(config, error) from error


def unusable(config: Any, error: Exception) -> BadInput:
    """Return the error for a configuration that transformers or torch can't build or run."""
    first = shown_text(str(error).strip().split("\n")[0] or type(error).__name__, 160)
    return BadInput(
        f"no model can be made of this {config.model_type} configuration: {first}; pass the config.json that was "
        "saved with the model"
    )
