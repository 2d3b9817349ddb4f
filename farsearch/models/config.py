"""Load a model's configuration, without running code of the model."""

from __future__ import annotations

import json
from typing import Any

import transformers

from farsearch.errors import BadInput, MissingResource
from farsearch.far.display import shown
from farsearch.models.families import family_of
from farsearch.models.reading import reading
from farsearch.models.source import ModelSource, known_models
from farsearch.runtime.config import config_problem

__all__ = ["load_config"]


def load_config(source: ModelSource, *, with_known: bool = False) -> Any:
    """Return the transformers configuration of a model.

    Args:
        with_known: use the packaged configuration of a hub model if there is one, which needs no network, unless the
            model is a folder or a revision.

    Raises:
        BadInput: for an unsupported type, or a configuration that must not be loaded.
        MissingResource: when it can't be read.
    """
    if with_known and not source.local and source.revision is None and source.name in known_models():
        values = dict(known_models()[source.name])
        return transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    folder = source.folder("config")
    path = folder / "config.json"
    if not path.is_file():
        raise MissingResource(f"the model {source.name!r} has no config.json; pass a model of transformers")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MissingResource(
            f"config.json of {source.name!r} is no JSON ({error}); save the model again with save_pretrained"
        ) from error
    _check(values, source)
    with reading(source):
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _check(values: Any, source: ModelSource) -> None:
    """Check that the configuration needs no code of the model, and that its type is supported.

    Raises:
        BadInput: otherwise.
    """
    model_type = values.get("model_type") if isinstance(values, dict) else None
    known = isinstance(model_type, str) and model_type in transformers.CONFIG_MAPPING
    if isinstance(values, dict) and "auto_map" in values and not known:
        raise BadInput(
            f"the model {source.name!r} of type {shown(values.get('model_type'))} brings its own code (auto_map), "
            "which farsearch never runs; pass a model of a supported family (docs/families.md)"
        )
    problem = config_problem(values)
    if problem is not None:
        raise BadInput(f"config.json of {source.name!r} can't be used: {problem}")
    if not known:
        family_of(values["model_type"])
        raise BadInput(
            f"transformers {transformers.__version__} does not know the type {values['model_type']!r}; update it"
        )
