"""Predicted costs of FAR relative to full fine-tuning on each board: memory and time of one step for each goal.

    python -m benchmarks.board_ratios

prints a Markdown table: DistilBERT, batch 16, length 128, relative to full fine-tuning by ordinary modules and torch's
AdamW. r = 10 % trains a tenth of the neurons and everything else. Nothing is measured.
"""

from __future__ import annotations

import click

from benchmarks.cost_models import built, layers_of
from farsearch.cost.pricer import Pricer, best_of, full_fine_tuning
from farsearch.cost.traced_model import shared_tables
from farsearch.devices import load_profile
from farsearch.formatting import markdown_table
from farsearch.goals import GOALS
from farsearch.models.heads import Head
from farsearch.records import FarConfig

__all__ = ["main", "rows"]

BOARDS = (
    "jetson-nano",
    "jetson-tx2",
    "jetson-xavier-nx",
    "jetson-orin-nano",
    "jetson-agx-orin-64gb",
    "raspberry-pi-4",
    "raspberry-pi-5",
)
_MODEL, _BATCH, _LENGTH = "distilbert-base-uncased", 16, 128


def rows() -> list[dict[str, str]]:
    """Return one row per board: full fine-tuning in MiB and seconds, and FAR's memory and time as shares of it."""
    config, layers, found = built(_MODEL)[0], layers_of(_MODEL), []
    far = FarConfig((0.9,) * layers, 1e-4, 1.0)
    for board in BOARDS:
        profile = load_profile(board)
        pricer = Pricer(config, Head(), _BATCH, _LENGTH, profile, tables=shared_tables(config, Head()))
        full, priced = pricer.price(full_fine_tuning(layers)), pricer.all_plans(far)
        row = {"board": board, "full MiB": f"{full.tensor_peak_mib:,.0f}", "full s": f"{full.step_time_s:.2f}"}
        ways = {"ordinary modules": pricer.price(far)}
        ways |= {str(goal): best_of(priced, goal)[1] for goal in GOALS}
        for name, cost in ways.items():
            memory, time = cost.tensor_peak_mib / full.tensor_peak_mib, cost.step_time_s / full.step_time_s
            row[name] = f"{memory:.2f}, {time:.2f}"
        found.append(row)
    return found


@click.command(help=__doc__)
def main() -> None:
    """Print the table."""
    click.echo(markdown_table(rows()))


if __name__ == "__main__":
    main()
