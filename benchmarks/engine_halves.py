"""MiniLM on SST-2 without torch, with the frozen feed-forward weights in 32 and in 16 bits.

    python -m benchmarks.engine_halves [--rows 512]

It needs GLUE's files (FARSEARCH_GLUE_DIR). Weights, learners (a tenth), rows, dropout masks and hyperparameters are the
same; accuracy on SST-2's 872 development rows, whose standard error is about 1.2 points. The peak is that of the whole
process, measured by itself.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

import click

from benchmarks.engine_limit import minilm_bundle, train, write_sample
from farsearch.formatting import markdown_table
from farsearch.records import StepPlan

__all__ = ["main"]

_TYPES: tuple[Literal["float32", "float16"], ...] = ("float32", "float16")


@click.command(help=__doc__)
@click.option("--rows", type=click.IntRange(8), default=512, show_default=True)
def main(rows: int) -> None:
    """Train with both types and print the table."""
    table: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="farsearch-") as made:
        folder = Path(made)
        write_sample(folder / "rows.tsv", rows)
        for dtype in _TYPES:
            bundle = minilm_bundle(folder / dtype, "onnx", StepPlan(feed_forward="store", frozen_dtype=dtype))
            weights = (bundle / "engine" / "weights.safetensors").stat().st_size / 2**20
            measured = train(Path(sys.executable), bundle, folder / "rows.tsv", folder / f"out-{dtype}", None)
            table.append({
                "frozen feed-forward weights": dtype,
                "all weights, mapped": f"{weights:.1f} MiB",
                "accuracy": f"{100 * measured['metric']:.1f} %",
                "peak": f"{measured['peak_memory_mib']:,.0f} MiB",
                "step": f"{measured['step_time_s']:.3f} s",
            })  # fmt: skip
            click.echo(f"{dtype}: {measured['metric']:.4f}", err=True)
    click.echo(markdown_table(table))


if __name__ == "__main__":
    main()
