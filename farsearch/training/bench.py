"""Where the trials of a job are trained: model, encoded rows and primings, made once."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from farsearch.errors import BadInput
from farsearch.far.loop import predict
from farsearch.far.selection import learner_counts, overlap, random_learners, top_learners
from farsearch.far.surgery import width_of
from farsearch.models.config import load_config
from farsearch.models.families import max_length_of
from farsearch.models.heads import head_for
from farsearch.models.load import load_model
from farsearch.models.source import ModelSource
from farsearch.models.tokenizer import load_tokenizer
from farsearch.priming import Primed, PrimingCache, start_state
from farsearch.records import FarConfig, JobSpec, LossPoint, PrimingReport, StepPlan
from farsearch.runtime.encoding import first_rows, predictions
from farsearch.tasks.constant_answer import constant_answer
from farsearch.tasks.encode import Encoded, encode_examples
from farsearch.tasks.metrics import MetricValue, score
from farsearch.tasks.spec import Examples, TaskData
from farsearch.tasks.split import Split
from farsearch.training.intermediate import LOOKS, Look, look_rows
from farsearch.training.phase import Learners, State, far_phase, fine_tune, training_errors

__all__ = ["Bench", "Outcome"]

_NO_PRIMING = PrimingReport(0, 0.0, False, 0.0, None, None)


@dataclass(frozen=True)
class Outcome:
    """What one trial's training gave.

    Attributes:
        metric: on the validation rows; where there are none, on the development rows.
        learned: ``metric`` is above that of the best constant answer by more than its standard error.
        parts: the single metrics of one that is made of several, and those on further development sets.
        trained: the tensors that were trained, under the names of the reconfigured model.
        validation_logits, dev_logits: as ``far.loop.predict`` gives them.
        validation_evidence, dev_evidence: what each row says for the metric, ``[rows, k]`` (``runtime.scores``).
    """

    metric: float
    metric_error: float
    learned: bool
    dev_metric: float
    parts: Mapping[str, float]
    validation_logits: Tensor
    validation_evidence: Tensor
    dev_logits: Tensor
    dev_evidence: Tensor
    learners: Learners
    trained: State
    primed: Primed | None
    priming: PrimingReport
    curve: tuple[LossPoint, ...]
    host_seconds: float
    host_peak_mib: float
    trainable: int


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
        self.tokenizer = load_tokenizer(source, data.spec.kind)
        self.pad_id = int(self.tokenizer.pad_token_id or 0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.task = data.spec.task
        self.head = head_for(self.task, load_config(source))
        model, self.layout = load_model(source, self.head, data.spec.labels, job.seed, job.keep_head)
        limit = max_length_of(model.config)
        if job.max_length > limit:
            raise BadInput(f"max_length is {job.max_length}; {source.name} takes at most {limit} tokens")
        self.model = model.to(self.device)
        self.pretrained = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        self.width = width_of(model, self.layout.layers[0])
        self.train_rows = self._encode(data.train.take(split.train))
        self.validation_rows = self._encode(data.train.take(split.validation))
        self.dev_rows = self._encode(data.dev)
        self.more_dev_rows = {name: self._encode(part) for name, part in data.more_dev.items()}
        self.primings = PrimingCache(
            cache / "priming",
            job,
            self.layout,
            self.pretrained,
            self.train_rows.features,
            self.pad_id,
            priming_micro_batch,
        )

    def _encode(self, examples: Examples) -> Encoded:
        return encode_examples(self.tokenizer, examples, self.task, self.job.max_length, self.head.segments)

    def score(self, rows: Encoded, logits: Tensor) -> MetricValue:
        """The metric of what a model says of some rows; ``logits`` as ``far.loop.predict`` gives them."""
        task = self.task
        return score(task.metric, predictions(rows, logits), rows.answers, task.labels, task.positive_id)

    @cached_property
    def constant(self) -> float:
        """The metric of the best answer that is the same for every row, on the rows that ``Outcome.metric`` is of."""
        return constant_answer(self.task, self.validation_rows.answers or self.dev_rows.answers).value

    def select(self, config: FarConfig, primed: Primed | None) -> tuple[Learners, PrimingReport]:
        """The learners of each feed-forward block, and what priming and selection say of themselves."""
        config = config.canonical()
        by_layer = learner_counts(self.width, config.frozen_fractions, config.frozen_bottom_layers)
        counts = self.layout.by_block(by_layer)
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
            with training_errors():
                primed = self.primings.get(self.model, config.priming_epochs, on_note)
        started = time.perf_counter()
        with training_errors():
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
        rows = first_rows(self.validation_rows, look_rows(epochs * len(self.train_rows.answers)))

        def step_and_look(step: int, steps: int, loss: float) -> None:
            if on_step is not None:
                on_step(step, steps, loss)
            # the last step's look would be the evaluation
            share = next((share for share in LOOKS if round(share * steps) == step < steps), None)
            if share is None:
                return
            with training_errors():
                logits = predict(self.model, rows.features, self.pad_id)
            self.model.train()
            on_look(Look(share, step, self.score(rows, logits).value, logits))

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
        rows = {"validation": self.validation_rows, "dev": self.dev_rows, **self.more_dev_rows}
        logits, values = {}, {}
        with training_errors():
            for name, part in rows.items():
                if part.answers:
                    logits[name] = predict(model, part.features, self.pad_id)
                    values[name] = self.score(part, logits[name])
        dev, value = values["dev"], values.get("validation", values["dev"])
        none = torch.zeros(0)
        return Outcome(
            metric=value.value,
            metric_error=value.error,
            learned=value.value > self.constant + value.error,
            dev_metric=dev.value,
            parts=_parts(values),
            validation_logits=logits.get("validation", none),
            validation_evidence=torch.from_numpy(values["validation"].evidence) if "validation" in values else none,
            dev_logits=logits["dev"],
            dev_evidence=torch.from_numpy(dev.evidence),
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


def _parts(values: Mapping[str, MetricValue]) -> dict[str, float]:
    """The figures that ``metric`` and ``dev_metric`` do not say: ``f1``, ``dev/f1`` or ``dev_mismatched/accuracy``."""
    parts = {}
    for name, value in values.items():
        before = {"validation": "", "dev": "dev/"}.get(name, f"dev_{name}/")
        if len(value.parts) > 1 or name not in ("validation", "dev"):
            parts.update({before + part: each for part, each in value.parts.items()})
    return parts
