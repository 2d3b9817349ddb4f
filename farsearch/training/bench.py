"""The fixed parts of a job, on which its trials are trained: model, encoded rows and primings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from farsearch.errors import BadInput
from farsearch.far.loop import predict
from farsearch.far.surgery import width_of
from farsearch.models.config import load_config
from farsearch.models.families import max_length_of
from farsearch.models.heads import head_for
from farsearch.models.load import load_model
from farsearch.models.source import ModelSource
from farsearch.models.tokenizer import load_tokenizer
from farsearch.priming import Primed, PrimingCache, start_state
from farsearch.records import FarConfig, JobSpec, LossPoint, PrimingReport, StepPlan
from farsearch.runtime.best_state import EVALUATED_ROWS, Watch
from farsearch.runtime.class_weights import with_balanced_classes
from farsearch.runtime.encoding import first_rows, predictions
from farsearch.tasks.constant_answer import constant_answer
from farsearch.tasks.encode import Encoded, encode_examples
from farsearch.tasks.metrics import MetricValue, score
from farsearch.tasks.spec import Examples, TaskData
from farsearch.tasks.split import Split
from farsearch.training.host import host_device
from farsearch.training.intermediate import EVALUATION_SHARES, Evaluation, OnEvaluation, evaluation_rows
from farsearch.training.outcome import Outcome, further_metrics, host_peak_mib
from farsearch.training.phase import (
    Batching,
    Learners,
    OnStep,
    State,
    far_phase,
    fine_tune,
    put_trained,
    training_errors,
)
from farsearch.training.selection import NO_PRIMING, select_heads, select_learners

__all__ = ["Bench"]


class Bench:
    """Everything of a job that is the same for all trials, made once per worker.

    Args:
        job: made for this data and model.
        data, split: of the task; the split has the training and the validation rows.
        cache: folder of the caches.

    Raises:
        BadInput: when the model takes shorter texts than the job has.
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
        self.cache = cache
        self.tokenizer = load_tokenizer(source, data.spec.kind)
        self.pad_id = int(self.tokenizer.pad_token_id or 0)
        self.batching = Batching(job.batch_size, self.pad_id, job.seed, job.clip_norm)
        self.device = host_device()
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
        if job.class_weights == "balanced":
            weighted = with_balanced_classes(self.train_rows.features, self.head.outputs)
            self.train_rows = self.train_rows._replace(features=weighted)
        if job.label_smoothing is not None:
            smoothed = self.train_rows.features._replace(label_smoothing=job.label_smoothing)
            self.train_rows = self.train_rows._replace(features=smoothed)
        self.validation_rows = self._encode(data.train.take(split.validation))
        self.dev_rows = self._encode(data.dev)
        watched = split.validation or split.watched  # none in a final model, which is trained to its end
        self._watch = self._watching(job.patience, data.train.take(split.watched)) if job.patience and watched else None
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

    def _watching(self, patience: int, watched: Examples) -> Watch:
        """How a phase is evaluated on its way: on validation rows, or those of the split that stand in for them."""
        rows = first_rows(
            self.validation_rows if self.validation_rows.answers else self._encode(watched), EVALUATED_ROWS
        )
        return Watch(patience, rows.features, lambda logits: self.score(rows, logits).value)

    @property
    def watched_rows(self) -> int:
        """The rows of each evaluation on the way of a phase; 0 without early stopping."""
        return 0 if self._watch is None else len(self._watch.features.input_ids)

    def _encode(self, examples: Examples) -> Encoded:
        return encode_examples(self.tokenizer, examples, self.task, self.job.max_length, self.head.segments)

    def score(self, rows: Encoded, logits: Tensor) -> MetricValue:
        """Score predictions of these rows; ``logits`` as ``far.loop.predict`` returns them."""
        task = self.task
        return score(task.metric, predictions(rows, logits), rows.answers, task.labels, task.positive_id)

    @cached_property
    def constant(self) -> float:
        """The metric of the best constant answer, on the rows of ``Outcome.metric``."""
        return constant_answer(self.task, self.validation_rows.answers or self.dev_rows.answers).value

    def select(self, config: FarConfig, primed: Primed | None) -> tuple[Learners, PrimingReport]:
        """Select the learners of each feed-forward block, and report on priming and selection."""
        return select_learners(self.job, self.layout, self.width, config, primed)

    def select_heads(self, config: FarConfig, primed: Primed | None) -> Learners:
        """Select the trained heads of each layer; None for an attention that is not split."""
        return select_heads(self.job, self.layout, config, self.pretrained, primed)

    def run(
        self,
        config: FarConfig,
        plan: StepPlan,
        on_step: OnStep | None = None,
        on_note: Callable[[str], None] | None = None,
        on_evaluation: OnEvaluation | None = None,
    ) -> Outcome:
        """Train and evaluate one configuration. The model is merged again even after an error.

        Args:
            on_evaluation: called with each intermediate evaluation; it may raise to stop. An evaluation does not
                change the training. None for no intermediate evaluation.

        Raises:
            Diverged, OutOfMemory: as ``far_phase``.
        """
        primed = None
        if config.priming_epochs > 0:
            with training_errors():
                primed = self.primings.get(self.model, config.priming_epochs, on_note)
        started = time.perf_counter()
        with training_errors():
            learners, report = self.select(config, primed)
            heads = self.select_heads(config, primed)
            # not held: it would be another copy of all weights beside the training
            self.model.load_state_dict(self._start(config, primed, learners, heads))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if on_evaluation is not None:
            on_step = self._evaluating(config.epochs, on_evaluation, on_step)
        trained, curve = far_phase(
            self.model, self.layout, learners, config, plan, self.train_rows, self.batching, on_step, heads, self._watch
        )
        if plan.precision != "float32":
            # frozen matrices come back rounded: the metric is that of the model that an export has
            self.model.load_state_dict(self._start(config, primed, learners, heads))
            put_trained(self.model, self.layout, learners, heads, config, trained)
        return self._outcome(self.model, trained, curve, started, learners, primed, report, heads)

    def _start(
        self, config: FarConfig, primed: Primed | None, learners: Learners, heads: Learners
    ) -> Mapping[str, Tensor]:
        """Return the weights that the FAR phase begins with."""
        state = self.pretrained if primed is None else primed.state
        frozen_values = self.job.priming.frozen_values
        return start_state(self.layout, self.pretrained, state, learners, config, frozen_values, heads)

    def _evaluating(self, epochs: float, on_evaluation: OnEvaluation, on_step: OnStep | None) -> OnStep:
        """Return ``on_step`` with intermediate evaluations after the steps that are due."""
        rows = first_rows(self.validation_rows, evaluation_rows(epochs * len(self.train_rows.answers)))

        def step_and_evaluate(step: int, steps: int, loss: float) -> None:
            if on_step is not None:
                on_step(step, steps, loss)
            # after the last step comes the final evaluation
            share = next((share for share in EVALUATION_SHARES if round(share * steps) == step < steps), None)
            if share is None:
                return
            with training_errors():
                logits = predict(self.model, rows.features, self.pad_id)
            self.model.train()
            on_evaluation(Evaluation(share, step, self.score(rows, logits).value, logits))

        return step_and_evaluate

    def fit(self, model: nn.Module, learning_rate: float, epochs: float, on_step: OnStep | None = None) -> Outcome:
        """Train all parameters with a gradient in a model of the caller, and evaluate it: for methods that are not FAR.

        Rows, batches, seed, loop and scores are those of ``run``; the step runs ordinary modules with AdamW.
        """
        started = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trained, curve = fine_tune(
            model, learning_rate, epochs, StepPlan(), self.train_rows, self.batching, on_step, self._watch
        )
        return self._outcome(model, trained, curve, started)

    def _outcome(
        self,
        model: nn.Module,
        trained: State,
        curve: tuple[LossPoint, ...],
        started: float,
        learners: Learners | None = None,
        primed: Primed | None = None,
        priming: PrimingReport = NO_PRIMING,
        heads: Learners | None = None,
    ) -> Outcome:
        """Score a trained model on the validation and the development rows."""
        rows = {"validation": self.validation_rows, "dev": self.dev_rows, **self.more_dev_rows}
        logits, values = {}, {}
        with training_errors():
            for name, part in rows.items():
                if part.answers:
                    logits[name] = predict(model, part.features, self.pad_id)
                    values[name] = self.score(part, logits[name])
        dev, value = values["dev"], values.get("validation", values["dev"])
        empty = torch.zeros(0)
        return Outcome(
            metric=value.value,
            metric_error=value.error,
            learned=value.value > self.constant + value.error,
            dev_metric=dev.value,
            parts=further_metrics(values),
            validation_logits=logits.get("validation", empty),
            validation_evidence=torch.from_numpy(values["validation"].evidence) if "validation" in values else empty,
            dev_logits=logits["dev"],
            dev_evidence=torch.from_numpy(dev.evidence),
            learners=learners or [],
            heads=heads or [],
            trained=trained,
            primed=primed,
            priming=priming,
            curve=curve,
            host_seconds=time.perf_counter() - started,
            host_peak_mib=host_peak_mib(self.device),
            trainable=sum(value.numel() for value in trained.values()),
        )
