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
    Baseline,
    BaselineTrial,
    Completed,
    Failed,
    FarConfig,
    FlatTrial,
    JobSpec,
    LossPoint,
    MetricPoint,
    PlanPrice,
    Priming,
    PrimingReport,
    Record,
    Running,
    StepPlan,
    Stopped,
    StudySettings,
    Trial,
    UnpricedTrial,
    Verification,
    VerifiedTrial,
    Waiting,
    flat,
    read_trial,
    trial_to_dict,
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
        frozen_heads=draw(st.sampled_from([(), tuple(round(2 * fraction) / 2 for fraction in fractions)])),
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
breakdowns = st.dictionaries(texts, numbers, max_size=3)
looks = st.lists(st.builds(MetricPoint, numbers, counts, numbers), max_size=2).map(tuple)
reasons = st.one_of(st.none(), st.text(min_size=1, max_size=12))
baselines = st.builds(Baseline, texts, texts, numbers, numbers)

COSTS: dict[str, st.SearchStrategy[Any]] = {
    "plan": plans,
    "peak_memory_mib": numbers,
    "wall_time_s": numbers,
    "energy_j": maybe,
    "feasible": st.one_of(st.none(), st.booleans()),
    "peak_memory_range_mib": ranges,
    "wall_time_range_s": ranges,
    "memory": breakdowns,
    "time": breakdowns,
    "trainable": counts,
}
OUTCOMES: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "running": {},
    "fail": {"reason": reasons},
    "pruned": {"reason": reasons, "host_seconds": maybe, "extrapolated_metric": maybe, "looks": looks},
    "complete": {
        "metric": numbers,
        "metric_error": numbers,
        "learned": st.one_of(st.none(), st.booleans()),
        "dev_metric": numbers,
        "parts": breakdowns,
        "host_seconds": numbers,
        "host_peak_mib": numbers,
        "priming": reports,
        "curve": st.lists(st.builds(LossPoint, counts, numbers), max_size=3).map(tuple),
        "looks": looks,
    },
}
"""The stored values that a trial has in each state, besides its costs."""
ORIGINS: list[dict[str, st.SearchStrategy[Any]]] = [
    {
        "config": far_configs(),
        "plans": st.lists(st.builds(PlanPrice, plans, numbers, numbers, st.booleans()), max_size=2).map(tuple),
        "on_front": st.booleans(),
    },
    {"baseline": baselines, "config": st.one_of(st.none(), far_configs())},
    {"verifies": st.builds(Verification, counts, counts, counts), "config": far_configs()},
    {
        "verifies": st.builds(Verification, st.none(), counts, counts),
        "baseline": baselines,
        "config": st.one_of(st.none(), far_configs()),
    },
]
"""The values that only one kind of trial has: of a search, a baseline, a repeated trial, a repeated baseline."""


@st.composite
def flat_trials(draw: st.DrawFn) -> FlatTrial:
    """Draw the stored values of a trial as any version has written them."""
    state = draw(st.sampled_from(["waiting", *OUTCOMES]))
    values = {**OUTCOMES.get(state, {})}
    if state in ("pruned", "complete") or (state != "waiting" and draw(st.booleans())):
        values |= {**COSTS, **draw(st.sampled_from(ORIGINS))}
    drawn: dict[str, Any] = {name: draw(value) for name, value in values.items()}
    return FlatTrial(number=draw(counts), state=state, **drawn)  # type: ignore[arg-type]


@given(flat_trials(), st.booleans())
def test_stored_trial_is_the_same_after_a_round_trip(stored: FlatTrial, old: bool) -> None:
    """Byte by byte; older versions wrote no key for values that were added later."""
    data = stored.to_dict()
    added = ("learned", "parts", "plans", "looks", "extrapolated_metric", "baseline", "verifies") if old else ()
    written = {key: value for key, value in data.items() if key not in added or value not in (None, [], {})}
    assert json.dumps(trial_to_dict(read_trial(json.loads(json.dumps(written))))) == json.dumps(data)


