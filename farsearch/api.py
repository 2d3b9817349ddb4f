"""farsearch as a library: the three things that are useful without the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farsearch.cost.plans import Goal
from farsearch.cost.price import Cost, Pricer
from farsearch.errors import BadInput
from farsearch.far import surgery
from farsearch.far.layout import get_module
from farsearch.far.selection import learner_counts, random_learners
from farsearch.jobs import JobOptions, find_profile, resolve_job, shared_tables
from farsearch.models.families import layout_of
from farsearch.models.load import load_config, resolve_model
from farsearch.records import FarConfig, StudySnapshot
from farsearch.study.search import Search
from farsearch.study.store import Store

if TYPE_CHECKING:
    from torch import nn

    from farsearch.study.search import Watcher

__all__ = ["HOME", "apply_far", "estimate", "search"]

HOME = Path(".farsearch")
"""Journal, saved tensors and caches of a working directory."""


def apply_far(
    model: nn.Module, config: FarConfig, learners: Sequence[Sequence[int] | None] | None = None, seed: int = 0
) -> nn.Module:
    """Reconfigure a classification model of transformers for FAR, in place.

    Args:
        learners: indices of the trained hidden neurons of each layer, None for an untouched one; drawn at random by
            ``seed`` when not given.

    Raises:
        BadInput: for an unsupported model, or a configuration for another number of layers.
    """
    layout = layout_of(model.config)
    if len(config.frozen_fractions) != len(layout.layers):
        raise BadInput(
            f"the configuration has {len(config.frozen_fractions)} layers, the model {len(layout.layers)}; "
            "give one fraction a layer"
        )
    config = config.canonical()
    if learners is None:
        width = int(get_module(model, layout.layers[0].up).weight.shape[0])
        counts = learner_counts(width, config.frozen_fractions, config.frozen_bottom_layers)
        learners = [None if k is None else random_learners(width, k, seed + i) for i, k in enumerate(counts)]
    return surgery.apply_far(
        model, layout, learners, config.frozen_embeddings, config.frozen_attention_layers, config.frozen_bottom_layers
    )


def estimate(
    device: str,
    model: str,
    config: FarConfig | None = None,
    *,
    batch_size: int = 16,
    max_length: int = 128,
    classes: int = 2,
    samples: int | None = None,
    plan: Goal | None = None,
    progress: Callable[[str], None] | None = None,
    **frozen: Any,
) -> Cost:
    """Predict the memory and time of fine-tuning on a device. Needs no weights, and no network for known models.

    Args:
        device: name of a profile, or path of a profile's file.
        config: what is trained; None for one made of ``frozen``: ``frozen_fraction`` (one number or one a layer) and
            the other frozen parts of ``FarConfig``.
        samples: rows of one epoch, each at full length; None for a single step.
        plan: what the step is arranged for; None for ordinary modules.
        progress: told what the calibration of the device ``local`` does.

    Raises:
        BadInput: for an unknown device, or values that the model does not take.
        MissingResource: when the model's configuration is not at hand.
    """
    settings = load_config(resolve_model(model), with_known=True)
    layers, limit = len(layout_of(settings).layers), int(settings.max_position_embeddings)
    if max_length > limit:
        raise BadInput(f"max_length is {max_length}; {model} takes at most {limit} tokens")
    if config is None:
        config = _frozen_config(model, layers, frozen)
    profile = find_profile(device, Store(HOME), progress)
    lengths = None if samples is None else [max_length] * samples
    tables = shared_tables(settings, classes)
    pricer = Pricer(settings, classes, batch_size, max_length, profile, lengths=lengths, tables=tables)
    return pricer.price(config) if plan is None else pricer.best(config, plan)[1]


def _frozen_config(model: str, layers: int, frozen: dict[str, Any]) -> FarConfig:
    given = frozen.pop("frozen_fraction", 0.0)
    fractions = tuple(given) if isinstance(given, Sequence) else (given,)
    if len(fractions) not in (1, layers):
        raise BadInput(
            f"the frozen fraction has {len(fractions)} values; {model} has {layers} layers, give 1 or {layers}"
        )
    fractions = tuple(float(f) for f in fractions) * (layers if len(fractions) == 1 else 1)
    return FarConfig.from_dict({"frozen_fractions": fractions, "learning_rate": 1e-4, "epochs": 1.0, **frozen})


def search(
    options: JobOptions,
    watcher: Watcher,
    *,
    n_trials: int = 30,
    timeout_s: float | None = None,
    sampler: str = "tpe",
    study: str | None = None,
    home: Path = HOME,
    storage: str | None = None,
) -> StudySnapshot:
    """Search, as ``farsearch run`` does, and return the study. A study of that name goes on.

    Args:
        watcher: hears of each trial and step.
        home: folder of journal, tensors and caches.
        storage: a database instead of the journal.
    """
    store = Store(home, storage)
    job = resolve_job(options, store, watcher.note)
    bench = job.bench(store)
    opened = store.open(study or job.default_name, job.settings, job.meta)
    worker = Search(opened, store, bench, job.pricer(bench), job.space, sampler, job.settings.plan, watcher)
    return worker.run(n_trials, timeout_s)
