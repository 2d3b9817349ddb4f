"""Records: strict round trips, errors that name the key, fingerprints and canonical forms."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.errors import BadInput
from farsearch.records import (
    FarConfig,
    JobSpec,
    LossPoint,
    Priming,
    PrimingReport,
    Record,
    StepPlan,
    StudySettings,
    StudySnapshot,
    TrialRecord,
)
from tests.factories import make_settings, make_snapshot, make_trial

numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=1e-12, max_value=1e12)
counts = st.integers(0, 2**40)
texts = st.text(max_size=12)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), counts, numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
ranges = st.one_of(st.none(), st.tuples(numbers, numbers))
maybe = st.one_of(st.none(), numbers)

primings = st.builds(
    Priming,
    optimizer=st.sampled_from(["adamw", "sgd"]),
    learning_rate=positive,
    warmup_steps=counts,
    selection=st.sampled_from(["l1", "random"]),
    frozen_values=st.sampled_from(["pretrained", "primed"]),
)
jobs = st.builds(
    JobSpec,
    task=texts,
    data=texts,
    model=texts,
    weights=texts,
    train_samples=st.integers(1, 10**6),
    validation_samples=st.integers(1, 10**6),
    batch_size=st.integers(1, 512),
    max_length=st.integers(4, 512),
    seed=st.integers(-(2**31), 2**31),
    priming=primings,
)


@st.composite
def far_configs(draw: st.DrawFn) -> FarConfig:
    """Draw any configuration of up to eight layers."""
    fractions = tuple(draw(st.lists(st.floats(0, 1), max_size=8)))
    return FarConfig(
        frozen_fractions=fractions,
        learning_rate=draw(positive),
        epochs=draw(st.floats(1e-3, 10_000)),
        priming_epochs=draw(st.floats(0, 9)),
        frozen_embeddings=draw(st.booleans()),
        frozen_attention_layers=draw(st.integers(0, len(fractions))),
        frozen_bottom_layers=draw(st.integers(0, len(fractions))),
    )


plans = st.builds(
    StepPlan,
    optimizer=st.sampled_from(["adamw", "sgd"]),
    micro_batch_size=st.one_of(st.none(), st.integers(1, 99)),
)
settings = st.builds(
    StudySettings,
    job=jobs,
    device=texts,
    profile=texts,
    space=st.dictionaries(texts, json_values, max_size=3),
    prime_on=st.sampled_from(["host", "device"]),
    max_memory_mib=maybe,
    max_time_s=maybe,
    device_samples=st.one_of(st.none(), counts),
)
reports = st.builds(PrimingReport, counts, numbers, st.booleans(), numbers, maybe, maybe)
trials = st.builds(
    TrialRecord,
    number=counts,
    state=st.sampled_from(["running", "waiting", "complete", "pruned", "fail"]),
    metric=maybe,
    feasible=st.one_of(st.none(), st.booleans()),
    on_front=st.booleans(),
    config=st.one_of(st.none(), far_configs()),
    plan=st.one_of(st.none(), plans),
    peak_memory_range_mib=ranges,
    memory=st.dictionaries(texts, numbers, max_size=3),
    trainable=st.one_of(st.none(), counts),
    priming=st.one_of(st.none(), reports),
    curve=st.lists(st.builds(LossPoint, counts, numbers), max_size=3).map(tuple),
    reason=st.one_of(st.none(), texts),
)
snapshots = st.builds(
    StudySnapshot,
    name=texts,
    settings=settings,
    metric_name=texts,
    budget_mib=numbers,
    n_trials=counts,
    trials=st.lists(trials, max_size=2).map(tuple),
    rejected=st.dictionaries(texts, counts, max_size=2),
    meta=st.dictionaries(texts, json_values, max_size=2),
)


@given(st.one_of(primings, jobs, far_configs(), plans, settings, reports, trials, snapshots))
def test_round_trip_through_json(record: Record) -> None:
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert type(record).from_dict(json.loads(text)) == record


@given(snapshots)
def test_to_dict_has_only_json_types(snapshot: StudySnapshot) -> None:
    """A file then does not change values."""
    data = snapshot.to_dict()
    assert json.loads(json.dumps(data)) == data


def test_integers_are_valid_floats() -> None:
    """1 in a file is read as 1.0."""
    config = FarConfig.from_dict({"frozen_fractions": [0, 1], "learning_rate": 1, "epochs": 2})
    assert config == FarConfig((0.0, 1.0), 1.0, 2.0)
    assert all(type(value) is float for value in (*config.frozen_fractions, config.learning_rate, config.epochs))


def test_fields_with_defaults_are_optional() -> None:
    assert StepPlan.from_dict({}) == StepPlan()
    assert TrialRecord.from_dict({"number": 3, "state": "fail"}) == TrialRecord(3, "fail")


def test_engine_of_a_plan_is_stored_only_if_it_is_not_torch() -> None:
    """Records and fingerprints from before there was another engine stay as they are."""
    assert "engine" not in StepPlan().to_dict()
    onnx = StepPlan(engine="onnx", feed_forward="store")
    assert onnx.to_dict()["engine"] == "onnx"
    assert StepPlan.from_dict(onnx.to_dict()) == onnx
    assert StepPlan.from_dict({"engine": "torch"}) == StepPlan()
    assert onnx.title == f"{StepPlan(feed_forward='store').title}; onnx"
    with pytest.raises(BadInput, match="engine is 'tf'; it must be one of 'torch', 'onnx'"):
        StepPlan.from_dict({"engine": "tf"})


def _put(data: Any, path: str, value: Any) -> Any:
    """Return ``data`` with another value at a dotted path; ``...`` removes the key."""
    data = json.loads(json.dumps(data))
    *parents, last = path.split(".")
    found = data
    for name in parents:
        found = found[int(name) if isinstance(found, list) else name]
    if value is ...:
        del found[last]
    else:
        found[int(last) if isinstance(found, list) else last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("colour", 1, "StudySnapshot has the unknown key 'colour'; known are name, settings"),
        ("settings.job.sed", 1, "StudySnapshot.settings.job has the unknown key 'sed'"),
        ("trials.1.config.frozen_fraction", 0.5, r"trials\[1\].config has the unknown key 'frozen_fraction'"),
        ("name", ..., "StudySnapshot lacks the key 'name'; it needs name, settings, metric_name"),
        ("settings.job.seed", ..., "StudySnapshot.settings.job lacks the key 'seed'"),
        ("name", 3, "StudySnapshot.name is 3; it must be of type str"),
        ("name", None, "StudySnapshot.name is None; it must be of type str"),
        ("settings.job.seed", 1.5, "settings.job.seed is 1.5; it must be of type int"),
        ("settings.job.seed", True, "settings.job.seed is True; it must be of type int"),
        ("settings.job.seed", "1", "settings.job.seed is '1'; it must be of type int"),
        ("budget_mib", "much", "budget_mib is 'much'; it must be of type float"),
        ("budget_mib", True, "budget_mib is True; it must be of type float"),
        ("settings.prime_on", "moon", "settings.prime_on is 'moon'; it must be one of 'host', 'device'"),
        ("settings.prime_on", ["host"], r"settings.prime_on is \['host'\]; it must be one of"),
        ("trials", {}, "StudySnapshot.trials is {}; it must be a list"),
        ("trials.0", 7, r"StudySnapshot.trials\[0\] is 7; it must be a table of its fields"),
        ("trials.0.on_front", 1, r"trials\[0\].on_front is 1; it must be of type bool"),
        ("trials.0.memory", [1], r"trials\[0\].memory is \[1\]; it must be a table"),
        ("trials.0.memory.parameters", None, r"trials\[0\].memory.parameters is None; it must be of type float"),
        ("trials.0.config.frozen_fractions.2", "all", r"frozen_fractions\[2\] is 'all'; it must be of type float"),
        ("trials.0.config.frozen_fractions.2", 1.5, "frozen fraction 1.5 of layer 2 is outside 0 to 1"),
        ("rejected.peak memory", 1.5, "rejected.peak memory is 1.5; it must be of type int"),
    ],
)
def test_errors_name_the_key_and_the_rule(path: str, value: Any, message: str) -> None:
    """The key is unknown or missing, or its value has another type."""
    data = make_snapshot().to_dict()
    assert StudySnapshot.from_dict(data) == make_snapshot()
    with pytest.raises(BadInput, match=message) as caught:
        StudySnapshot.from_dict(_put(data, path, value))
    assert "\n" not in str(caught.value)


GOOD = {"frozen_fractions": (0.5, 0.5), "learning_rate": 1e-4, "epochs": 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frozen_fractions": (0.5, -0.1)}, "frozen fraction -0.1 of layer 1 is outside 0 to 1"),
        ({"frozen_fractions": (float("nan"), 0.1)}, "frozen fraction nan of layer 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be a number above 0"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"epochs": 0.0}, "epochs is 0.0; it must be"),
        ({"epochs": float("inf")}, "epochs is inf; it must be"),
        ({"epochs": float("nan")}, "epochs is nan; it must be"),
        ({"priming_epochs": -1.0}, "priming_epochs is -1.0; it must be"),
        ({"priming_epochs": float("inf")}, "priming_epochs is inf; it must be"),
        ({"frozen_attention_layers": 3}, "frozen_attention_layers is 3; the model has 2 layers"),
        ({"frozen_bottom_layers": -1}, "frozen_bottom_layers is -1; the model has 2 layers"),
    ],
)
def test_rules_of_a_configuration(change: Mapping[str, Any], message: str) -> None:
    """Values outside their range are refused by the constructor."""
    with pytest.raises(BadInput, match=message):
        FarConfig(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (Priming(), {"learning_rate": 0.0}, "priming learning_rate is 0.0"),
        (Priming(), {"learning_rate": float("inf")}, "priming learning_rate is inf"),
        (Priming(), {"warmup_steps": -1}, "priming warmup_steps is -1"),
        (make_settings().job, {"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        (make_settings().job, {"train_samples": 0}, "train_samples is 0"),
        (make_settings().job, {"validation_samples": -1}, "validation_samples is -1"),
        (make_settings().job, {"max_length": 3}, "max_length is 3; it must be at least 4 tokens"),
        (StepPlan(), {"micro_batch_size": 0}, "micro_batch_size is 0; it must be at least 1"),
    ],
)
def test_rules_of_job_priming_and_plan(record: Any, change: Mapping[str, Any], message: str) -> None:
    """Values outside their range are refused by the constructor."""
    with pytest.raises(BadInput, match=message):
        dataclasses.replace(record, **change)


@given(far_configs())
def test_canonical_is_idempotent(config: FarConfig) -> None:
    """It marks all parts of the frozen bottom as frozen."""
    canonical = config.canonical()
    assert canonical.canonical() == canonical
    bottom = canonical.frozen_bottom_layers
    assert canonical.frozen_fractions[bottom:] == config.frozen_fractions[bottom:]
    if bottom:
        assert set(canonical.frozen_fractions[:bottom]) == {1.0}
        assert canonical.frozen_embeddings
        assert canonical.frozen_attention_layers >= bottom
    else:
        assert canonical == config


def test_equal_trainings_have_equal_canonical_forms() -> None:
    """Settings implied by a frozen bottom may be explicit or not."""
    short = FarConfig((0.3, 0.7, 0.5), 1e-4, 1.0, frozen_bottom_layers=2)
    full = FarConfig((1.0, 0.1, 0.5), 1e-4, 1.0, 0.0, True, 1, 2)
    assert short != full
    assert short.canonical() == full.canonical()
    assert hash(short.canonical()) == hash(full.canonical())


def _shuffled(value: Any, shuffler: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        shuffler.shuffle(keys)
        return {key: _shuffled(value[key], shuffler) for key in keys}
    return [_shuffled(item, shuffler) for item in value] if isinstance(value, list) else value


@given(settings, st.randoms(use_true_random=False))
def test_fingerprint_does_not_depend_on_the_order_of_keys(one: StudySettings, shuffler: random.Random) -> None:
    other = StudySettings.from_dict(_shuffled(one.to_dict(), shuffler))
    assert other.fingerprint() == one.fingerprint()
    assert one.differences(other) == []


def test_fingerprint_does_not_depend_on_the_notation_of_numbers() -> None:
    """1000 and 1000.0 are the same limit, before and after a round trip through a file."""
    one = make_settings(max_memory_mib=1000, space={"epochs": 1, "rates": [2, {"low": 3}]})
    other = make_settings(max_memory_mib=1000.0, space={"epochs": 1.0, "rates": [2.0, {"low": 3.0}]})
    assert one == other
    assert one.differences(other) == []
    assert one.fingerprint() == other.fingerprint() == StudySettings.from_dict(one.to_dict()).fingerprint()


CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({"device": "jetson-tx2"}, ['device: "jetson-nano", "jetson-tx2"']),
    ({"max_time_s": 60.0}, ["max_time_s: null, 60"]),
    ({"space": {"epochs": 2}}, ["space.epochs: 1, 2"]),
    ({"space": {"epochs": True}}, ["space.epochs: 1, true"]),
    ({"space": {}}, ["space: nothing, {}", "space.epochs: 1, nothing"]),
    ({"space": {"rate": {"low": 1}}}, ["space.epochs: 1, nothing", "space.rate.low: nothing, 1"]),
    (
        {"job": dataclasses.replace(make_settings().job, seed=2, priming=Priming(optimizer="sgd"))},
        ['job.priming.optimizer: "adamw", "sgd"', "job.seed: 1, 2"],
    ),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_differences_name_both_values(change: dict[str, Any], expected: list[str]) -> None:
    """Each such change also changes the fingerprint."""
    mine, theirs = make_settings(), make_settings(**change)
    assert mine.differences(theirs) == expected
    assert mine.fingerprint() != theirs.fingerprint()
    assert len(mine.fingerprint()) == 16


@given(settings, settings)
def test_fingerprints_differ_exactly_if_settings_differ(one: StudySettings, other: StudySettings) -> None:
    assert (one.fingerprint() == other.fingerprint()) == (one.differences(other) == [])


def test_front_is_ordered_by_memory() -> None:
    """Its order is independent of trial numbers; complete trials are in order of their numbers."""
    trials = [make_trial(0, 0.9, 1500.0, 3.0), make_trial(1, 0.8, 900.0, 2.0), make_trial(2, None, None, None)]
    trials[2] = dataclasses.replace(trials[2], state="fail")
    snapshot = make_snapshot(*trials, front={0, 1})
    assert [trial.number for trial in snapshot.front] == [1, 0]
    assert [trial.number for trial in snapshot.complete] == [0, 1]


def test_records_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_trial(0, 0.5, 1.0, 1.0).number = 3  # type: ignore[misc]
