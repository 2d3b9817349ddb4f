"""Parameters of runs in MLflow. Pure."""

from __future__ import annotations

import re

from farsearch.records import FarConfig, FlatTrial, JobSpec, StudySnapshot

__all__ = ["flag", "study_params", "trial_params"]

_IDENTITY = re.compile(r"(\S+@)?[0-9a-f]{16,}")
"""Hashes, and names at a commit."""


def flag(value: bool) -> str:
    """Return a truth value as MLflow's filters write it."""
    return "true" if value else "false"


def trial_params(trial: FlatTrial) -> dict[str, str]:
    """Return configuration, method, repetition and step plan of a trial."""
    params = {} if trial.config is None else _config_params(trial.config)
    if trial.baseline is not None:
        params |= {
            "method": trial.baseline.method,
            "learning_rate": repr(trial.baseline.learning_rate),
            "epochs": repr(trial.baseline.epochs),
        }
    if trial.verifies is not None:
        params |= {"seed": str(trial.verifies.seed), "train_samples": str(trial.verifies.train_samples)}
        params |= {} if trial.verifies.trial is None else {"trial": str(trial.verifies.trial)}
    if trial.plan is not None:
        plan, size = trial.plan, trial.plan.micro_batch_size
        params |= {
            "optimizer": plan.optimizer,
            "micro_batch_size": "whole batch" if size is None else str(size),
            "step_plan": plan.summary,
            "engine": plan.engine,
        }
    return params


def _config_params(config: FarConfig) -> dict[str, str]:
    width = len(str(len(config.frozen_fractions) - 1))
    layers = {
        f"frozen_fraction_layer_{i:0{width}d}": repr(fraction) for i, fraction in enumerate(config.frozen_fractions)
    }
    return {
        "learning_rate": repr(config.learning_rate),
        "epochs": repr(config.epochs),
        "priming_epochs": repr(config.priming_epochs),
        **layers,
        "frozen_embeddings": flag(config.frozen_embeddings),
        "frozen_attention_layers": str(config.frozen_attention_layers),
        "frozen_bottom_layers": str(config.frozen_bottom_layers),
        **{f"frozen_heads_layer_{i:0{width}d}": repr(share) for i, share in enumerate(config.frozen_heads)},
    }


def study_params(snapshot: StudySnapshot) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings of a study, and the hashes that identify them, which people do not read."""
    settings, job = snapshot.settings, snapshot.settings.job
    fixed = {**_job_params(job), "device": settings.device, "profile": settings.profile, "prime_on": settings.prime_on}
    bounds = {
        "max_memory_mib": settings.max_memory_mib,
        "max_time_s": settings.max_time_s,
        "device_samples": settings.device_samples,
    }
    fixed |= {} if settings.engine == "torch" else {"engine": settings.engine}
    params = fixed | {name: repr(value) for name, value in bounds.items() if value is not None}
    identities = {name: value for name, value in params.items() if _IDENTITY.fullmatch(value)}
    return {name: value for name, value in params.items() if name not in identities}, identities


def _job_params(job: JobSpec) -> dict[str, str]:
    flat = {key: value for key, value in job.to_dict().items() if key != "priming"}
    priming = {f"priming_{key}": value for key, value in job.to_dict()["priming"].items()}
    return {key: str(value) for key, value in (flat | priming).items() if value is not None}
