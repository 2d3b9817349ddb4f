"""The part of ``far.json`` for the FAR phase: settings, tokenizer, and predicted cost on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from farsearch.calibration.local import find_engine_profile, find_profile
from farsearch.cost.compiled import vocabulary_mib
from farsearch.cost.pricer import Pricer
from farsearch.cost.traced_model import shared_tables
from farsearch.devices import Profile
from farsearch.errors import FarsearchError
from farsearch.far.batches import steps_in
from farsearch.far.layout import ModelLayout
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.portable import PortableTokenizer
from farsearch.models.source import ModelSource
from farsearch.records import Completed, Cost, FarConfig, StepPlan, StudySnapshot, Trial
from farsearch.runtime.best_state import EVALUATED_ROWS
from farsearch.runtime.task import Task
from farsearch.runtime.tokenizer_proof import token_ids
from farsearch.study.artifacts import SavedTrial

__all__ = ["phase_record"]

_PROOF = (
    "A quiet film, and a good one.",
    "Un café très cher — naïve? Straße!",
    "it's 12:30; $4.99 isn't much (really) #42",
    "unbelievably antidisestablishmentarian",
    "日本語 текст ελληνικά",
    "word " * 200,
)
"""Sentences that distinguish tokenizers: accents, case, signs, rare words, scripts, truncation."""

_LENGTHS = 8
"""Step of the priced lengths in tokens; between them time is nearly linear."""


def phase_record(
    folder: Path,
    snapshot: StudySnapshot,
    trial: Trial[Completed],
    source: ModelSource,
    task: Task,
    head: Head,
    layout: ModelLayout,
    saved: SavedTrial,
    tokenizer: Any,
    portable: PortableTokenizer,
    home: Path,
) -> dict[str, Any]:
    """Return the part of ``far.json`` for the FAR phase as JSON types, without the files of the weights.

    Args:
        folder: of the bundle, with its compiled engine if it has one.
        saved: the trial's learners and heads.
        home: folder of the user's own profiles.
    """
    job, plan = snapshot.settings.job, trial.plan
    config = trial.config.canonical()
    return {
        "layout": layout.to_dict(),
        "learners": saved.learners,
        **({"heads": saved.heads} if saved.heads else {}),
        **({"class_weights": job.class_weights} if job.class_weights != "none" else {}),
        **{
            name: value
            for name in ("patience", "label_smoothing", "clip_norm")
            if (value := getattr(job, name)) is not None
        },
        "frozen_embeddings": config.frozen_embeddings,
        "frozen_attention_layers": config.frozen_attention_layers,
        "frozen_bottom_layers": config.frozen_bottom_layers,
        "learning_rate": config.learning_rate,
        "epochs": config.epochs,
        "batch_size": job.batch_size,
        "seed": job.seed,
        "max_length": job.max_length,
        "plan": plan.to_dict(),
        "task": task.to_dict(),
        "segments": head.segments,
        "tokenizer": {
            "proof": list(zip(_PROOF, token_ids(tokenizer, _PROOF, job.max_length), strict=True)),
            "special": dict(portable.special),
            "lower_case": portable.lower_case,
            "pad_id": int(tokenizer.pad_token_id or 0),
        },
        "predicted": _predicted(folder, snapshot, trial.cost, source, head, config, plan, home),
    }


def _predicted(
    folder: Path, snapshot: StudySnapshot, cost: Cost, source: ModelSource, head: Head, config: FarConfig,
    plan: StepPlan, home: Path,
) -> Mapping[str, Any]:  # fmt: skip
    """Peaks by micro-batch size and seconds of a step by length, because a board's rows are not the study's."""
    settings, job = snapshot.settings, snapshot.settings.job
    profile = _profile_of(snapshot, home)
    if profile is None:
        steps = steps_in(settings.device_samples or job.train_samples, job.batch_size, config.epochs)
        seconds = {str(job.max_length): cost.wall_time_s / steps}
        peak = cost.peak_memory_mib
        process = peak - sum(cost.memory.values())
        return {"device": settings.device, "process_mib": process, "peaks": [[None, peak]], "step_s": seconds}
    profile = find_engine_profile(profile, plan.engine, home)
    model = load_config(source)
    tables = shared_tables(model, head)

    def pricer(length: int) -> Pricer:
        return Pricer(
            model, head, job.batch_size, length, profile, engines={plan.engine: profile}, tables=tables,
            watched_rows=None if job.patience is None else EVALUATED_ROWS, clips=job.clip_norm is not None,
        )  # fmt: skip

    process = profile.process_mib.value
    if plan.engine == "onnx":
        from farsearch.bundle.engine import peaks_of

        process += vocabulary_mib(model)
        peaks = peaks_of(
            folder, job.batch_size, job.max_length, process, plan, job.patience is not None, job.clip_norm is not None
        )
    else:
        whole = pricer(job.max_length)
        peaks = _peaks(plan, job.batch_size, lambda executed: whole.price(config, executed).peak_memory_mib)
    lengths = [*range(_LENGTHS, job.max_length, _LENGTHS), job.max_length]
    seconds = {str(length): pricer(length).step_time_s(config, plan) for length in lengths}
    return {"device": profile.name, "process_mib": process, "peaks": peaks, "step_s": seconds}


def _peaks(plan: StepPlan, batch_size: int, peak_of: Callable[[StepPlan], float]) -> list[tuple[int | None, float]]:
    """The peak of a plan in MiB, and of smaller micro-batches as long as they lower it."""
    peaks: list[tuple[int | None, float]] = [(plan.micro_batch_size, peak_of(plan))]
    size = (plan.micro_batch_size or batch_size) // 2
    while size:
        peak = peak_of(dataclasses.replace(plan, micro_batch_size=size, optimizer_step="end"))
        if peak < peaks[-1][1]:
            peaks.append((size, peak))
        size //= 2
    return peaks


def _profile_of(snapshot: StudySnapshot, home: Path) -> Profile | None:
    """The profile of the study; None if this machine does not have the same one."""
    name = snapshot.settings.device
    # it may have been given as a file
    given = str(snapshot.meta.get("options", {}).get("device", name))
    profiles = (_profile(named, home) for named in dict.fromkeys((given, name)))
    digest, precision = snapshot.settings.profile, snapshot.settings.precision
    return next((each for each in profiles if each is not None and each.digest_in(precision) == digest), None)


def _profile(name: str, home: Path) -> Profile | None:
    try:
        return find_profile(name, home)
    except FarsearchError:
        return None