@given(flat_trials())
def test_trial_is_the_same_after_a_round_trip(stored: FlatTrial) -> None:
    trial = read_trial(stored.to_dict())
    assert flat(trial) == stored
    assert read_trial(trial_to_dict(trial)) == trial


@pytest.mark.parametrize(
    ("changes", "kind", "outcome"),
    [
        ({}, Trial, Completed),
        ({"state": "running"}, Trial, Running),
        ({"state": "fail", "reason": "killed"}, Trial, Failed),
        ({"state": "pruned", "reason": "the loss is nan"}, Trial, Stopped),
        ({"state": "running", "plan": None}, UnpricedTrial, Running),
        ({"state": "waiting", "plan": None}, UnpricedTrial, Waiting),
        ({"baseline": Baseline("full", "full fine-tuning", 5e-5, 1.0)}, BaselineTrial, Completed),
        ({"verifies": Verification(3, 1, 4096)}, VerifiedTrial, Completed),
    ],
)
def test_stored_values_decide_on_the_kind_of_trial(changes: dict[str, Any], kind: type, outcome: type) -> None:
    trial = make_trial(3, 0.8, 900.0, 90.0, **changes)
    assert (type(trial), type(trial.outcome)) == (kind, outcome)


def test_results_of_a_killed_trial_are_dropped() -> None:
    """A kill between the record and the end of a trial leaves them."""
    data = trial_to_dict(make_trial(3, 0.8, 900.0, 90.0)) | {"state": "fail", "reason": "killed"}
    assert read_trial(data).outcome == Failed("killed")


@pytest.mark.parametrize("name", ["metric", "plan", "peak_memory_mib", "config", "priming"])
def test_complete_trial_without_a_value_is_refused(name: str) -> None:
    data = trial_to_dict(make_trial(3, 0.8, 900.0, 90.0)) | {name: None}
    with pytest.raises(BadInput, match=f"trial 3 is complete and lacks '{name}'"):
        read_trial(data)


@given(st.one_of(primings, jobs, far_configs(), plans, settings, reports, flat_trials()))
def test_round_trip_through_json(record: Record) -> None:
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert type(record).from_dict(json.loads(text)) == record


@given(st.one_of(settings, flat_trials()))
def test_to_dict_has_only_json_types(record: Record) -> None:
    """A file then does not change values."""
    data = record.to_dict()
    assert json.loads(json.dumps(data)) == data


def test_integers_are_valid_floats() -> None:
    """1 in a file is read as 1.0."""
    config = FarConfig.from_dict({"frozen_fractions": [0, 1], "learning_rate": 1, "epochs": 2})
    assert config == FarConfig((0.0, 1.0), 1.0, 2.0)
    assert all(type(value) is float for value in (*config.frozen_fractions, config.learning_rate, config.epochs))


