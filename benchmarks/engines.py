"""Whole processes that fine-tune one model: full and LoRA in torch, FAR with either engine of a bundle.

    python -m benchmarks.engines [--rounds 3] [--json] [--picture FILE]

Every process is started anew in each round, one after another, so that a change of the machine's speed affects all. A
time is the median of the rounds' median step, relative to full fine-tuning's; a peak is the highest resident memory
(``VmHWM``), and the highest of what no file backs (``RssAnon``). Weights and tokens are random, which changes neither.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import transformers

from benchmarks.engine_bundles import make_bundle, write_rows
from benchmarks.engine_picture import Figures, save_picture
from farsearch.formatting import markdown_table
from farsearch.records import Engine, FarConfig, StepPlan

__all__ = ["Setting", "main", "measure", "watched"]

_PLAN = StepPlan(
    feed_forward="store", attention="recompute", dropout="seed", layer_norm="output", optimizer_kernel="fused",
    optimizer_step="backward",
)  # fmt: skip
"""Of the engine ``torch``: what a host chooses for speed."""
_STEPS, _WARM_UP = 8, 2
_SAMPLE_S = 0.01


@dataclass(frozen=True)
class Setting:
    """A model and its batches.

    Attributes:
        frozen: embeddings and attention are frozen beside nine tenths of the neurons; else only these.
    """

    model: str
    config: Any
    batch: int
    seq: int
    frozen: bool


@dataclass(frozen=True)
class _Run:
    step_s: float
    peak_mib: float
    anonymous_mib: float


_MINILM: dict[str, Any] = {
    "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
}  # fmt: skip
"""That of all-MiniLM-L6-v2."""

SETTINGS = (
    Setting("distilbert", transformers.DistilBertConfig(), 16, 128, True),
    Setting("distilbert", transformers.DistilBertConfig(), 16, 128, False),
    Setting("minilm", transformers.BertConfig(**_MINILM), 8, 64, True),
)


def _far(setting: Setting) -> FarConfig:
    """A tenth of each layer's neurons learn."""
    layers = setting.config.num_hidden_layers
    attention = layers if setting.frozen else 0
    return FarConfig((0.9,) * layers, 1e-5, 1.0, frozen_embeddings=setting.frozen, frozen_attention_layers=attention)


def measure(setting: Setting, rounds: int, threads: int, folder: Path, note: Callable[[str], None]) -> list[Figures]:
    """Measure full fine-tuning, LoRA, and FAR with both engines in one setting.

    Args:
        folder: for bundles and results.
        note: called with progress messages.
    """
    bundles = {}
    for engine in get_args(Engine):
        note(f"{setting.model}: making the bundle for {engine}")
        bundles[engine] = make_bundle(
            folder / engine, setting.config, engine,
            batch_size=setting.batch, length=setting.seq, config=_far(setting), plan=_PLAN,
        )  # fmt: skip
    rows = write_rows(folder / "rows.tsv", setting.batch * _STEPS, setting.seq)
    runs: dict[str, list[_Run]] = {}
    for number in range(rounds):
        for variant in ("full", "lora8"):
            note(f"round {number + 1} of {rounds}: {variant}")
            model = bundles["torch"] / "model"
            runs.setdefault(variant, []).append(_rival(variant, model, setting, threads))
        for engine, bundle in bundles.items():
            note(f"round {number + 1} of {rounds}: FAR, {engine}")
            out = folder / f"tuned-{engine}-{number}"
            runs.setdefault(f"far10 {engine}", []).append(_train(bundle, rows, out, threads))
    full = _median(runs["full"], "step_s")
    return [
        Figures(
            setting.model, variant.split()[0] + ("-emb-attn" if setting.frozen and "far" in variant else ""),
            variant.split()[-1] if "far" in variant else "torch", setting.batch, setting.seq,
            _median(found, "step_s") / full, _median(found, "step_s"), _median(found, "peak_mib"),
            _median(found, "anonymous_mib"),
        )
        for variant, found in runs.items()
    ]  # fmt: skip


def _median(runs: list[_Run], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))


def _rival(method: str, model: Path, setting: Setting, threads: int) -> _Run:
    arguments = [method, str(model), str(setting.batch), str(setting.seq), str(_STEPS)]
    output, peak, anonymous = watched(
        [sys.executable, "-m", "benchmarks.engine_rival", *arguments], {"OMP_NUM_THREADS": str(threads)}
    )
    return _Run(statistics.median(json.loads(output)[_WARM_UP:]), peak, anonymous)


def _train(bundle: Path, rows: Path, out: Path, threads: int) -> _Run:
    command = [sys.executable, str(bundle / "train.py"), "--train", str(rows), "--out", str(out)]
    _, peak, anonymous = watched([*command, "--threads", str(threads)], {})
    measured = json.loads((out / "measurement.json").read_text(encoding="utf-8"))["measured"]
    return _Run(measured["step_time_s"], peak, anonymous)


def watched(command: list[str], more: Mapping[str, str]) -> tuple[str, float, float]:
    """Run a process; return its output, and its peaks of resident and of anonymous memory in MiB."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, env={**os.environ, **more})
        peak = anonymous = 0.0
        while process.poll() is None:
            now = _memory(process.pid)
            peak, anonymous = max(peak, now.get("VmHWM", 0.0)), max(anonymous, now.get("RssAnon", 0.0))
            time.sleep(_SAMPLE_S)
        if process.returncode:
            raise click.ClickException(f"{command[1]} ended with {process.returncode}")
        output.seek(0)
        return output.read(), peak, anonymous


def _memory(pid: int) -> dict[str, float]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (line.split(":", 1) for line in lines if line.startswith(("VmHWM", "RssAnon")))
    return {name: int(value.split()[0]) / 1024 for name, value in pairs}


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE")
def main(rounds: int, threads: int, as_json: bool, picture: Path | None) -> None:
    """Measure all settings and print the table."""
    figures: list[list[Figures]] = []
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory(prefix="farsearch-") as folder:
            found = measure(setting, rounds, threads, Path(folder), lambda text: click.echo(text, err=True))
        figures.append(found)
    if picture is not None:
        save_picture(figures, picture)
    if as_json:
        results = [dataclasses.asdict(each) for found in figures for each in found]
        click.echo(json.dumps({"schema_version": 1, "results": results}))
        return
    click.echo(markdown_table([_row(each) for found in figures for each in found]))


def _row(each: Figures) -> dict[str, str]:
    return {
        "model": f"{each.model} {each.batch} × {each.seq}",
        "variant": each.variant,
        "engine": each.engine,
        "time": f"{each.time_ratio:.2f}",
        "step": f"{each.step_s:.3f} s",
        "peak of the process": f"{each.process_peak_mib:,.0f} MiB",
        "anonymous": f"{each.anonymous_peak_mib:,.0f} MiB",
    }


if __name__ == "__main__":
    main()
