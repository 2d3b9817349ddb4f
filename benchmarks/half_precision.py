"""Layers in 16 bits beside float32: memory and seconds of a step, and the metric on SST-2.

::

    python -m benchmarks.half_precision --data-dir glue

Memory is the peak of all tensors, predicted and measured by torch's profiler as in ``cost_memory.py``. Seconds are
the median of steps that take turns. For the metric MiniLM is fine-tuned by FAR with a tenth of the neurons on SST-2,
from one priming, once in each precision with the same rows, order and dropout; every development row is compared.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from benchmarks.cost_memory import this_host
from benchmarks.cost_models import built, layers_of
from farsearch.calibration.steps import peak_mib, ready_step
from farsearch.cost.pricer import Pricer, full_fine_tuning
from farsearch.formatting import markdown_table
from farsearch.models.heads import Head
from farsearch.plan_execution import RECOMPUTE, STORE
from farsearch.records import FarConfig, Precision, StepPlan
from farsearch.resolve import resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store
from farsearch.training import Outcome

__all__ = ["main"]

_MODEL = "minilm"
_BATCHES = ((8, 64), (16, 128))
_PLANS = {"store": STORE, "recompute": RECOMPUTE, "checkpointing": dataclasses.replace(STORE, checkpointing=True)}
_PRIMING, _RATE = 0.1, 2e-4
"""Epochs of priming, and the learning rate of the FAR phase: at 1e-3 neither precision learns, with batches of 8."""


@dataclass(frozen=True)
class StepRow:
    """One step in both precisions: peaks in MiB, predicted and measured, and seconds."""

    title: str
    predicted_mib: tuple[float, float]
    measured_mib: tuple[float, float]
    seconds: tuple[float, float]

    def cells(self) -> dict[str, str]:
        """Return the row of a table; ``off`` is that of the prediction in 16 bits."""
        (exact, half), (exact_s, half_s) = self.measured_mib, self.seconds
        return {
            "step": self.title,
            "float32, MiB": f"{exact:.1f}",
            "predicted MiB": f"{self.predicted_mib[1]:.1f}",
            "measured MiB": f"{half:.1f}",
            "off": f"{self.predicted_mib[1] / half - 1:+.2%}",
            "of float32": f"{half / exact:.2f}",
            "float32, s": f"{exact_s:.2f}",
            "in 16 bits, s": f"{half_s:.2f}",
        }


def _step_rows(precision: Precision, timed: int) -> Iterator[StepRow]:
    layers = layers_of(_MODEL)
    far = FarConfig((0.9,) * layers, 1e-4, 1.0)
    lean = dataclasses.replace(far, frozen_embeddings=True, frozen_attention_layers=layers)
    configs = {"full fine-tuning": full_fine_tuning(layers), "FAR 10 %": far, "FAR 10 %, more frozen": lean}
    for batch_size, length in _BATCHES:
        for name, config in configs.items():
            for way, plan in _PLANS.items():
                yield _step_row(f"{name}, {way}", batch_size, length, config, plan, precision, timed)


def _step_row(
    title: str, batch_size: int, length: int, config: FarConfig, plan: StepPlan, precision: Precision, timed: int
) -> StepRow:
    model_config, original, layout = built(_MODEL)
    plans = [plan, dataclasses.replace(plan, precision=precision)]
    pricer = Pricer(model_config, Head(), batch_size, length, this_host())
    predicted = [pricer.price(config, each).tensor_peak_mib for each in plans]
    models = [copy.deepcopy(original) for _ in plans]
    with ExitStack() as stack:
        ready = [
            stack.enter_context(ready_step(model, layout, config, each, batch_size, length))
            for model, each in zip(models, plans, strict=True)
        ]
        measured = [peak_mib(step.call, model, step.optimizer) for step, model in zip(ready, models, strict=True)]
        seconds = [[step.seconds() for step in ready] for _ in range(timed)]
    exact, half = (statistics.median(each) for each in zip(*seconds, strict=True))
    return StepRow(
        f"{batch_size} x {length}, {title}", (predicted[0], predicted[1]), (measured[0], measured[1]), (exact, half)
    )


@dataclass(frozen=True)
class MetricRow:
    """Accuracy on the development set in both precisions, and the rows that are answered differently."""

    seed: int
    metrics: tuple[float, float]
    rows: int
    differing: int
    seconds: tuple[float, float]

    def cells(self) -> dict[str, str]:
        """Return the row of a table."""
        return {
            "seed": str(self.seed),
            "float32": f"{self.metrics[0]:.4f}",
            "in 16 bits": f"{self.metrics[1]:.4f}",
            "points": f"{100 * (self.metrics[1] - self.metrics[0]):+.2f}",
            "other answers": f"{self.differing} of {self.rows}",
            "float32, s": f"{self.seconds[0]:.0f}",
            "in 16 bits, s": f"{self.seconds[1]:.0f}",
        }


def _metric_rows(precision: Precision, data_dir: Path, samples: int, seeds: int) -> Iterator[MetricRow]:
    precisions: tuple[Precision, Precision] = ("float32", precision)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for seed in range(seeds):
            options = SearchSpec(
                task="sst2", device="raspberry-pi-4", model=_MODEL, data_dir=data_dir, train_samples=samples, seed=seed
            )
            bench = resolve_job(options, store, lambda _: None).bench(store)
            config = FarConfig((0.9,) * layers_of(_MODEL), _RATE, 1.0, priming_epochs=_PRIMING)
            exact, half = (
                bench.run(config, dataclasses.replace(STORE, optimizer_kernel="fused", precision=each))
                for each in precisions
            )
            yield _metric_row(seed, exact, half)


def _metric_row(seed: int, exact: Outcome, half: Outcome) -> MetricRow:
    answers = [outcome.dev_logits.argmax(-1) for outcome in (exact, half)]
    return MetricRow(
        seed,
        (exact.dev_metric, half.dev_metric),
        len(answers[0]),
        int((answers[0] != answers[1]).sum()),
        (exact.host_seconds, half.host_seconds),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of SST-2; without it steps alone.")
@click.option("--precision", type=click.Choice(["bfloat16", "float16"]), default="bfloat16", show_default=True)
@click.option("--train-samples", type=click.IntRange(min=8), default=1024, show_default=True)
@click.option("--steps/--no-steps", default=True, show_default=True, help="Also measure single steps.")
@click.option("--timed", type=click.IntRange(min=1), default=5, show_default=True, help="Steps of each precision.")
@click.option("--seeds", type=click.IntRange(min=0), default=3, show_default=True)
def main(data_dir: Path | None, precision: Precision, train_samples: int, steps: bool, timed: int, seeds: int) -> None:
    """Compare layers in 16 bits with float32: memory and time of steps, and the metric on SST-2."""
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {_MODEL}, {precision}\n")
    if steps:
        _print(_step_rows(precision, timed))
    if data_dir is not None:
        click.echo()
        _print(_metric_rows(precision, data_dir, train_samples, seeds))


def _print(rows: Iterator[StepRow] | Iterator[MetricRow]) -> None:
    """Print a table, and each row when it is known."""
    table = []
    for row in rows:
        table.append(row.cells())
        click.echo(" | ".join(table[-1].values()), err=True)
    click.echo(markdown_table(table))


if __name__ == "__main__":
    main()
