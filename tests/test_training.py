"""One trial's training, with a tiny model on the embedded reviews."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from farsearch.errors import BadInput, Diverged, OutOfMemory
from farsearch.far.ffn import SplitFeedForward
from farsearch.far.layout import ModelLayout
from farsearch.far.loop import predict
from farsearch.far.selection import head_counts, head_scores, learner_counts, random_learners, top_learners
from farsearch.far.surgery import apply_far, merge
from farsearch.models.heads import Head
from farsearch.models.load import load_model
from farsearch.models.source import resolve_model
from farsearch.priming import start_state
from farsearch.records import FarConfig, JobSpec, Priming, StepPlan
from farsearch.tasks.load import load_task
from farsearch.tasks.split import split_examples
from farsearch.training import Bench, Outcome
from tests.tiny import FAMILIES, make_model

DATA = load_task("reviews")
SPLIT = split_examples(DATA.train, 48, 0, 24)
PRIMING = Priming(learning_rate=1e-3, warmup_steps=1)


def make_bench(model: Path, cache: Path, priming: Priming = PRIMING, **changes: Any) -> Bench:
    """Return a bench of 48 reviews in batches of 8: six steps per epoch."""
    source = resolve_model(str(model))
    job = JobSpec(
        task="reviews",
        data=DATA.fingerprint,
        model=source.name,
        weights=source.digest(),
        train_samples=len(SPLIT.train),
        validation_samples=len(SPLIT.validation),
        batch_size=8,
        max_length=48,
        seed=3,
        priming=priming,
    )
    return Bench(dataclasses.replace(job, **changes), source, DATA, SPLIT, cache)


@pytest.fixture(scope="module", params=FAMILIES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench of either family."""
    return make_bench(request.getfixturevalue(f"tiny_{request.param}"), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def bert_bench(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench of the tiny BERT."""
    return make_bench(tiny_bert, tmp_path_factory.mktemp("cache"))


UNEVEN = FarConfig((0.75, 0.4), 1e-3, 1.0, priming_epochs=0.5)


def is_merged(bench: Bench) -> bool:
    """Return whether the model is in its original form and all of it can be trained."""
    split = any(isinstance(module, SplitFeedForward) for module in bench.model.modules())
    names = list(bench.model.state_dict()) == list(bench.pretrained)
    clean = all(p.requires_grad and p.grad is None for p in bench.model.parameters())
    return names and clean and not split


# Start state.


def _random_states() -> tuple[nn.Module, ModelLayout, dict[str, Tensor], dict[str, Tensor]]:
    model, layout = make_model("bert", layers=3)
    pretrained = {name: value.clone() for name, value in model.state_dict().items()}
    primed = {name: value + 1 if value.is_floating_point() else value for name, value in pretrained.items()}
    return model, layout, pretrained, primed


_STATES = _random_states()

configs = st.builds(
    FarConfig,
    frozen_fractions=st.tuples(*[st.sampled_from([0.0, 0.01, 0.5, 0.9, 1.0])] * 3),
    learning_rate=st.just(1e-4),
    epochs=st.just(1.0),
    frozen_embeddings=st.booleans(),
    frozen_attention_layers=st.integers(0, 3),
    frozen_bottom_layers=st.integers(0, 3),
    frozen_heads=st.one_of(st.just(()), st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 3)),
)


def drawn_heads(config: FarConfig, seed: int) -> list[list[int] | None]:
    """Return trained heads of the two in each of three layers."""
    counts = head_counts(2, config.canonical().frozen_heads, 3)
    return [None if k is None else random_learners(2, k, seed + i) for i, k in enumerate(counts)]


def reconfigured(
    state: dict[str, Tensor], learners: Any, config: FarConfig, heads: Any
) -> dict[str, tuple[Tensor, bool]]:
    """Return the parameters of a reconfigured model in this state, with whether they are trained."""
    model, layout = copy.deepcopy(_STATES[0]), _STATES[1]
    model.load_state_dict(state)
    config = config.canonical()
    apply_far(
        model, layout, learners, config.frozen_embeddings, config.frozen_attention_layers, config.frozen_bottom_layers,
        heads=heads,
    )  # fmt: skip
    return {name: (p.detach(), p.requires_grad) for name, p in model.named_parameters()}


@given(config=configs, seed=st.integers(0, 99))
def test_start_state(config: FarConfig, seed: int) -> None:
    """Every trained tensor has its primed values, every frozen one its pre-trained ones."""
    _, layout, pretrained, primed = _STATES
    counts = learner_counts(64, config.canonical().frozen_fractions, config.frozen_bottom_layers)
    learners = [None if k is None else random_learners(64, k, seed + i) for i, k in enumerate(counts)]
    before = {name: value.clone() for name, value in primed.items()}
    heads = drawn_heads(config, seed)
    start = start_state(layout, pretrained, primed, learners, config, "pretrained", heads)
    assert list(start) == list(primed)
    from_pretrained, from_primed = (reconfigured(state, learners, config, heads) for state in (pretrained, primed))
    for name, (value, trained) in reconfigured(start, learners, config, heads).items():
        assert torch.equal(value, (from_primed if trained else from_pretrained)[name][0]), name
    assert all(torch.equal(value, primed[name]) for name, value in before.items()), "an input was changed"


@given(config=configs)
def test_start_state_with_primed_frozen_values(config: FarConfig) -> None:
    """``frozen_values = primed`` starts from a copy of the primed model."""
    _, layout, pretrained, primed = _STATES
    counts = learner_counts(64, config.canonical().frozen_fractions, config.frozen_bottom_layers)
    learners = [None if k is None else list(range(k)) for k in counts]
    start = start_state(layout, pretrained, primed, learners, config, "primed")
    assert all(torch.equal(start[name], value) for name, value in primed.items())
    assert not {v.data_ptr() for v in start.values()} & {v.data_ptr() for v in primed.values()}


# Selection.


def test_neurons_with_the_largest_change_are_selected(bert_bench: Bench) -> None:
    """The fractions determine how many; the priming's report is included."""
    primed = bert_bench.primings.get(bert_bench.model, 0.5)
    learners, report = bert_bench.select(UNEVEN, primed)
    assert learners == [top_learners(primed.scores[0], 16), top_learners(primed.scores[1], 38)]
    assert report.steps == 3
    assert report.chance_overlap == pytest.approx((16 / 64 + 38 / 64) / 2)
    halves = [[top_learners(half[i], k) for i, k in enumerate((16, 38))] for half in primed.halves]
    common = [len(set(a) & set(b)) / len(a) for a, b in zip(*halves, strict=True)]
    assert report.half_overlap == pytest.approx(sum(common) / 2)
    assert 0 < report.score_spread < 1


def test_heads_with_the_largest_change_are_selected(bert_bench: Bench) -> None:
    """Of two heads the one that priming moved more; without priming, or by random selection, a reproducible draw."""
    config = dataclasses.replace(UNEVEN, frozen_heads=(0.5, 0.0))
    primed = bert_bench.primings.get(bert_bench.model, 0.5)
    scores = head_scores(bert_bench.layout, bert_bench.pretrained, primed.state)
    assert bert_bench.select_heads(config, primed) == [[int(scores[0].argmax())], None]
    drawn = bert_bench.select_heads(config, None)
    assert drawn == bert_bench.select_heads(config, None)
    assert [chosen and len(chosen) for chosen in drawn] == [1, None]
    frozen = dataclasses.replace(config, frozen_heads=(1.0, 1.0))
    assert bert_bench.select_heads(frozen, primed) == [None, None], "both attentions are frozen as a whole"


def test_selection_without_priming_is_a_reproducible_draw(bert_bench: Bench) -> None:
    """It has the right number per layer, and no overlap of halves."""
    learners, report = bert_bench.select(UNEVEN, None)
    assert learners == bert_bench.select(UNEVEN, None)[0]
    assert [len(chosen or ()) for chosen in learners] == [16, 38]
    assert learners[0] != list(range(16))
    assert (report.steps, report.half_overlap, report.score_spread) == (0, None, 0.0)
    assert report.chance_overlap == pytest.approx((16 / 64 + 38 / 64) / 2)


def test_random_selection_ignores_the_scores(tiny_bert: Path, tmp_path: Path) -> None:
    """The control is primed like the others and drawn like the unprimed ones."""
    bench = make_bench(tiny_bert, tmp_path, dataclasses.replace(PRIMING, selection="random"))
    primed = bench.primings.get(bench.model, 0.5)
    assert bench.select(UNEVEN, primed)[0] == bench.select(UNEVEN, None)[0]


def test_selection_is_empty_if_nothing_is_split(bert_bench: Bench) -> None:
    """Full fine-tuning and a wholly frozen bottom have no selected learners."""
    for config in (FarConfig((0.0, 0.0), 1e-3, 1.0), FarConfig((0.5, 0.5), 1e-3, 1.0, frozen_bottom_layers=2)):
        learners, report = bert_bench.select(config, None)
        assert learners == [None, None]
        assert report.chance_overlap is None


# Training.


def plain_batches(rows: list[list[int]], batches: list[list[int]]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Return token ids, masks and rows of each batch, padded by torch's own function."""
    for batch in batches:
        ids = nn.utils.rnn.pad_sequence([torch.tensor(rows[i]) for i in batch], batch_first=True)
        yield ids, (ids != 0).long(), torch.tensor(batch)


def test_nothing_frozen_equals_plain_fine_tuning(bench: Bench) -> None:
    """Frozen fraction 0 without priming has losses, weights and predictions of an ordinary PyTorch loop.

    The loop below is written from scratch: AdamW with decay for matrices alone, a warm-up of one step and a linear
    decay, cross entropy, and the generator seeded before each step.
    """
    rate, losses = 2e-3, []
    outcome = bench.run(FarConfig((0.0, 0.0), rate, 2.0), StepPlan(), lambda _i, _n, loss: losses.append(loss))

    model, _ = load_model(bench.source, Head(), DATA.spec.labels, bench.job.seed)
    rows = [list(row) for row in bench.train_rows.features.input_ids]
    labels = torch.tensor(bench.train_rows.answers)
    order: list[list[int]] = []
    for epoch in range(2):
        shuffler = random.Random(bench.job.seed + 7919 * epoch)
        indices = list(range(len(rows)))
        shuffler.shuffle(indices)
        indices.sort(key=lambda i: len(rows[i]))
        parts = [indices[i : i + 8] for i in range(0, len(indices), 8)]
        shuffler.shuffle(parts)
        order += parts
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], lr=rate
    )
    expected = []
    model.train()
    for step, (ids, mask, index) in enumerate(plain_batches(rows, order)):
        torch.manual_seed(bench.job.seed + step)
        for group in optimizer.param_groups:
            group["lr"] = rate if step == 0 else rate * (12 - step) / 12
        loss = F.cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    assert losses == pytest.approx(expected, abs=1e-6)
    assert len(losses) == 12
    assert outcome.learners == [None, None]
    assert outcome.primed is None
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(outcome.trained[name], parameter.detach(), atol=1e-6, rtol=0, msg=name)
    dev = predict(model, bench.dev_rows.features, bench.pad_id)
    torch.testing.assert_close(outcome.dev_logits, dev, atol=1e-6, rtol=0)


def test_repeated_trial_is_bitwise_equal(bench: Bench) -> None:
    """Only the durations differ."""
    one, two = bench.run(UNEVEN, StepPlan()), bench.run(UNEVEN, StepPlan())
    assert is_merged(bench)
    assert (one.metric, one.metric_error, one.dev_metric) == (two.metric, two.metric_error, two.dev_metric)
    assert torch.equal(one.validation_logits, two.validation_logits)
    assert one.learners == two.learners
    assert one.curve == two.curve
    assert all(torch.equal(value, two.trained[name]) for name, value in one.trained.items())
    assert not one.priming.from_cache
    assert two.priming.from_cache


def test_trials_do_not_depend_on_earlier_ones(tiny_bert: Path, tmp_path: Path) -> None:
    """A trial on a fresh bench and after another trial are the same."""
    other = FarConfig((1.0, 0.0), 5e-3, 2.0, priming_epochs=1.0, frozen_embeddings=True)
    alone = make_bench(tiny_bert, tmp_path / "a").run(UNEVEN, StepPlan())
    busy = make_bench(tiny_bert, tmp_path / "b")
    busy.run(other, StepPlan())
    assert torch.equal(busy.run(UNEVEN, StepPlan()).dev_logits, alone.dev_logits)


@pytest.mark.parametrize(
    "config",
    [
        UNEVEN,
        FarConfig((1.0, 0.0), 1e-3, 0.5, frozen_embeddings=True, frozen_attention_layers=1),
        FarConfig((0.5, 0.9), 1e-3, 1.0, priming_epochs=0.4, frozen_bottom_layers=1),
        FarConfig((0.5, 0.9), 1e-3, 1.0, priming_epochs=0.4, frozen_heads=(0.5, 0.5)),
    ],
)
def test_trained_tensors_restore_the_model(bench: Bench, config: FarConfig) -> None:
    """Start state and trained tensors in a fresh model give the predictions of the trial's model."""
    outcome = bench.run(config, StepPlan())
    canonical = config.canonical()
    model, layout = load_model(bench.source, Head(), DATA.spec.labels, bench.job.seed)
    primed = bench.pretrained if outcome.primed is None else outcome.primed.state
    model.load_state_dict(
        start_state(layout, bench.pretrained, primed, outcome.learners, config, "pretrained", outcome.heads)
    )
    apply_far(
        model, layout, outcome.learners, canonical.frozen_embeddings, canonical.frozen_attention_layers,
        canonical.frozen_bottom_layers, heads=outcome.heads,
    )  # fmt: skip
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(outcome.trained)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in outcome.trained.items():
            parameters[name].copy_(value)
    merge(model, layout)
    assert torch.equal(predict(model, bench.dev_rows.features, bench.pad_id), outcome.dev_logits)
    assert outcome.trainable == sum(value.numel() for value in outcome.trained.values())


def test_frozen_parts_retain_their_values(bert_bench: Bench) -> None:
    """After the trial frozen values equal those of the checkpoint bit by bit; the others have changed."""
    bert_bench.run(FarConfig((1.0, 1.0), 1e-2, 1.0, priming_epochs=0.5, frozen_embeddings=True), StepPlan())
    after = bert_bench.model.state_dict()
    frozen = ("bert.embeddings", "intermediate.dense", "output.dense")
    for name, value in bert_bench.pretrained.items():
        is_frozen = any(part in name for part in frozen) and "attention" not in name
        assert torch.equal(after[name], value) == is_frozen, name


def test_curve_covers_all_steps(bert_bench: Bench) -> None:
    """It has mean losses of equal stretches, at most 40 of them, ending at the last step."""
    losses: list[float] = []
    outcome = bert_bench.run(FarConfig((1.0, 1.0), 1e-3, 7.0), StepPlan(), lambda _i, _n, loss: losses.append(loss))
    assert len(losses) == 42
    assert [point.step for point in outcome.curve] == list(range(2, 43, 2))
    means = [(losses[i] + losses[i + 1]) / 2 for i in range(0, 42, 2)]
    assert [point.loss for point in outcome.curve] == pytest.approx(means)


def test_a_trial_stops_early_in_its_best_state(tiny_bert: Path, tmp_path: Path) -> None:
    """Evaluated after each tenth; the model after the phase has the highest metric of all that were seen.

    Evaluations count as soon as one differs from the first.
    """
    bench = make_bench(tiny_bert, tmp_path, patience=1)
    assert bench.watched_rows == len(bench.validation_rows.answers)
    seen: list[float] = []

    def evaluate(step: int, _steps: int, _loss: float) -> None:
        if step % 4 == 0:
            logits = predict(bench.model, bench.validation_rows.features, bench.pad_id)
            seen.append(bench.score(bench.validation_rows, logits).value)
            bench.model.train()

    outcome = bench.run(FarConfig((0.5, 0.5), 1e-2, 40 / 6), StepPlan(), evaluate)
    best = seen.index(max(seen))
    moved = next(i for i, metric in enumerate(seen) if metric != seen[0])
    assert outcome.curve[-1].step == 4 * len(seen) == 4 * (max(best + 1, moved) + 1)
    assert len(seen) < 10
    assert outcome.metric == pytest.approx(seen[best])


def test_progress_is_reported_for_each_step(bert_bench: Bench) -> None:
    """Each step is reported once, as the i-th of n."""
    reported: list[tuple[int, int]] = []
    bert_bench.run(UNEVEN, StepPlan(), lambda step, steps, _loss: reported.append((step, steps)))
    assert reported == [(i, 6) for i in range(1, 7)]


class Stop(Exception):
    """Raised in the middle of a trial."""


def test_model_is_merged_after_an_exception(bench: Bench) -> None:
    """A trial that is stopped does not change the next one."""
    before = bench.run(UNEVEN, StepPlan())

    def stop(step: int, _steps: int, _loss: float) -> None:
        if step == 3:
            raise Stop

    with pytest.raises(Stop):
        bench.run(FarConfig((0.9, 1.0), 1e-2, 1.0, frozen_bottom_layers=1), StepPlan(), stop)
    assert is_merged(bench)
    assert torch.equal(bench.run(UNEVEN, StepPlan()).dev_logits, before.dev_logits)


def test_absurd_learning_rate_diverges(bench: Bench) -> None:
    """The error is a TrialError that names the step, and the next trial is unaffected."""
    with pytest.raises(Diverged, match=r"the loss of step \d is (nan|inf); a lower learning rate may help"):
        bench.run(FarConfig((0.5, 0.5), 1e30, 1.0), StepPlan())
    assert is_merged(bench)
    assert torch.isfinite(bench.run(UNEVEN, StepPlan()).dev_logits).all()


def test_diverged_priming_is_a_trial_error(tiny_bert: Path, tmp_path: Path) -> None:
    bench = make_bench(tiny_bert, tmp_path, Priming(optimizer="sgd", learning_rate=1e30, warmup_steps=0))
    with pytest.raises(Diverged, match="a lower learning rate may help"):
        bench.run(UNEVEN, StepPlan())


def test_failed_allocation_is_out_of_memory(bert_bench: Bench) -> None:
    """An error in the middle of training becomes ``OutOfMemory``, and the model is merged."""

    def greedy(_step: int, _steps: int, _loss: float) -> None:
        torch.empty(1 << 50)

    with pytest.raises(OutOfMemory, match="not enough memory for the step; a smaller --batch-size may help"):
        bert_bench.run(UNEVEN, StepPlan(), greedy)
    assert is_merged(bert_bench)


def test_other_runtime_errors_are_propagated(bert_bench: Bench) -> None:
    def broken(_step: int, _steps: int, _loss: float) -> None:
        torch.zeros(2) @ torch.zeros(3)

    with pytest.raises(RuntimeError, match="size"):
        bert_bench.run(UNEVEN, StepPlan(), broken)
    assert is_merged(bert_bench)


def test_max_length_beyond_the_model_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    """Value, rule and model are named before anything is trained."""
    with pytest.raises(BadInput, match="max_length is 136; tiny-bert takes at most 128 tokens"):
        make_bench(tiny_bert, tmp_path, max_length=136)


def test_metrics_are_those_of_the_logits(bert_bench: Bench) -> None:
    """The objective uses validation rows, the dev metric the development set, with the standard error of a share."""
    outcome: Outcome = bert_bench.run(UNEVEN, StepPlan())
    for value, logits, rows in (
        (outcome.metric, outcome.validation_logits, bert_bench.validation_rows),
        (outcome.dev_metric, outcome.dev_logits, bert_bench.dev_rows),
    ):
        right = [int(a) == b for a, b in zip(logits.argmax(1), rows.answers, strict=True)]
        assert value == pytest.approx(sum(right) / len(right))
    p = outcome.metric
    assert outcome.metric_error == pytest.approx((p * (1 - p) / 24) ** 0.5)
    assert len(bert_bench.validation_rows.answers) == 24
    assert outcome.host_peak_mib > 50
    assert outcome.host_seconds > 0
