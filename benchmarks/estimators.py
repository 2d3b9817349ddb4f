"""Memory of a training step as a user could predict it: farsearch, torch's memory tracker, accelerate.

    python -m benchmarks.estimators [--settings 20] [--json]

The measured peak of each setting is that of ``cost_memory.py``: all tensors of a step, by torch's profiler. Every
estimator gets the same setting. accelerate (which comes with peft) knows only the model, as
``accelerate estimate-memory`` does; torch's tracker runs the step on tensors without memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import torch
from accelerate.commands.estimate import estimate_training_usage
from accelerate.utils import calculate_maximum_sizes
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from benchmarks.cost_memory import this_host
from benchmarks.cost_models import MODULES, STORE
from farsearch.calibration.steps import apply_config, example_batch, peak_mib, ready_step
from farsearch.cost.plans import optimizer_of
from farsearch.cost.pricer import Pricer
from farsearch.far.loop import train_step
from farsearch.far.optimizer import BackwardOptimizer
from farsearch.formatting import markdown_table
from farsearch.models.config import load_config
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import resolve_model
from farsearch.records import FarConfig, StepPlan

__all__ = ["ESTIMATORS", "PUBLISHED", "SETTINGS", "Case", "Setting", "main", "report"]

MIB = 2.0**20

PUBLISHED = (
    ("LLMem", "at most 1.6 % on one GPU", "Kim et al., IJCAI 2024, arXiv 2404.10933"),
    ("DNNMem", "below 16 %", "Gao et al., ESEC/FSE 2020"),
    ("xMem", "median 91 % below that of the estimators before it", "Shi et al., Middleware 2025, arXiv 2510.21048"),
)
"""Errors that the authors of other estimators report, of whole GPU processes; they can't run here."""


@dataclass(frozen=True)
class Setting:
    """A training step of a well-known model.

    Attributes:
        method: ``full`` by ordinary modules, or ``far10``: a tenth of the neurons and no embeddings, by a lean plan.
    """

    model: str
    batch_size: int
    length: int
    method: str

    def model_config(self) -> Any:
        """Return transformers' configuration."""
        return load_config(resolve_model(self.model), with_known=True)

    def training(self) -> tuple[FarConfig, StepPlan]:
        """Return what is trained, and how the step is executed."""
        layers = len(layout_of(self.model_config()).layers)
        if self.method == "full":
            return FarConfig((0.0,) * layers, 1e-4, 1.0), MODULES
        return FarConfig((0.9,) * layers, 1e-4, 1.0, frozen_embeddings=True), STORE

    def measured_mib(self) -> float:
        """Return the peak of all tensors of a real step."""
        config, plan = self.training()
        model, layout = build_model(self.model_config(), Head())
        with ready_step(model, layout, config, plan, self.batch_size, self.length) as ready:
            return peak_mib(ready.call, model, ready.optimizer)


MODELS = (
    "bert-base-uncased", "distilbert-base-uncased", "xlm-roberta-base", "google/electra-small-discriminator",
    "microsoft/deberta-v3-small",
)  # fmt: skip
SETTINGS = tuple(
    Setting(model, batch_size, length, method)
    for model, (batch_size, length), method in itertools.product(MODELS, ((4, 64), (8, 128)), ("full", "far10"))
)


def by_farsearch(setting: Setting) -> float:
    """Return the cost model's peak, with the profiler's rules for sizes."""
    config, plan = setting.training()
    pricer = Pricer(setting.model_config(), Head(), setting.batch_size, setting.length, this_host())
    return pricer.price(config, plan).tensor_peak_mib


