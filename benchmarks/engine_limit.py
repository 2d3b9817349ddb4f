"""MiniLM on SST-2 with both engines of a bundle, without torch under a limit of the memory that it may allocate.

    python -m benchmarks.engine_limit [--rows 2048] [--limit 300] [--python PYTHON]

It needs GLUE's files (FARSEARCH_GLUE_DIR). The same weights, learners (a tenth), rows and hyperparameters with either
engine; accuracy on SST-2's 872 development rows, whose standard error is about 1.2 points. The limit is
``RLIMIT_DATA``: heap and private mappings that are written to, which ends a process that exceeds it.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from torch import nn

from benchmarks.engine_bundles import make_bundle
from farsearch.files import write_text
from farsearch.formatting import markdown_table
from farsearch.models.heads import Head
from farsearch.models.load import load_model
from farsearch.models.source import resolve_model
from farsearch.records import Engine, FarConfig, StepPlan
from farsearch.runtime.task import Task

__all__ = ["glue_folder", "main", "make_bundles", "train", "write_sample"]

_TASK = Task("sst2", "classification", ("0", "1"), "accuracy", ("sentence",), "label")
_PLAN = StepPlan(feed_forward="store", attention="recompute", dropout="seed", layer_norm="output")
_WORDS = 8
"""Words that a training row has at least: most rows of SST-2 are phrases of its sentences."""


def glue_folder() -> Path:
    """Return the folder with GLUE's files."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "glue"
    return Path(os.environ.get("FARSEARCH_GLUE_DIR") or beside)


def make_bundles(folder: Path, dropout: bool = True) -> dict[Engine, Path]:
    """Write a bundle of MiniLM for each engine; both start from the same weights.

    Args:
        dropout: False for a model without, in which both engines compute the same: they draw other masks.
    """
    bundles: dict[Engine, Path] = {}
    for engine in ("torch", "onnx"):
        model, layout = load_model(resolve_model("minilm"), Head(), _TASK.labels, seed=0)
        if not dropout:
            settings: Any = model.config
            settings.hidden_dropout_prob = settings.attention_probs_dropout_prob = 0.0
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
        config = FarConfig((0.9,) * len(layout.layers), 3e-4, 1.0, frozen_embeddings=True)
        bundles[engine] = make_bundle(
            folder / engine, model.config, engine, batch_size=8, length=64, config=config, plan=_PLAN, task=_TASK,
            weights=(model, layout),
        )  # fmt: skip
    return bundles


def write_sample(path: Path, rows: int) -> None:
    """Write rows of SST-2's training file, evenly spaced."""
    source = glue_folder() / "SST-2" / "train.tsv"
    with source.open(encoding="utf-8", newline="") as file:
        found = [
            row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if len(row[0].split()) >= _WORDS
        ]
    chosen = [found[i * len(found) // rows] for i in range(rows)]
    write_text(path, "\n".join(["sentence\tlabel", *("\t".join(row) for row in chosen)]) + "\n")


def train(python: Path, bundle: Path, rows: Path, out: Path, limit_mib: int | None) -> dict[str, Any]:
    """Run ``train.py`` with one thread; return ``measured`` of its measurement.

    Raises:
        ClickException: when it does not end well.
    """

    def limit() -> None:
        if limit_mib is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit_mib << 20,) * 2)

    dev = glue_folder() / "SST-2" / "dev.tsv"
    command = list(map(str, (python, bundle / "train.py", "--train", rows, "--dev", dev, "--out", out)))
    if limit_mib is not None:
        command += ["--threads", "1"]
    done = subprocess.run(
        command, preexec_fn=limit, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise click.ClickException(f"{python} ended with {done.returncode}: {done.stderr[-300:]}")
    measured: dict[str, Any] = json.loads((out / "measurement.json").read_text(encoding="utf-8"))["measured"]
    return measured


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(8), default=2048, show_default=True)
@click.option("--limit", type=click.IntRange(1), default=300, show_default=True, help="MiB for the engine onnx.")
@click.option("--python", "pythons", type=click.Path(path_type=Path), multiple=True, help="Others for the engine onnx.")
def main(rows: int, limit: int, pythons: Sequence[Path]) -> None:
    """Train with torch, and with each Python without it, and print the table."""
    table: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="farsearch-") as made:
        folder = Path(made)
        bundles = make_bundles(folder)
        write_sample(folder / "rows.tsv", rows)
        here = Path(sys.executable)
        runs: list[tuple[Engine, Path, int | None]] = [("torch", here, None)]
        runs += [("onnx", python, limit) for python in (here, *pythons)]
        for number, (engine, python, most) in enumerate(runs):
            measured = train(python, bundles[engine], folder / "rows.tsv", folder / f"out-{number}", most)
            table.append(_row(engine, most, measured))
            click.echo(f"{engine}, {python}: {measured['metric']:.4f}", err=True)
    click.echo(markdown_table(table))


def _row(engine: str, limit: int | None, measured: dict[str, Any]) -> dict[str, str]:
    library = "torch" if engine == "torch" else "onnxruntime"
    return {
        "engine": f"{library} {measured['software'][library]}, Python {measured['software']['python']}",
        "limit": "none" if limit is None else f"{limit} MiB",
        "accuracy": f"{100 * measured['metric']:.1f} %",
        "peak": f"{measured['peak_memory_mib']:,.0f} MiB",
        "step": f"{measured['step_time_s']:.3f} s",
    }


if __name__ == "__main__":
    main()
