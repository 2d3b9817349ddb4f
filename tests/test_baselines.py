"""The baselines: their trained parameters, an unchanged bench, and their auxiliary study."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from farsearch.baselines import (
    METHODS,
    Method,
    chosen_methods,
    default_choice,
    method_named,
    price_method,
    train_method,
)
from farsearch.cost.pricer import Pricer
from farsearch.errors import BadInput
from farsearch.far.layout import ModelLayout
from farsearch.formatting import baseline_rows
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import ModelSource
from farsearch.records import BaselineTrial, StepPlan, StudySnapshot, flat, point_key
from farsearch.study.baselines import baseline_epochs, first_configs, train_baselines
from farsearch.study.predictions import paired_errors
from farsearch.study.snapshot import snapshot_of
from farsearch.study.space import load_space
from farsearch.study.store import Store
from farsearch.tracking.content import trial_content
from tests.beds import Bed, Notes, make_bed
from tests.tiny import FAMILIES, make_model

PREPARED = tuple(method for method in METHODS.values() if method.prepare is not None)


def trained_names(method: str, model: nn.Module, layout: ModelLayout) -> list[str]:
    """Return the names of the parameters that a method trains."""
    prepare = method_named(method).prepare
    assert prepare is not None
    prepare(model, layout)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


# Trained parameters.


def test_published_counts_of_distilbert() -> None:
    """BitFit trains the published 0.64 M of DistilBERT; both counts follow from the model's shapes.

    Hidden size 768, 3,072 neurons, 6 layers, two classes; the head is ``pre_classifier`` and ``classifier``.
    """
    source = ModelSource("distilbert-base-uncased", "distilbert-base-uncased")
    head = 768 * 768 + 768 + 2 * 768 + 2
    biases = 6 * (4 * 768 + 3072 + 768 + 2 * 768) + 768
    adapters = 6 * 2 * 2 * 8 * 768
    for method, count in (("bitfit", biases + head), ("lora8", adapters + head), ("lora2", adapters // 4 + head)):
        with torch.device("meta"):
            model, layout = build_model(load_config(source, with_known=True), Head())
        trained_names(method, model, layout)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
    assert biases + head == 643_586


def test_bitfit_trains_biases_and_the_classifier() -> None:
    """Of BERT's pooler only the bias is trained, as in the authors' code."""
    names = trained_names("bitfit", *make_model("bert"))
    everything = [name for name, _ in make_model("bert")[0].named_parameters()]
    assert set(names) == {name for name in everything if name.endswith(".bias")} | {"classifier.weight"}
    assert "bert.pooler.dense.weight" not in names


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_does_not_change_the_initial_logits(family: str) -> None:
    """Adapters have rank 8, on query and value alone."""
    model, layout = make_model(family)
    model.eval()
    ids = torch.arange(5, 15).view(1, 10)
    before = model(input_ids=ids).logits
    names = trained_names("lora8", model, layout)
    model.eval()
    assert torch.equal(model(input_ids=ids).logits, before)
    adapted = {name.split(".lora_")[0] for name in names if "lora_" in name}
    assert adapted == {layer.attention[i] for layer in layout.layers for i in (0, 2)}
    assert all("lora_" in name or "classifier" in name for name in names)
    assert {min(p.shape) for name, p in model.named_parameters() if "lora_" in name} == {8}


def test_other_baselines_are_configurations() -> None:
    """Full fine-tuning freezes no neuron, FAR nine tenths after 1 % of priming, and the third all neurons."""
    configs = [METHODS[name].far_config(2, 1e-4, 3.0) for name in ("full", "far10", "ffn-frozen")]
    assert [config and config.frozen_fractions for config in configs] == [(0.0, 0.0), (0.9, 0.9), (1.0, 1.0)]
    assert [config and config.priming_epochs for config in configs] == [0.0, pytest.approx(0.03), 0.0]


def test_choices_of_baselines() -> None:
    """``paper`` has the methods of FAR's paper; each method has three learning rates, in order."""
    assert [method.name for method in chosen_methods("paper")] == ["full", "far10", "bitfit"]
    assert [method.name for method in chosen_methods("all")] == ["full", "far10", "ffn-frozen", "bitfit", "lora8"]
    assert chosen_methods("none") == ()
    for method in METHODS.values():
        assert len(set(method.learning_rates)) == 3
        assert list(method.learning_rates) == sorted(method.learning_rates)


# Training.


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory, tiny_distilbert: Path) -> Iterator[Bed]:
    """Return a bench with 48 rows of the tiny task in batches of 16: three steps per training."""
    with make_bed(tmp_path_factory.mktemp("bed"), tiny_distilbert) as made:
        yield made


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_training_leaves_the_bench_unchanged(bed: Bed, method: Method) -> None:
    """After a complete and an interrupted training the modules are the same, with gradients, ready for a trial."""

    def interrupt(step: int, steps: int, loss: float) -> None:
        raise KeyboardInterrupt

    bed.bench.model.load_state_dict(bed.bench.pretrained)
    outcome = train_method(method, 1e-3, 1.0, bed.bench)
    with pytest.raises(KeyboardInterrupt):
        train_method(method, 1e-3, 1.0, bed.bench, interrupt)
    model = bed.bench.model
    assert [name for name, _ in model.named_parameters()] == [n for n, _ in build_like(bed).named_parameters()]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    if method.prepare is not None:
        assert all(torch.equal(value, bed.bench.pretrained[name]) for name, value in model.state_dict().items())
    assert outcome.trainable == price_method(method, 1.0, bed.pricer).trainable
    again = train_method(method, 1e-3, 1.0, bed.bench)
    assert torch.equal(again.validation_logits, outcome.validation_logits)


def build_like(bed: Bed) -> nn.Module:
    """Return an unchanged model of the bench's kind."""
    config: Any = bed.bench.model.config
    return build_model(config, Head())[0]


def test_all_methods_use_the_same_training_loop(bed: Bed) -> None:
    """A model without frozen parameters, trained as BitFit and LoRA are, equals full fine-tuning to the bit."""
    unfrozen = dataclasses.replace(METHODS["bitfit"], prepare=lambda model, layout: None)
    one, other = (train_method(method, 3e-3, 1.0, bed.bench) for method in (unfrozen, METHODS["full"]))
    assert one.trained.keys() == other.trained.keys()
    assert all(torch.equal(value, other.trained[name]) for name, value in one.trained.items())
    assert (one.metric, one.dev_metric, one.curve) == (other.metric, other.dev_metric, other.curve)


@pytest.mark.parametrize("method", PREPARED, ids=lambda method: method.name)
def test_only_trained_parameters_change(bed: Bed, method: Method) -> None:
    """The trained tensors are those with gradients, and each of them has changed."""
    outcome = train_method(method, 1e-2, 1.0, bed.bench)
    model = build_like(bed)
    assert list(outcome.trained) == trained_names(method.name, model, bed.bench.layout)
    known = {name: value for name, value in outcome.trained.items() if name in bed.bench.pretrained}
    # softmax is invariant to the key's bias: its gradient is zero up to rounding
    moved = [name for name, value in known.items() if not torch.equal(value, bed.bench.pretrained[name])]
    assert {name for name in known if "k_lin" not in name} <= set(moved)


def test_epochs_are_those_of_the_space(bed: Bed) -> None:
    """Fixed epochs are used as they are; if the space searches them, its maximum is used."""
    space = bed.job.space
    assert baseline_epochs(space) == 1.0
    for entry in ({"choices": [1.0, 3.0, 2.0]}, {"low": 0.5, "high": 3.0}):
        searched = dataclasses.replace(space, fixed={}, search={**space.search, "epochs": entry})
        assert baseline_epochs(searched) == 3.0
    assert baseline_epochs(load_space("default")) == 1.0


# The auxiliary study.


@pytest.fixture(autouse=True)
def all_learn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count any metric as learned by default: three steps teach a random model nothing."""
    if "bed" in request.fixturenames:
        monkeypatch.setattr(request.getfixturevalue("bed").bench, "constant", -1.0)


def rates_of(snapshot: StudySnapshot) -> dict[str, list[float]]:
    """Return the learning rates of each method's trainings, in order."""
    found: dict[str, list[float]] = {}
    for trial in snapshot.trials:
        assert isinstance(trial, BaselineTrial)
        found.setdefault(trial.baseline.method, []).append(trial.baseline.learning_rate)
    return found


def test_method_that_does_not_learn_is_tried_at_more_rates(
    bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rates are above, below and far above its own; it is then marked, and a repeated run trains no more."""
    monkeypatch.setattr(bed.bench, "constant", 1.0)
    search = bed.search(tmp_path)
    snapshot = train_baselines(search, [METHODS["bitfit"], METHODS["lora8"]], Notes())
    auxiliary = search.store.auxiliary("s", "baselines")
    assert auxiliary is not None
    trained = snapshot_of(auxiliary)
    assert rates_of(trained) == {
        "bitfit": [4e-4, 7e-4, 1e-3, 3e-3, 1.3e-4, 1e-2],
        "lora8": [2e-4, 5e-4, 1e-3, 3e-3, 6.7e-5, 1e-2],
    }
    assert [trial.outcome.learned for trial in snapshot.baselines] == [False, False]
    assert {row["note"] for row in baseline_rows(snapshot)} == {"did not learn"}
    tags = [trial_content(trained, trial).tags["farsearch.learned"] for trial in trained.trials]
    assert set(tags) == {"false"}
    again = Notes()
    train_baselines(bed.search(tmp_path), [METHODS["bitfit"], METHODS["lora8"]], again)
    assert again.started == []


def test_first_rate_that_learns_ends_the_attempts(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It represents the method, even if a rate that did not learn had a higher metric by chance."""
    monkeypatch.setattr(bed.bench, "constant", 1.0)
    notes = Notes()
    notes.training_started = lambda *given: monkeypatch.setattr(  # type: ignore[method-assign]
        bed.bench, "constant", -1.0 if "3.0e-03" in given[0] else 1.0
    )
    snapshot = train_baselines(bed.search(tmp_path), [METHODS["bitfit"]], notes)
    assert [flat(record).learned for record in notes.ended] == [False, False, False, True]
    (shown,) = snapshot.baselines
    assert shown.baseline is not None
    assert (shown.baseline.learning_rate, shown.outcome.learned) == (3e-3, True)


def test_learned_means_more_than_the_error_above_a_constant_answer(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare values just below and just above the bound."""
    outcome = train_method(METHODS["bitfit"], 1e-3, 1.0, bed.bench)
    bound = outcome.metric - outcome.metric_error
    for constant, learned in ((bound - 1e-9, True), (bound + 1e-9, False)):
        monkeypatch.setattr(bed.bench, "constant", constant)
        assert train_method(METHODS["bitfit"], 1e-3, 1.0, bed.bench).learned == learned


def test_constant_answer_is_that_of_the_validation_rows(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """For accuracy it is the share of the commonest class; without validation rows that of the development rows."""
    monkeypatch.undo()
    for rows in (bed.bench.validation_rows.answers, bed.bench.dev_rows.answers):
        bed.bench.__dict__.pop("constant", None)
        assert bed.bench.constant == pytest.approx(max(Counter(rows).values()) / len(rows))
        monkeypatch.setattr(bed.bench, "validation_rows", bed.bench.dev_rows)
    bed.bench.__dict__.pop("constant", None)


def test_each_method_is_shown_at_its_best_rate(bed: Bed, tmp_path: Path) -> None:
    """The auxiliary study has three trials per method; the study has the one that is best on validation rows."""
    search = bed.search(tmp_path)
    snapshot = train_baselines(search, chosen_methods("all"), Notes())
    auxiliary = search.store.auxiliary("s", "baselines")
    assert auxiliary is not None
    trials = [trial for trial in snapshot_of(auxiliary).complete if isinstance(trial, BaselineTrial)]
    assert len(trials) == 15
    assert snapshot.trials == ()
    assert [trial.baseline.method for trial in snapshot.baselines] == list(METHODS)
    for best in snapshot.baselines:
        of_method = [t for t in trials if t.baseline.method == best.baseline.method]
        rates = sorted(trial.baseline.learning_rate for trial in of_method)
        assert rates == list(METHODS[best.baseline.method].learning_rates)
        assert best.outcome.metric == max(trial.outcome.metric for trial in of_method)
        assert best in of_method
        cost = price_method(METHODS[best.baseline.method], 1.0, bed.pricer)
        assert (best.cost.peak_memory_mib, best.cost.wall_time_s) == (cost.peak_memory_mib, cost.wall_time_s)
        assert (best.plan, best.cost.feasible) == (StepPlan(), True)


def test_interrupted_run_is_resumed(bed: Bed, tmp_path: Path) -> None:
    """Finished trainings are not repeated, the interrupted one is, and a third run trains nothing."""
    cut = Notes(interrupt_at=8)  # three steps per training: in the middle of the third
    with pytest.raises(KeyboardInterrupt):
        train_baselines(bed.search(tmp_path), chosen_methods("paper"), cut)
    on = Notes()
    train_baselines(bed.search(tmp_path), chosen_methods("paper"), on)
    assert len(cut.ended) == 2
    assert cut.started[2] == on.started[0]
    assert len({*cut.started, *on.started}) == len(on.started) + 2 == 9
    third = Notes()
    snapshot = train_baselines(bed.search(tmp_path), chosen_methods("paper"), third)
    assert third.started == []
    more = Notes()
    train_baselines(bed.search(tmp_path), chosen_methods("all"), more)
    assert {title.partition(",")[0] for title in more.started} == {"FFNs frozen", "LoRA r=8"}
    assert len(snapshot.baselines) == 3


def test_another_study_of_the_job_trains_nothing(bed: Bed, tmp_path: Path) -> None:
    """Metric, curve and seconds come from the cache, memory and time from the other device; another job trains."""
    bitfit = [METHODS["bitfit"]]
    first = train_baselines(bed.search(tmp_path), bitfit, Notes())
    other = Pricer(
        load_config(bed.job.source), Head(), 16, 16, bed.pricer.profile, lengths=bed.bench.train_rows.lengths,
        device_samples=480, max_memory_mib=100.0,
    )  # fmt: skip
    notes = Notes()
    second = train_baselines(bed.search(tmp_path, "t", other, device_samples=480), bitfit, notes)
    assert notes.steps == 0
    assert [text.endswith("from the cache") for text in notes.notes] == [True] * 3
    (one,), (two,) = first.baselines, second.baselines
    assert (one.outcome.metric, one.outcome.dev_metric, one.outcome.curve, one.outcome.host_seconds) == (
        two.outcome.metric, two.outcome.dev_metric, two.outcome.curve, two.outcome.host_seconds,
    )  # fmt: skip
    assert two.cost.wall_time_s == pytest.approx(10 * one.cost.wall_time_s)
    assert (one.cost.feasible, two.cost.feasible) == (True, False)
    longer = Notes()
    space = bed.job.space.with_fixed({"epochs": 2.0})
    search = dataclasses.replace(bed.search(tmp_path, "u", space=space.to_dict()), space=space)
    train_baselines(search, bitfit, longer)
    assert longer.steps == 3 * 6


def test_damaged_cache_is_trained_again(bed: Bed, tmp_path: Path) -> None:
    """A truncated file, or one of another structure, counts as missing."""
    bitfit = [METHODS["bitfit"]]
    first = train_baselines(bed.search(tmp_path), bitfit, Notes())
    files = sorted((tmp_path / "cache" / "baselines").glob("*/bitfit-*.json"))
    assert len(files) == 3
    files[0].write_text("{")
    files[1].write_text(json.dumps({"results": {"metrik": 1.0}}))
    notes = Notes()
    second = train_baselines(bed.search(tmp_path, "t"), bitfit, notes)
    assert notes.steps == 2 * 3
    assert second.baselines[0].outcome.metric == first.baselines[0].outcome.metric


def test_diverged_rate_is_recorded_and_skipped(bed: Bed, tmp_path: Path) -> None:
    """Its trial is stopped with the reason, is not retried, and does not represent its method."""
    wild = dataclasses.replace(METHODS["full"], learning_rates=(1e-4, 1e30, 1e-3))
    notes = Notes()
    snapshot = train_baselines(bed.search(tmp_path), [wild], notes)
    assert [flat(record).state for record in notes.ended] == ["complete", "pruned", "complete"]
    assert "a lower learning rate may help" in (flat(notes.ended[1]).reason or "")
    assert len(snapshot.baselines) == 1
    again = Notes()
    train_baselines(bed.search(tmp_path), [wild], again)
    assert again.started == []


def test_auxiliary_study_is_not_listed(bed: Bed, tmp_path: Path) -> None:
    """It is never the latest, is loaded by its own name, and is deleted with its study."""
    search = bed.search(tmp_path)
    train_baselines(search, [METHODS["bitfit"]], Notes())
    store = Store(tmp_path)
    assert store.names() == ["s"]
    assert store.load().study_name == "s"
    assert snapshot_of(store.load("s/baselines")).n_trials == 3
    with pytest.raises(BadInput, match="'s/baselines' is not usable"):
        store.check("s/baselines", bed.job.settings)
    store.delete("s")
    assert store.names() == []
    assert store.auxiliary("s", "baselines") is None
    assert snapshot_of(bed.search(tmp_path).study).baselines == ()


@pytest.mark.parametrize(
    "name", ["bert-base-uncased", "roberta-base", "microsoft/deberta-v3-small", "answerdotai/ModernBERT-base"]
)
@pytest.mark.parametrize("kind", ["classification", "question-answering"])
@pytest.mark.parametrize("method", ["bitfit", "lora8"])
def test_head_is_trained_under_any_name(name: str, kind: str, method: str) -> None:
    """New parameters on an encoder are random, so no method that freezes them could learn."""
    prepare = METHODS[method].prepare
    assert prepare is not None
    with torch.device("meta"):
        model, layout = build_model(load_config(ModelSource(name, name), with_known=True), Head(kind))
        prepare(model, layout)
    encoder = f"{model.base_model_prefix}."
    head = {name: p.requires_grad for name, p in model.named_parameters() if not name.startswith(encoder)}
    assert head
    assert all(head.values())
    assert not all(p.requires_grad for p in model.parameters())


# The search after them.


def test_search_begins_at_its_baselines(bed: Bed, tmp_path: Path) -> None:
    """Configurations of FAR are the first trials, the best metric first, in place of starts of the same method."""
    search = bed.search(tmp_path)
    snapshot = train_baselines(search, [METHODS["bitfit"], METHODS["full"], METHODS["ffn-frozen"]], Notes())
    configs = first_configs(snapshot)
    assert sorted(configs) == ["FFNs frozen", "full fine-tuning"]
    metrics = {trial.baseline.title: trial.outcome.metric for trial in snapshot.baselines}
    assert [metrics[title] for title in configs] == sorted((metrics[title] for title in configs), reverse=True)
    for _ in range(2):  # a run that was killed in between does both again
        search.begin_at(configs)
    search.prepare(5)
    search.begin_at(configs)
    queued = [trial.user_attrs["start"] for trial in search.study.get_trials()]
    assert queued[:2] == list(configs)
    assert "full fine-tuning" not in queued[2:]
    assert len(queued) == len(set(queued))


def test_predictions_of_baselines_lie_beside_those_of_the_trials(bed: Bed, tmp_path: Path) -> None:
    """The difference of two baselines has a paired error wherever the study is, also when the cache was cleared."""
    search = bed.search(tmp_path)
    snapshot = train_baselines(search, [METHODS["full"], METHODS["bitfit"]], Notes())
    shutil.rmtree(tmp_path / "cache")
    one, other = map(point_key, snapshot.baselines)
    error = paired_errors(search.folder, "accuracy")
    assert error(one, one) == 0
    assert error(one, other) is not None
    assert error(one, "full-1") is None


def test_rivals_are_trained_from_twenty_trials_on() -> None:
    assert [default_choice(n) for n in (1, 19, 20, 100)] == ["none", "none", "rivals", "rivals"]
    assert [method.name for method in chosen_methods("rivals")] == ["full", "far10", "ffn-frozen", "lora8"]


def test_methods_are_chosen_by_name() -> None:
    assert [method.name for method in chosen_methods("lora8,full,lora8")] == ["lora8", "full"]
    with pytest.raises(BadInput, match=r"'lora' is unknown; .* did you mean 'lora8'"):
        chosen_methods("full,lora")
