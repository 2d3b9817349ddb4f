"""Records of studies: frozen dataclasses with a strict round trip through JSON.

``from_dict`` rejects unknown keys, missing keys and values of another type, so that a misspelt setting is an error and
never a default.

===============  ===============================================================================
config.py        configuration and step plan of a trial
settings.py      settings of a study, and their fingerprint
trial.py         trials, baselines and verifications: their predicted cost and their outcome
results.py       what a training records, and measurements of boards
stored_trial.py  trials as stored, in one table of values
study.py         a study at one moment
===============  ===============================================================================
"""

from farsearch.json_records import Record
from farsearch.records.config import PER_LAYER, Engine, Engines, FarConfig, Precision, StepPlan
from farsearch.records.results import Baseline, LossPoint, Measurement, MetricPoint, PrimingReport, Verification
from farsearch.records.settings import PRICING, JobSpec, Priming, StudySettings
from farsearch.records.stored_trial import FlatTrial, flat, read_trial, trial_to_dict
from farsearch.records.study import SCHEMA_VERSION, Paired, PointKey, StudySnapshot, constant_answer, point_key
from farsearch.records.trial import (
    AnyTrial,
    BaselineTrial,
    Completed,
    CompleteTrial,
    Cost,
    Failed,
    PlanPrice,
    PricedTrial,
    Running,
    Stopped,
    Trial,
    TrialOutcome,
    UnpricedTrial,
    VerifiedTrial,
    Waiting,
    cost_of,
    is_complete,
    on_front,
    reason_of,
    result_of,
)

__all__ = [
    "PER_LAYER",
    "PRICING",
    "SCHEMA_VERSION",
    "AnyTrial",
    "Baseline",
    "BaselineTrial",
    "CompleteTrial",
    "Completed",
    "Cost",
    "Engine",
    "Engines",
    "Failed",
    "FarConfig",
    "FlatTrial",
    "JobSpec",
    "LossPoint",
    "Measurement",
    "MetricPoint",
    "Paired",
    "PlanPrice",
    "PointKey",
    "Precision",
    "PricedTrial",
    "Priming",
    "PrimingReport",
    "Record",
    "Running",
    "StepPlan",
    "Stopped",
    "StudySettings",
    "StudySnapshot",
    "Trial",
    "TrialOutcome",
    "UnpricedTrial",
    "Verification",
    "VerifiedTrial",
    "Waiting",
    "constant_answer",
    "cost_of",
    "flat",
    "is_complete",
    "on_front",
    "point_key",
    "read_trial",
    "reason_of",
    "result_of",
    "trial_to_dict",
]
