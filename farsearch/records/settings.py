"""Settings of a study: task, model, data, device and space, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from farsearch.json_records import UNLESS_DEFAULT, Record
from farsearch.records.config import Engines, Precision, check

__all__ = ["PRICING", "JobSpec", "Priming", "StudySettings"]

PRICING = 2
"""``pricing`` of new studies. It rises when the same settings get other predictions."""


@dataclass(frozen=True)
class Priming(Record):
    """The short training before the selection. Fixed for a study: only its length is searched.

    Attributes:
        optimizer: ``adamw`` or ``sgd`` (without momentum, so without state).
        learning_rate: constant after a linear warm-up over the first ``warmup_steps`` steps.
        selection: ``l1`` for the neurons that moved most, ``random`` for a seeded draw (the control).
        frozen_values: values of the frozen tensors in the FAR phase, ``pretrained`` or ``primed``.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 5e-5
    warmup_steps: int = 8
    selection: Literal["l1", "random"] = "l1"
    frozen_values: Literal["pretrained", "primed"] = "pretrained"

    def __post_init__(self) -> None:
        check(
            self.learning_rate > 0 and math.isfinite(self.learning_rate),
            f"priming learning_rate is {self.learning_rate}; it must be a number above 0",
        )
        check(self.warmup_steps >= 0, f"priming warmup_steps is {self.warmup_steps}; it must be at least 0")


@dataclass(frozen=True)
class JobSpec(Record):
    """Task, model and data of a study, fixed for all of its trials.

    Attributes:
        task: name of the task, ``sst2``.
        data: identity of its rows: SHA-256 over texts and labels.
        model: name as specified by the user, ``minilm``.
        weights: identity of the pre-trained weights: SHA-256 of the file, or ``NAME@COMMIT`` of the hub.
        train_samples: rows that a trial trains on, drawn by ``seed``.
        validation_samples: rows that the objective is measured on; 0 where that is the development set.
        max_length: tokens at which a text is truncated, and for which peak memory is predicted.
        keep_head: continue to train the checkpoint's head instead of a new one.
        positive: label of the class that the metric scores; None where it scores all, and in older studies, whose F1
            is that of the second class.
        class_weights: weights of the classes in the loss: ``balanced``, those of the trained rows
            (``runtime.class_weights``), or ``none``, as in older studies.
        patience: evaluations of the FAR phase in a row and without a better metric after which it stops, in its best
            state (``runtime.best_state``); None for the state at its end, as in older studies.
        label_smoothing: share of a class's target that is spread over all classes; None for none, as in older studies.
        clip_norm: norm of the gradients of all trained tensors in the FAR phase, to which larger ones are scaled; None
            for none, as in older studies.
    """

    task: str
    data: str
    model: str
    weights: str
    train_samples: int
    validation_samples: int
    batch_size: int
    max_length: int
    seed: int
    priming: Priming = field(default_factory=Priming)
    keep_head: bool = False
    positive: str | None = None
    class_weights: Literal["balanced", "none"] = field(default="none", metadata=UNLESS_DEFAULT)
    patience: int | None = field(default=None, metadata=UNLESS_DEFAULT)
    label_smoothing: float | None = field(default=None, metadata=UNLESS_DEFAULT)
    clip_norm: float | None = field(default=None, metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        smoothing, norm = self.label_smoothing, self.clip_norm
        check(smoothing is None or 0 < smoothing < 1, f"label_smoothing is {smoothing}; it must be between 0 and 1")
        check(norm is None or 0 < norm < math.inf, f"clip_norm is {norm}; it must be a number above 0")
        check(self.patience is None or self.patience >= 1, f"patience is {self.patience}; it must be at least 1")
        for name, least in (("train_samples", 1), ("validation_samples", 0), ("batch_size", 1)):
            check(getattr(self, name) >= least, f"{name} is {getattr(self, name)}; it must be at least {least}")
        check(self.max_length >= 4, f"max_length is {self.max_length}; it must be at least 4 tokens")


@dataclass(frozen=True)
class StudySettings(Record):
    """The settings that make two runs the same study.

    Attributes:
        device: name of the profile.
        profile: SHA-256 of the profile's values.
        space: the search space as in its YAML, with all ``--set`` values applied.
        prime_on: where priming runs; on ``device`` its memory and time are included.
        max_memory_mib: upper bound of the peak memory in addition to the device's; None for none.
        max_time_s: upper bound of the wall time on the device; None for none.
        device_samples: rows that the device trains on, for the predictions; None for ``train_samples``.
        plan: the goal for which the step plan of each configuration is chosen.
        pricing: version of the predictions: 1 chose among fewer plans than 2.
        engine: whose plans compete. Stored only if it is not ``torch``, as in studies from before there was another.
        engine_profile: SHA-256 of the values with which the plans of the engine ``onnx`` are priced; None without.
        precision: of the layers in the FAR phase of every trial. Stored only if it is not ``float32``, likewise.
    """

    job: JobSpec
    device: str
    profile: str
    space: Mapping[str, Any]
    prime_on: Literal["host", "device"] = "host"
    max_memory_mib: float | None = None
    max_time_s: float | None = None
    device_samples: int | None = None
    plan: Literal["memory", "time", "balanced"] = "balanced"
    pricing: int = 1
    engine: Engines = field(default="torch", metadata=UNLESS_DEFAULT)
    engine_profile: str | None = field(default=None, metadata=UNLESS_DEFAULT)
    precision: Precision = field(default="float32", metadata=UNLESS_DEFAULT)

    def fingerprint(self) -> str:
        """Return the SHA-256 (first 16 digits) of the settings.

        Independent of the order of keys, and of whether a number is written 1 or 1.0.
        """
        settings = self.to_dict()
        if self.pricing == 1:  # studies of that version have no entry
            del settings["pricing"]
        return hashlib.sha256(_text(settings).encode()).hexdigest()[:16]

    def differences(self, other: StudySettings) -> list[str]:
        """Return ``key: mine, theirs`` for each setting that differs, nested keys with dots."""
        mine, theirs = _flatten(self.to_dict()), _flatten(other.to_dict())
        return [
            f"{key}: {mine.get(key, _ABSENT)}, {theirs.get(key, _ABSENT)}"
            for key in sorted({*mine, *theirs})
            if mine.get(key) != theirs.get(key)
        ]


_ABSENT = "nothing"


def _text(value: Any) -> str:
    """Return JSON in which equal values have equal texts."""
    return json.dumps(_as_numbers(value), sort_keys=True)


def _as_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Return the leaves of nested mappings as texts, by their dotted keys."""
    if not isinstance(value, Mapping) or not value:
        return {prefix: _text(value)}
    return {
        name: item
        for key, child in value.items()
        for name, item in _flatten(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }
