"""One trial's training: prime, select, reconfigure, run the FAR phase, evaluate, put the model back together."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from farsearch.cost.plans import execution_of, optimizer_of
from farsearch.errors import BadInput, Diverged, OutOfMemory
from farsearch.far.batches import phase_batches, steps_in
from farsearch.far.board.phase import is_out_of_memory
from farsearch.far.layout import ModelLayout
from farsearch.far.loop import linear_rate, predict, train
from farsearch.far.optimizer import BackwardOptimizer
from farsearch.far.selection import learner_counts, overlap, random_learners, top_learners
from farsearch.far.surgery import apply_far, merge, width_of
from farsearch.models.load import ModelSource, load_model, load_tokenizer
from farsearch.priming import Primed, PrimingCache
from farsearch.records import FarConfig, JobSpec, LossPoint, PrimingReport, StepPlan
from farsearch.tasks.encode import Encoded, encode
from farsearch.tasks.metrics import score
from farsearch.tasks.spec import TaskData
from farsearch.tasks.split import Split

__all__ = ["LOOKS", "Bench", "Look", "Outcome", "far_phase", "fine_tune", "look_rows", "start_state"]

State = dict[str, Tensor]
Learners = list[list[int] | None]

_CURVE_POINTS = 40
"""Points of a learning curve: enough to see its shape, few enough to store with each trial."""

LOOKS = (0.5, 0.75)
"""Shares of the FAR phase's steps after which a race looks at the validation metric."""

_LOOK_ROWS = 256
_LOOK_SHARE = 1 / 8

_NO_PRIMING = PrimingReport(0, 0.0, False, 0.0, None, None)


@dataclass(frozen=True)
class Outcome:
    """What one trial's training gave.

    Attributes:
        metric: on the validation rows; where there are none, on the development rows.
        trained: the tensors that were trained, under the names of the reconfigured model.
        validation_logits, dev_logits: ``[rows, classes]``, in the order of the rows.
        validation_labels: true class ids, ``[rows]``.
    """

    metric: float
    metric_error: float
    dev_metric: float
    validation_labels: Tensor
    validation_logits: Tensor
    dev_logits: Tensor
    learners: Learners
    trained: State
    primed: Primed | None
    priming: PrimingReport
    curve: tuple[LossPoint, ...]
    host_seconds: float
    host_peak_mib: float
    trainable: int


@dataclass(frozen=True)
class Look:
    """The validation metric in the middle of the FAR phase.

    Attributes:
        share: of the phase's steps that are done, one of ``LOOKS``.
        step: the last step done, counted from 1.
        metric: on the first ``look_rows`` validation rows, which are a stratified draw.
        logits: of those rows, ``[rows, classes]``.
    """

    share: float
    step: int
    metric: float
    logits: Tensor


def look_rows(phase_rows: float) -> int:
    """Validation rows of a look in a FAR phase over so many rows.

    At most 256, and at most an eighth of the phase's: a row is trained at three times the cost of a look at it, so that
    both looks together take no more than a twelfth of the training.
    """
    return int(min(_LOOK_ROWS, max(1.0, phase_rows * _LOOK_SHARE)))


def start_state(
    layout: ModelLayout, pretrained: State, primed: State, learners: Learners, config: FarConfig, frozen_values: str
) -> State:
    """The state that the FAR phase starts from, in the original layout.

    What is trained starts from its primed values; what is frozen has its pre-trained ones, unless ``frozen_values``
    is ``primed``.
    """
    state = {name: value.clone() for name, value in primed.items()}
    if frozen_values == "primed":
        return state
    config = config.canonical()
    back = [f"{layout.embeddings}."] if config.frozen_embeddings else []
    back += [f"{path}." for layer in layout.layers[: config.frozen_attention_layers] for path in layer.attention]
    back += [f"{layer.path}." for layer in layout.layers[: config.frozen_bottom_layers]]
    for name in state:
        if name.startswith(tuple(back)):
            state[name] = pretrained[name].clone()
    for layer, chosen in zip(layout.layers, learners, strict=True):
        if chosen is None:
            continue
        up, bias, down = f"{layer.up}.weight", f"{layer.up}.bias", f"{layer.down}.weight"
        for name, dim in ((up, 0), (bias, 0), (down, 1)):
            index = torch.tensor(chosen, dtype=torch.long)
            learned = primed[name].index_select(dim, index)
            state[name] = pretrained[name].clone().index_copy_(dim, index, learned)
        state[f"{layer.down}.bias"] = pretrained[f"{layer.down}.bias"].clone()
    return state


def far_phase(
    model: nn.Module,
    layout: ModelLayout,
    learners: Learners,
    config: FarConfig,
    plan: StepPlan,
    rows: Encoded,
    batch_size: int,
    pad_id: int,
    seed: int,
    on_step: Callable[[int, int, float], None] | None = None,
) -> tuple[State, tuple[LossPoint, ...]]:
    """Reconfigure ``model`` (which holds the start state), train it, and merge it back.

    Args:
        on_step: called with step, number of steps and loss.

    Returns:
        The trained tensors under the names of the reconfigured model, and the learning curve.

    Raises:
        Diverged: when a loss is not finite.
        OutOfMemory: when this machine's memory does not suffice.
    """
    config = config.canonical()
    try:
        apply_far(
            model, layout, learners, config.frozen_embeddings, config.frozen_attention_layers,
            config.frozen_bottom_layers, execution_of(plan),
        )  # fmt: skip
        return fine_tune(model, config.learning_rate, config.epochs, plan, rows, batch_size, pad_id, seed, on_step)
    finally:
        merge(model, layout)


def fine_tune(
    model: nn.Module,
    learning_rate: float,
    epochs: float,
    plan: StepPlan,
    rows: Encoded,
    batch_size: int,
    pad_id: int,
    seed: int,
    on_step: Callable[[int, int, float], None] | None = None,
) -> tuple[State, tuple[LossPoint, ...]]:
    """Train what has gradients in ``model``, in place: the part of ``far_phase`` that knows nothing of FAR.

    The baselines are trained by it too. Arguments, result and errors are those of ``far_phase``; ``learning_rate`` is
    the schedule's peak.
    """
    steps = steps_in(len(rows), batch_size, epochs)
    batches = phase_batches(rows.lengths, batch_size, epochs, seed)
    losses: list[float] = []

    def record(step: int, loss: float) -> None:
        losses.append(loss)
        if on_step is not None:
            on_step(step + 1, steps, loss)

    optimizer = optimizer_of(plan, model)
    try:
        with _training_errors():
            train(
                model, rows.input_ids, rows.labels, batches, optimizer, linear_rate(learning_rate, steps), pad_id, seed,
                plan.micro_batch_size, record,
            )  # fmt: skip
        trained = {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}
    finally:
        if isinstance(optimizer, BackwardOptimizer):
            optimizer.close()
        model.zero_grad(set_to_none=True)
    return trained, _curve(losses)


@contextmanager
def _training_errors() -> Iterator[None]:
    try:
        yield
    except FloatingPointError as error:
        raise Diverged(f"{error}; a lower learning rate may help") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory("this machine has not enough memory for the step; a smaller --batch-size may help") from error


def _curve(losses: list[float]) -> tuple[LossPoint, ...]:
    size = max(1, math.ceil(len(losses) / _CURVE_POINTS))
    parts = [(i, losses[i : i + size]) for i in range(0, len(losses), size)]
    return tuple(LossPoint(i + len(part), statistics.fmean(part)) for i, part in parts)


class Bench:
    """Everything of a job that does not change between trials, made once a worker.

    Args:
        job: must have been made for this data and model.
        data, split: of the task; the split gives the training and the validation rows.
        cache: folder of the caches.
    """

    def __init__(
        self,
        job: JobSpec,
        source: ModelSource,
        data: TaskData,
        split: Split,
        cache: Path,
        priming_micro_batch: int | None = None,
    ) -> None:
        self.job, self.source, self.data = job, source, data
        self.tokenizer = load_tokenizer(source)
        self.pad_id = int(self.tokenizer.pad_token_id or 0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, self.layout = load_model(source, data.spec.labels, job.seed)
        settings: Any = model.config
        limit = int(settings.max_position_embeddings)
        if job.max_length > limit:
            raise BadInput(f"max_length is {job.max_length}; {source.name} takes at most {limit} tokens")
        self.model = model.to(self.device)
        self.pretrained = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        self.width = width_of(model, self.layout.layers[0])
        self.train_rows = self._encode(data.train.take(split.train))
        self.validation_rows = self._encode(data.train.take(split.validation))
        self.dev_rows = self._encode(data.dev)
        self.primings = PrimingCache(
            cache / "priming",
            job,
            self.layout,
            self.pretrained,
            [list(row) for row in self.train_rows.input_ids],
            list(self.train_rows.labels),
            self.pad_id,
            priming_micro_batch,
        )

    def _encode(self, examples: Any) -> Encoded:
        return encode(self.tokenizer, examples, self.job.max_length)

    def select(self, config: FarConfig, primed: Primed | None) -> tuple[Learners, PrimingReport]:
        """The learners of each layer, and what priming and selection say of themselves."""
        config = config.canonical()
        counts = learner_counts(self.width, config.frozen_fractions, config.frozen_bottom_layers)
        by_score = self.job.priming.selection == "l1" and primed is not None

        def chosen(scores: list[Tensor] | None) -> Learners:
            return [
                None
                if count is None
                else top_learners(scores[i], count)
                if scores is not None
                else random_learners(self.width, count, self.job.seed * 1000 + i)
                for i, count in enumerate(counts)
            ]

        learners = chosen(primed.scores if primed is not None and by_score else None)
        picks = [c for c in counts if c]
        chance = statistics.fmean(c / self.width for c in picks) if picks else None
        if primed is None:
            return learners, PrimingReport(0, 0.0, False, 0.0, None, chance)
        first, second = (
            [row for row in chosen(half) if row is not None] if primed.steps > 1 else [] for half in primed.halves
        )
        spread = statistics.fmean(float(s.std() / s.mean()) if float(s.mean()) else 0.0 for s in primed.scores)
        report = PrimingReport(
            primed.steps, primed.seconds, primed.from_cache, spread, overlap(first, second), chance
        )  # fmt: skip
        return learners, report

    def run(
        self,
        config: FarConfig,
        plan: StepPlan,
        on_step: Callable[[int, int, float], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        on_look: Callable[[Look], None] | None = None,
    ) -> Outcome:
        """Train and evaluate one configuration. The model is put back together whatever happens.

        Args:
            on_look: called in the middle of the training with the validation metric there; it may raise to stop. A look
                changes nothing of the training. Without it there is none.
        """
        job = self.job
        primed = None
        if config.priming_epochs > 0:
            with _training_errors():
                primed = self.primings.get(self.model, config.priming_epochs, on_note)
        started = time.perf_counter()
        with _training_errors():
            learners, report = self.select(config, primed)
            state = self.pretrained if primed is None else primed.state
            start = start_state(self.layout, self.pretrained, state, learners, config, job.priming.frozen_values)
            self.model.load_state_dict(start)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trained, curve = far_phase(
            self.model, self.layout, learners, config, plan, self.train_rows, job.batch_size, self.pad_id, job.seed,
            on_step if on_look is None else self._looking(config.epochs, on_look, on_step),
        )  # fmt: skip
        return self._outcome(self.model, trained, curve, started, learners, primed, report)

    def _looking(
        self, epochs: float, on_look: Callable[[Look], None], on_step: Callable[[int, int, float], None] | None
    ) -> Callable[[int, int, float], None]:
        """``on_step`` with looks at the validation metric in between."""
        count = look_rows(epochs * len(self.train_rows))
        rows, labels = self.validation_rows.input_ids[:count], list(self.validation_rows.labels[:count])

        def step_and_look(step: int, steps: int, loss: float) -> None:
            if on_step is not None:
                on_step(step, steps, loss)
            # the last step's look would be the evaluation
            share = next((share for share in LOOKS if round(share * steps) == step < steps), None)
            if share is None:
                return
            with _training_errors():
                logits = predict(self.model, rows, self.pad_id)
            self.model.train()
            value = score(self.data.spec.metric, logits.argmax(1).tolist(), labels)
            on_look(Look(share, step, value.value, logits))

        return step_and_look

    def fit(
        self,
        model: nn.Module,
        learning_rate: float,
        epochs: float,
        on_step: Callable[[int, int, float], None] | None = None,
    ) -> Outcome:
        """Train what has gradients in a model of the caller's own, and evaluate it: for methods that are not FAR.

        Rows, batches, seed, loop and scores are those of ``run``; the step is executed as its modules say, with AdamW.
        """
        started = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trained, curve = fine_tune(
            model, learning_rate, epochs, StepPlan(), self.train_rows, self.job.batch_size, self.pad_id, self.job.seed,
            on_step,
        )  # fmt: skip
        return self._outcome(model, trained, curve, started)

    def _outcome(
        self,
        model: nn.Module,
        trained: State,
        curve: tuple[LossPoint, ...],
        started: float,
        learners: Learners | None = None,
        primed: Primed | None = None,
        priming: PrimingReport = _NO_PRIMING,
    ) -> Outcome:
        """Score a trained model on the validation and the development rows; without the first, on the second alone."""
        with _training_errors():
            dev = predict(model, self.dev_rows.input_ids, self.pad_id)
            held_out = len(self.validation_rows) > 0
            validation = predict(model, self.validation_rows.input_ids, self.pad_id) if held_out else dev[:0]
        metric = self.data.spec.metric
        dev_value = score(metric, dev.argmax(1).tolist(), list(self.dev_rows.labels))
        value = dev_value
        if held_out:
            value = score(metric, validation.argmax(1).tolist(), list(self.validation_rows.labels))
        return Outcome(
            metric=value.value,
            metric_error=value.error,
            dev_metric=dev_value.value,
            validation_labels=torch.tensor(self.validation_rows.labels),
            validation_logits=validation,
            dev_logits=dev,
            learners=learners or [],
            trained=trained,
            primed=primed,
            priming=priming,
            curve=curve,
            host_seconds=time.perf_counter() - started,
            host_peak_mib=self._host_peak_mib(),
            trainable=sum(value.numel() for value in trained.values()),
        )

    def _host_peak_mib(self) -> float:
        """Peak of CUDA's allocator in this trial; on a CPU the highest resident set of the process so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return usage / 2**20 if sys.platform == "darwin" else usage / 2**10
