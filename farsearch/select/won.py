"""What a study won against what a user would do without it, in sentences. Pure."""

from __future__ import annotations

from farsearch.comparison import (
    costs_no_more,
    difference,
    full_fine_tuning_of,
    is_no_better,
    leads,
    ratios,
    trains_everything,
)
from farsearch.formatting import human_difference, human_memory, metric_words
from farsearch.records import CompleteTrial, FarConfig, StudySnapshot, Trial
from farsearch.select.choice import Intent, choose
from farsearch.select.explanation import rivals

__all__ = ["won"]

_ROOM = 0.75
"""A device has room to spare where full fine-tuning surely takes at most this share of its memory."""


def won(snapshot: StudySnapshot) -> tuple[str, ...]:
    """Return what the search won, in sentences; empty for a study without a front or without anything to compare with.

    The trial that is compared is the recommended one: the cheapest within noise of the best. The first sentence is
    whether full fine-tuning fits the device, where that is known and tells something; then follow the comparisons with
    full fine-tuning and LoRA, and whether training hidden neurons pays.
    """
    if not snapshot.front:
        return ()
    full = full_fine_tuning_of(snapshot)
    lora = next((trial for trial in snapshot.baselines if trial.baseline.method.startswith("lora")), None)
    trial = choose(snapshot, Intent(within="noise")).trial
    sentences = [] if full is None else _room(snapshot, full)
    if isinstance(trial, Trial) and trains_everything(trial.config):
        sentences.append(f"trial {trial.number} is full fine-tuning: nothing that costs less is within noise of it")
    elif full is not None:
        sentences.append(_compared(snapshot, trial, full, "full fine-tuning"))
    if lora is not None:
        sentences.append(_compared(snapshot, trial, lora, lora.baseline.title))
    for rival in rivals(snapshot, trial):
        sentences.append(f"{rival.baseline.title} costs no more than trial {trial.number} and is as good")
    if _neurons_never_pay(snapshot):
        sentences.append("nothing here is better than freezing all feed-forward blocks")
    return tuple(sentences)


def _room(snapshot: StudySnapshot, full: CompleteTrial) -> list[str]:
    """Return whether full fine-tuning fits: nothing where it fits without room to spare."""
    device, budget = snapshot.settings.device, snapshot.budget_mib
    most = (full.cost.peak_memory_range_mib or (full.cost.peak_memory_mib,))[-1]
    if most > budget:
        return [
            f"full fine-tuning does not fit {device}: it takes up to {human_memory(most)}, of which "
            f"{human_memory(budget)} are surely there"
        ]
    if most > _ROOM * budget:
        return []
    taken = f"up to {human_memory(most)} of {human_memory(budget)}"
    return [f"full fine-tuning fits {device} with room to spare ({taken}): what can be won there is time"]


def _compared(snapshot: StudySnapshot, trial: CompleteTrial, other: CompleteTrial, title: str) -> str:
    """Return how a trial compares with a method in metric, memory and time."""
    if other.outcome.learned is False:
        return f"{title} did not learn at any of its rates, so nothing is compared with it"
    found = difference(snapshot, trial, other)
    verb = "keeps" if found.within_noise else "is above" if found.value > 0 else "is below"
    gap = human_difference(snapshot.metric_name, found.value, found.error)
    memory, time = ratios(trial, other)
    return (
        f"trial {trial.number} {verb} {title}'s {metric_words(snapshot.metric_name)} ({gap}) with {memory:.2f} of its "
        f"memory and {time:.2f} of its time"
    )


def _neurons_never_pay(snapshot: StudySnapshot) -> bool:
    """Return whether each choice that trains hidden neurons is no better than a cheaper point that trains none.

    False where no such point is known.
    """
    known: list[CompleteTrial] = [trial for trial in snapshot.complete if isinstance(trial, Trial)]
    without = [
        trial
        for trial in (*known, *snapshot.baselines)
        if trial.config is not None and not _trains_neurons(trial.config) and trial.outcome.learned is not False
    ]
    return bool(without) and all(
        any(costs_no_more(other, lead.trial) and is_no_better(snapshot, lead.trial, other) for other in without)
        for lead in leads(snapshot)
        if _trains_neurons(lead.trial.config)
    )


def _trains_neurons(config: FarConfig) -> bool:
    return any(fraction < 1 for fraction in config.canonical().frozen_fractions)
