"""Small records for tests: a study of six trials with a known front."""

from __future__ import annotations

import dataclasses
from typing import Any

from farsearch.records import (
    AnyTrial,
    Baseline,
    BaselineTrial,
    Completed,
    FarConfig,
    FlatTrial,
    JobSpec,
    LossPoint,
    Measurement,
    PrimingReport,
    StepPlan,
    StudySettings,
    StudySnapshot,
    flat,
    read_trial,
)

__all__ = ["FRONT", "changed", "make_baselines", "make_measurement", "make_settings", "make_snapshot", "make_trial"]

FRONT = {0, 2, 4}
"""The front of ``make_snapshot()``: trial 1 is dominated by 2, trial 3 was stopped, trial 5 does not fit."""


def make_trial(number: int, metric: float | None, memory: float | None, time: float | None, **changes: Any) -> Any:
    """Return a feasible trial with these objectives and plausible other values: complete, or without a metric stopped.

    Args:
        memory: None for a trial that is not priced.
        changes: stored values; ``state``, ``baseline`` and ``verifies`` decide on the kind of trial.
    """
    fractions = (0.5, 0.25 * (number % 4), 0.9, 1.0)
    stored = FlatTrial(
        number=number,
        state="pruned" if metric is None else "complete",
        metric=metric,
        metric_error=0.011,
        dev_metric=None if metric is None else metric - 0.003,
        peak_memory_mib=memory,
        wall_time_s=time,
        energy_j=None if time is None else 10 * time,
        feasible=True,
        config=FarConfig(
            frozen_fractions=fractions,
            learning_rate=1e-4 / (number + 3),
            epochs=1.0,
            priming_epochs=0.03 * (number % 3),
        ),
        plan=None if memory is None else StepPlan(),
        host_seconds=21.7 + number,
        host_peak_mib=664.0,
        peak_memory_range_mib=None if memory is None else (0.9 * memory, 1.2 * memory),
        wall_time_range_s=None if time is None else (0.7 * time, 1.6 * time),
        memory={"parameters": 86.6, "saved activations": 212.1 + number},
        time={"gemm": 100.1, "element-wise": 1 / 3},
        trainable=14_000_000 + number,
        priming=PrimingReport(8 * (number % 3), 3.1, bool(number % 2), 0.4, 0.31, 0.1),
        curve=tuple(LossPoint(step, 0.7 / (step + number)) for step in (8, 16, 24)),
    )
    return read_trial(dataclasses.replace(stored, **changes).to_dict())


def changed(trial: AnyTrial, **changes: Any) -> Any:
    """Return a trial with other stored values, which may make it one of another kind."""
    return read_trial(dataclasses.replace(flat(trial), **changes).to_dict())


def make_baselines() -> tuple[BaselineTrial[Completed], ...]:
    """Return two baselines: one that is a configuration of FAR, and one that is not."""
    full, lora = Baseline("full", "full fine-tuning", 5e-5, 1.0), Baseline("lora8", "LoRA r=8", 5e-4, 1.0)
    config = FarConfig((0.0,) * 4, 5e-5, 1.0)
    return (
        make_trial(1, 0.853, 1700.0, 320.0, baseline=full, config=config),
        make_trial(10, 0.8123, 950.0, 180.0, baseline=lora, config=None, trainable=739_586),
    )


def make_measurement(trial: int, memory: float = 1030.0, time: float = 160.0) -> Measurement:
    """Return a Jetson Nano's measurement of a trial with predictions of 1,000 MiB and 200 s."""
    return Measurement(
        trial=trial,
        machine="NVIDIA Jetson Nano Developer Kit",
        software={"python": "3.6.9", "torch": "1.10.0"},
        rows=2048,
        epochs=1.0,
        steps=128,
        peak_memory_mib=memory,
        step_time_s=time / 128,
        wall_time_s=time,
        process_memory_mib=880.0,
        predicted_memory_mib=1000.0,
        predicted_process_mib=870.0,
        predicted_time_s=200.0,
        metric=0.83,
        created="2026-11-20T10:00:00+00:00",
    )


def make_settings(**changes: Any) -> StudySettings:
    """Return the settings of an SST-2 study for the Jetson Nano."""
    job = JobSpec(
        task="sst2",
        data="9f" * 32,
        model="minilm",
        weights="53" * 32,
        train_samples=2048,
        validation_samples=1024,
        batch_size=16,
        max_length=64,
        seed=1,
    )
    settings = StudySettings(job=job, device="jetson-nano", profile="ab" * 32, space={"epochs": 1})
    return dataclasses.replace(settings, **changes)


def make_snapshot(*trials: AnyTrial, front: set[int] | None = None, **changes: Any) -> StudySnapshot:
    """Return a study of ``trials``, or of six in all states; ``front`` has the numbers of those on the front."""
    shown = trials or (
        make_trial(0, 0.80, 1000.0, 200.0),
        make_trial(1, 0.81, 1300.0, 260.0),
        make_trial(2, 0.84, 1200.0, 250.0),
        make_trial(3, None, 900.0, 190.0, reason="cannot reach the front"),
        make_trial(4, 0.855, 1500.0, 300.5),
        make_trial(5, 0.86, 2500.0, 500.0, feasible=False),
    )
    members = front if front is not None else (set() if trials else FRONT)
    snapshot = StudySnapshot(
        name="sst2-minilm-jetson-nano-default",
        settings=make_settings(),
        metric_name="accuracy",
        budget_mib=2200.0,
        n_trials=len(shown),
        trials=tuple(changed(trial, on_front=trial.number in members) for trial in shown),
        rejected={"peak memory": 41},
        meta={"versions": {"torch": "2.13.0"}, "command": "farsearch run --device jetson-nano --task sst2"},
    )
    return dataclasses.replace(snapshot, **changes)