def test_fields_with_defaults_are_optional() -> None:
    assert StepPlan.from_dict({}) == StepPlan()
    assert read_trial({"number": 3, "state": "fail"}) == UnpricedTrial(number=3, outcome=Failed())


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
        ("colour", 1, "StudySettings has the unknown key 'colour'; known are job, device"),
        ("job.sed", 1, "StudySettings.job has the unknown key 'sed'"),
        ("device", ..., "StudySettings lacks the key 'device'; it needs job, device, profile, space"),
        ("job.seed", ..., "StudySettings.job lacks the key 'seed'"),
        ("device", 3, "StudySettings.device is 3; it must be of type str"),
        ("device", None, "StudySettings.device is None; it must be of type str"),
        ("job", 7, "StudySettings.job is 7; it must be a table of its fields"),
        ("job.seed", 1.5, "job.seed is 1.5; it must be of type int"),
        ("job.seed", True, "job.seed is True; it must be of type int"),
        ("job.seed", "1", "job.seed is '1'; it must be of type int"),
        ("max_time_s", "much", "max_time_s is 'much'; it must be of type float"),
        ("max_time_s", True, "max_time_s is True; it must be of type float"),
        ("prime_on", "moon", "StudySettings.prime_on is 'moon'; it must be one of 'host', 'device'"),
        ("prime_on", ["host"], r"StudySettings.prime_on is \['host'\]; it must be one of"),
    ],
)
def test_errors_name_the_key_and_the_rule(path: str, value: Any, message: str) -> None:
    """The key is unknown or missing, or its value has another type."""
    data = make_settings().to_dict()
    with pytest.raises(BadInput, match=message) as caught:
        StudySettings.from_dict(_put(data, path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("config.frozen_fraction", 0.5, "FlatTrial.config has the unknown key 'frozen_fraction'"),
        ("curve", {}, "FlatTrial.curve is {}; it must be a list"),
        ("curve.0", 7, r"FlatTrial.curve\[0\] is 7; it must be a table of its fields"),
        ("on_front", 1, "FlatTrial.on_front is 1; it must be of type bool"),
        ("memory", [1], r"FlatTrial.memory is \[1\]; it must be a table"),
        ("memory.parameters", None, "FlatTrial.memory.parameters is None; it must be of type float"),
        ("config.frozen_fractions.2", "all", r"frozen_fractions\[2\] is 'all'; it must be of type float"),
        ("config.frozen_fractions.2", 1.5, "frozen fraction 1.5 of layer 2 is outside 0 to 1"),
        ("curve.1.step", 1.5, r"curve\[1\].step is 1.5; it must be of type int"),
    ],
)
def test_errors_in_a_stored_trial_name_the_key_and_the_rule(path: str, value: Any, message: str) -> None:
    data = trial_to_dict(make_trial(0, 0.8, 1000.0, 100.0))
    with pytest.raises(BadInput, match=message) as caught:
        read_trial(_put(data, path, value))
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
        ({"frozen_heads": (0.5, 1.5)}, "frozen_heads 1.5 of layer 1 is outside 0 to 1"),
        ({"frozen_heads": (0.5,)}, "frozen_heads has 1 values; the model has 2 layers"),
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
    elif not config.frozen_heads:
        assert canonical == config


def test_equal_trainings_have_equal_canonical_forms() -> None:
    """Settings implied by a frozen bottom may be explicit or not."""
    short = FarConfig((0.3, 0.7, 0.5), 1e-4, 1.0, frozen_bottom_layers=2)
    full = FarConfig((1.0, 0.1, 0.5), 1e-4, 1.0, 0.0, True, 1, 2)
    assert short != full
    assert short.canonical() == full.canonical()
    assert hash(short.canonical()) == hash(full.canonical())


@given(far_configs())
def test_canonical_heads_freeze_the_same(config: FarConfig) -> None:
    """Each layer has the same share of frozen heads, counted from both fields; no shares stand for none frozen."""

    def shares(config: FarConfig) -> list[float]:
        layers, lowest = len(config.frozen_fractions), config.frozen_attention_layers
        own = config.frozen_heads or (0.0,) * layers
        return [1.0 if i < max(lowest, config.frozen_bottom_layers) else own[i] for i in range(layers)]

    canonical = config.canonical()
    assert shares(canonical) == shares(config)
    above = shares(config)[canonical.frozen_attention_layers :]
    assert bool(canonical.frozen_heads) == any(above)
    assert not canonical.frozen_heads or above[0] < 1


def test_record_without_frozen_heads_is_stored_as_before() -> None:
    """Configurations from before there were shares of heads have the same stored form, and are read."""
    stored = FarConfig((0.3, 0.7), 1e-4, 1.0).to_dict()
    assert "frozen_heads" not in stored
    assert FarConfig.from_dict(stored).frozen_heads == ()
    assert FarConfig.from_dict({**stored, "frozen_heads": [0, 0.5]}).to_dict()["frozen_heads"] == [0.0, 0.5]


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
    trials = [make_trial(0, 0.9, 1500.0, 3.0), make_trial(1, 0.8, 900.0, 2.0)]
    trials.append(make_trial(2, None, None, None, state="fail"))
    snapshot = make_snapshot(*trials, front={0, 1})
    assert [trial.number for trial in snapshot.front] == [1, 0]
    assert [trial.number for trial in snapshot.complete] == [0, 1]


def test_records_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_trial(0, 0.5, 1.0, 1.0).number = 3