def by_tracker(setting: Setting) -> float | None:
    """Return the peak of torch's memory tracker in a step on tensors without memory.

    None where parameters are frozen: it registers hooks of gradients on all of them, which torch refuses.
    """
    if setting.method != "full":
        return None
    config, plan = setting.training()
    model_config = setting.model_config()
    with FakeTensorMode():
        model, layout = build_model(model_config, Head())
        apply_config(model, layout, config, plan).train()
        optimizer = optimizer_of(plan, model)
        batch = example_batch(int(model_config.vocab_size), setting.batch_size, setting.length)
        train_step(model, optimizer, batch)  # makes the optimizer's state
        tracker = MemTracker()
        parts = optimizer.optimizers if isinstance(optimizer, BackwardOptimizer) else [optimizer]
        tracker.track_external(model, *parts)
        with tracker, warnings.catch_warnings():
            # its statistics by module lack some; the peak of all is not made of them
            warnings.filterwarnings("ignore", "Module is None")
            train_step(model, optimizer, batch)
        peaks = tracker.get_tracker_snapshot("peak")
    return sum(each["Total"] for each in peaks.values()) / MIB


def by_accelerate(setting: Setting) -> float:
    """Return the figure of ``accelerate estimate-memory`` for training with Adam in float32: four times the weights."""
    with torch.device("meta"):
        model, _ = build_model(setting.model_config(), Head())
    total, _ = calculate_maximum_sizes(model)
    return float(max(estimate_training_usage(total, "float32").values())) / MIB


ESTIMATORS: Mapping[str, Callable[[Setting], float | None]] = {
    "farsearch": by_farsearch, "torch's tracker": by_tracker, "accelerate": by_accelerate,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A setting with its measured peak, and the predictions in MiB (None for no answer) with their seconds."""

    setting: Setting
    measured_mib: float
    predicted_mib: Mapping[str, float | None]
    seconds: Mapping[str, float]

    def error(self, name: str) -> float | None:
        """Return predicted by measured, less 1, of an estimator."""
        predicted = self.predicted_mib[name]
        return None if predicted is None else predicted / self.measured_mib - 1


def compared(setting: Setting) -> Case:
    """Predict a setting with every estimator, and measure it."""
    predicted, seconds = {}, {}
    for name, estimate in ESTIMATORS.items():
        start = time.perf_counter()
        predicted[name] = estimate(setting)
        seconds[name] = time.perf_counter() - start
    return Case(setting, setting.measured_mib(), predicted, seconds)


def report(cases: Sequence[Case]) -> str:
    """Return the settings with each estimator's error, then its mean and worst, as tables in Markdown."""
    titles = {"full": "full fine-tuning", "far10": "FAR 10 %, embeddings frozen"}
    rows = [
        {
            "model": case.setting.model,
            "batch": f"{case.setting.batch_size} × {case.setting.length}",
            "method": titles[case.setting.method],
            "measured MiB": f"{case.measured_mib:,.1f}",
            **{name: "none" if (error := case.error(name)) is None else f"{error:+.2%}" for name in ESTIMATORS},
        }
        for case in cases
    ]
    summary = []
    for name in ESTIMATORS:
        answered = [case for case in cases if case.predicted_mib[name] is not None]
        errors = [abs(case.error(name) or 0.0) for case in answered]
        summary.append(
            {
                "estimator": name,
                "settings": str(len(answered)),
                "mean error": f"{statistics.mean(errors):.2%}",
                "worst": f"{max(errors):.2%}",
                "seconds": f"{statistics.median(case.seconds[name] for case in answered):.1f}",
            }
        )
    published = [
        {"estimator": name, "error as published": error, "source": source} for name, error, source in PUBLISHED
    ]
    return "\n\n".join(markdown_table(each) for each in (rows, summary, published))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--settings", "count", type=click.IntRange(1, len(SETTINGS)), default=len(SETTINGS), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the figures for programs.")
def main(count: int, as_json: bool) -> None:
    """Compare the predicted memory of training steps with measured ones, for farsearch and two other estimators."""
    cases = []
    for setting in SETTINGS[:count]:
        click.echo(f"{setting.model}, {setting.batch_size} x {setting.length}, {setting.method}", err=True)
        cases.append(compared(setting))
    if not as_json:
        click.echo(report(cases))
        return
    published = [{"estimator": name, "error": error, "source": source} for name, error, source in PUBLISHED]
    data = {"schema_version": 1, "cases": [dataclasses.asdict(case) for case in cases], "published": published}
    click.echo(json.dumps(data, indent=1))


if __name__ == "__main__":
    main()
