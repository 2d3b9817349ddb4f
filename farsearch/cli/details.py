"""One trial, and one device profile, in full, as rows for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from farsearch.formatting import (
    constant_text,
    constant_value,
    human_memory,
    human_metric,
    human_time,
    idle_words,
    mean_frozen,
    metric_words,
)
from farsearch.records import (
    Stopped,
    Trial,
    UnpricedTrial,
    VerifiedTrial,
    cost_of,
    is_complete,
    on_front,
    reason_of,
    result_of,
)
from farsearch.significance import advantage_text, verdicts

if TYPE_CHECKING:
    from farsearch.devices.profile import Profile
    from farsearch.records import AnyTrial, Baseline, Cost, PlanPrice, PrimingReport, StudySnapshot

__all__ = ["profile_rows", "trial_details"]


def trial_details(snapshot: StudySnapshot, trial: AnyTrial) -> list[dict[str, str]]:
    """Return rows of ``what`` and ``value`` with everything known of one trial; unknown values have no row."""
    cost, searched = cost_of(trial), isinstance(trial, Trial)
    pairs = [
        *_result_pairs(snapshot, trial),
        *(_verified_pairs(snapshot, trial.number) if searched else ()),
        *(_cost_pairs(cost) if cost else ()),
        *(_board_pairs(snapshot, trial.number) if searched else ()),
        *_config_pairs(trial),
        *_training_pairs(trial),
    ]
    return [{"what": what, "value": value} for what, value in pairs if value]


def _result_pairs(snapshot: StudySnapshot, trial: AnyTrial) -> list[tuple[str, str]]:
    name, job, result = snapshot.metric_name, snapshot.settings.job, result_of(trial)
    title = metric_words(name)
    metric = human_metric(name, result.metric, result.metric_error) if result else ""
    if isinstance(trial, VerifiedTrial):
        verified = trial.verifies
        where = f" on the development set, trained on {verified.train_samples:,} rows with seed {verified.seed}"
        return [
            ("state", trial.outcome.state),
            ("reason", reason_of(trial)),
            ("trained again", "" if verified.trial is None else f"trial {verified.trial}"),
            (title, f"{metric}{where}" if metric else ""),
            ("a constant answer", human_metric(name, constant_value(snapshot, "dev"))),
        ]
    return [
        ("state", f"{trial.outcome.state}{', on the front' if on_front(trial) else ''}"),
        ("reason", reason_of(trial)),
        (
            title,
            f"{metric} on {job.validation_samples:,} validation rows (± their error alone)" if metric else "",
        ),
        (
            "did not learn",
            "no better than a constant answer, beyond the error of the rows" if idle_words(trial) else "",
        ),
        (
            f"{title}, development set",
            f"{human_metric(name, result.dev_metric)} (not used for any choice)" if result else "",
        ),
        ("beside it", constant_text(snapshot)),
        ("F1 is of class", job.positive or ""),
        *(_part_pairs(result.parts) if result else ()),
    ]


def _part_pairs(parts: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the parts of a composite metric, and the metric on further development sets."""
    pairs = []
    for name, value in parts.items():
        where, _, part = name.rpartition("/")
        title = metric_words(part) + where.replace("dev", ", development set", 1).replace("_", " ")
        pairs.append((title, human_metric(part, value)))
    return pairs


def _verified_pairs(snapshot: StudySnapshot, number: int) -> list[tuple[str, str]]:
    name = snapshot.metric_name
    point = next((v for v in verdicts(snapshot) if v.trial == number), None)
    if point is None:
        return []
    value = human_metric(name, point.mean, point.deviation) if point.scores else "no result"
    seeds, failed = len(point.scores), f", {point.failed} failed" if point.failed else ""
    spread = "mean ± deviation over " if point.deviation is not None else ""
    rows = f"{spread}{seeds} seed{'s' * (seeds != 1)}{failed}, each on {point.train_samples:,} rows"
    return [
        ("verified, development set", f"{value} ({rows})"),
        ("advantage over what costs less", advantage_text(point, name)),
    ]


def _board_pairs(snapshot: StudySnapshot, number: int) -> list[tuple[str, str]]:
    return [
        (
            "measured on a board",
            f"{one.machine}: {human_memory(one.peak_memory_mib)} (predicted {human_memory(one.predicted_memory_mib)}), "
            f"{human_time(one.wall_time_s)} (predicted {human_time(one.predicted_time_s)})"
            + (f", {human_metric(snapshot.metric_name, one.metric)} there" if one.metric is not None else ""),
        )
        for one in snapshot.measurements
        if one.trial == number
    ]


def _cost_pairs(cost: Cost) -> list[tuple[str, str]]:
    return [
        ("peak memory", _with_range(human_memory, cost.peak_memory_mib, cost.peak_memory_range_mib)),
        ("of it tensors", _parts(cost.memory, human_memory)),
        ("device time", _with_range(human_time, cost.wall_time_s, cost.wall_time_range_s)),
        ("of it", _parts(cost.time, human_time)),
        ("energy", "" if cost.energy_j is None else f"{cost.energy_j:,.0f} J (estimate)"),
        ("fits device and bounds", {True: "yes", False: "no", None: ""}[cost.feasible]),
    ]


