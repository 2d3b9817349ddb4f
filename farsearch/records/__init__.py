"""Records of studies: frozen dataclasses with a strict round trip through JSON.

``from_dict`` rejects unknown keys, missing keys and values of another type, so that a misspelt setting is an error and
never a default.

===========  =================================================================
config.py    configuration and step plan of a trial
settings.py  settings of a study, and their fingerprint
trial.py     results of trials, baselines, verifications and boards
study.py     a study at one moment
===========  =================================================================
"""

from farsearch.json_records import Record
from farsearch.records.config import Engine, FarConfig, StepPlan
from farsearch.records.settings import PRICING, JobSpec, Priming, StudySettings
from farsearch.records.study import SCHEMA_VERSION, StudySnapshot
from farsearch.records.trial import (
    Baseline,
    LossPoint,
    Measurement,
    MetricPoint,
    PlanPrice,
    PrimingReport,
    TrialRecord,
    Verification,
)

__all__ = [
    "PRICING",
    "SCHEMA_VERSION",
    "Baseline",
    "Engine",
    "FarConfig",
    "JobSpec",
    "LossPoint",
    "Measurement",
    "MetricPoint",
    "PlanPrice",
    "Priming",
    "PrimingReport",
    "Record",
    "StepPlan",
    "StudySettings",
    "StudySnapshot",
    "TrialRecord",
    "Verification",
]