def _with_range(human: Callable[[float], str], value: float, ends: Sequence[float] | None) -> str:
    return f"{human(value)} (estimate{f', {human(ends[0])} to {human(ends[-1])}' if ends else ''})"


def _parts(parts: Mapping[str, float], human: Callable[[float], str]) -> str:
    """Format a breakdown, the largest part first, without parts below 0.5 %."""
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {human(value)}" for name, value in ordered if value > 0.005 * sum(parts.values()))


def _config_pairs(trial: AnyTrial) -> list[tuple[str, str]]:
    if isinstance(trial, UnpricedTrial):
        return []
    if trial.config is None:
        return [] if trial.baseline is None else _baseline_pairs(trial.baseline, trial.cost)
    config, plan = trial.config, trial.plan
    plans = trial.plans if isinstance(trial, Trial) else ()
    return [
        ("frozen neurons", f"{mean_frozen(config):.0%} on average"),
        (
            "  by layer, from the bottom",
            ", ".join(f"{fraction:.0%}" for fraction in config.canonical().frozen_fractions),
        ),
        ("frozen embeddings", "yes" if config.canonical().frozen_embeddings else "no"),
        ("frozen attention", _lowest(config.frozen_attention_layers)),
        ("frozen heads", _by_layer(config.canonical().frozen_heads)),
        ("wholly frozen", _lowest(config.frozen_bottom_layers)),
        ("trained parameters", f"{trial.cost.trainable:,}"),
        ("learning rate", f"{config.learning_rate:.2e}"),
        ("epochs", f"{config.epochs:g}, after {config.priming_epochs:g} of priming"),
        ("step plan", plan.title),
        *((f"  {other.plan.title}", _plan_price(other)) for other in plans if other.plan != plan),
        ("optimizer", plan.optimizer),
        ("micro-batch", "" if plan.micro_batch_size is None else f"{plan.micro_batch_size} rows"),
    ]


def _by_layer(shares: Sequence[float]) -> str:
    return ", ".join(f"{share:.0%}" for share in shares) + " by layer" * bool(shares)


def _baseline_pairs(baseline: Baseline, cost: Cost) -> list[tuple[str, str]]:
    """Return the rows of a method that is no FAR configuration."""
    return [
        ("method", baseline.title),
        ("trained parameters", f"{cost.trainable:,}"),
        ("learning rate", f"{baseline.learning_rate:.2e}"),
        ("epochs", f"{baseline.epochs:g}"),
    ]


def _plan_price(price: PlanPrice) -> str:
    """Format the cost of the same training under another step plan."""
    text = f"{human_memory(price.peak_memory_mib)}, {human_time(price.wall_time_s)} (derived, nothing else changes)"
    return text if price.feasible else f"{text}, does not fit"


def _lowest(layers: int) -> str:
    return f"the {layers} lowest layer{'s' * (layers != 1)}" if layers else "in no layer"


def _training_pairs(trial: AnyTrial) -> list[tuple[str, str]]:
    if isinstance(trial.outcome, Stopped):
        return [("on this host", human_time(trial.outcome.host_seconds))]
    if not is_complete(trial):
        return []
    result = trial.outcome
    first, last = (result.curve[0], result.curve[-1]) if result.curve else (None, None)
    return [
        *(_priming_pairs(result.priming) if trial.config else ()),
        (
            "loss",
            f"{first.loss:.3f} at step {first.step}, {last.loss:.3f} at step {last.step}" if first and last else "",
        ),
        ("on this host", f"{human_time(result.host_seconds)}, process peak {human_memory(result.host_peak_mib)}"),
    ]


def _priming_pairs(report: PrimingReport) -> list[tuple[str, str]]:
    if report.chance_overlap is None:
        selection = "none: every layer is trained or frozen as a whole"
    elif report.steps == 0:
        selection = "random: there was no priming to select by"
    elif report.half_overlap is None:
        selection = "by how far the neurons moved; one step of priming is too few to check the selection"
    else:
        overlap, chance = report.half_overlap, report.chance_overlap
        selection = (
            f"both halves of the priming agree on {overlap:.0%} of the learners; by chance it would be {chance:.0%}"
        )
        if report.like_chance:
            selection += ". The selection is no better than a random one: prime longer, or not at all"
    cached = ", from the cache" if report.from_cache else ""
    ran = f"{report.steps} step{'s' * (report.steps != 1)}, {human_time(report.host_seconds)} here{cached}"
    return [
        ("priming", ran if report.steps else "none"),
        ("selection", selection),
        ("spread of the scores", f"{report.score_spread:.2f} of their mean" if report.steps else ""),
    ]


def profile_rows(profile: Profile) -> list[dict[str, str]]:
    """Return one row for each figure of a device profile, with its range, basis and source.

    A figure of another engine than torch has the engine's name in front.
    """
    figures = {key.partition(".")[2]: figure for key, figure in profile.figures().items()}
    if profile.onnx is not None:
        figures.update((f"onnx: {name}", figure) for name, figure in profile.onnx.figures().items())
    return [
        {
            "figure": name,
            "value": f"{figure.value:,g}",
            "range": "" if figure.low == figure.high else f"{figure.low:,g} to {figure.high:,g}",
            "basis": figure.basis,
            "source": figure.source,
        }
        for name, figure in figures.items()
    ]
