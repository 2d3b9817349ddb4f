"""One training step by many methods: time, peak and saved memory, relative to full fine-tuning.

All models are in memory and run in turn, step by step, so that a change of the machine's speed affects all of them: a
ratio is the median over the rounds of a variant's step to full fine-tuning's in the same round. Weights and tokens are
random, which changes none of the figures. step_variants.py has the variants, step_measures.py and
farsearch.calibration.steps the measurements.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.step_measures import interleaved, product_seconds, step_seconds
from benchmarks.step_picture import save_picture
from benchmarks.step_report import Report, Result, device_name, tables
from benchmarks.step_variants import ABLATION, FULL, VARIANTS, Contender, Variant, contender
from farsearch.calibration.local import this_machine
from farsearch.calibration.steps import allocated, example_batch, peak_mib
from farsearch.cli.terminal import print_rows
from farsearch.errors import FarsearchError
from farsearch.far.features import Batch
from farsearch.formatting import markdown_table
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.models.load import build_model
from farsearch.models.source import resolve_model

__all__ = ["main", "measure"]

_WARM_UP = 2
_EVERYONE = {variant.name: variant for variant in VARIANTS + ABLATION}

Note = Callable[[str], None]


def measure(
    config: Any, variants: Sequence[Variant], batch_size: int, lengths: Sequence[int], rounds: int, note: Note
) -> list[Result]:
    """Measure variants of one model.

    Args:
        config: of transformers, the model's. It is built with two classes.
        variants: in addition to full fine-tuning.
        rounds: of timed steps; half as many are profiled.
        note: called with progress messages.
    """
    torch.manual_seed(0)
    device = torch.device(this_machine().kind)
    model, layout = build_model(config, Head())
    model.to(device)
    contenders = [contender(variant, model, layout) for variant in dict.fromkeys((_EVERYONE[FULL], *variants))]
    note(f"{len(contenders)} models are ready")
    results = []
    for length in lengths:
        batch = example_batch(config.vocab_size, batch_size, length, device)
        results += _measure(contenders, batch, rounds, note)
    return results


def _measure(contenders: Sequence[Contender], batch: Batch, rounds: int, note: Note) -> list[Result]:
    calls = [partial(one.step, batch) for one in contenders]
    rows, length = batch.inputs["input_ids"].shape
    start = time.monotonic()

    def progress(title: str, count: int) -> Callable[[int], None]:
        return lambda number: note(f"length {length}: {title} {number} of {count}, {time.monotonic() - start:.0f} s")

    profiled = max(1, rounds // 2)
    interleaved(calls, _WARM_UP, step_seconds, progress("warm-up", _WARM_UP))
    timed = interleaved(calls, rounds, step_seconds, progress("round", rounds))[..., 0]
    peaks = [peak_mib(call, one.model, one.optimizer) for call, one in zip(calls, contenders, strict=True)]
    saved = [_saved_mib(one, batch) for one in contenders]
    split = interleaved(calls, profiled, product_seconds, progress("profiled round", profiled))
    ratios = np.median(timed / timed[:, :1], axis=0)
    parts = np.median(split / split[:, :1], axis=0)
    return [
        Result(
            variant=one.variant.name,
            batch=rows,
            seq=length,
            time_ratio=float(ratios[i]),
            peak_ratio=peaks[i] / peaks[0],
            peak_mib=peaks[i],
            saved_mib=saved[i],
            nongemm_ratio=float(parts[i, 1]),
            trainable=one.trainable,
            gemm_ratio=float(parts[i, 0]),
            step_s=float(np.median(timed[:, i])),
            plan=None if one.variant.plan is None else dataclasses.asdict(one.variant.plan),
        )
        for i, one in enumerate(contenders)
    ]


def _saved_mib(one: Contender, batch: Batch) -> float:
    """Return the memory added by the forward pass, in MiB.

    Hooks on saved tensors would miss tensors that a checkpoint holds in other ways.
    """
    return allocated(lambda: one.forward(batch), batch.inputs["input_ids"].device)[1] / 2**20


def _print(report: Report, as_json: bool, as_markdown: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=1))
        return
    for title, rows in tables(report):
        if as_markdown:
            click.echo("\n{}\n\n{}".format(title.replace("\n", "; "), markdown_table(rows)))
        else:
            print_rows(rows, title, "")


def _lengths(_context: click.Context, _option: click.Parameter, text: str) -> list[int]:
    if not all(part.strip().isdecimal() and int(part) > 1 for part in text.split(",")):
        raise click.BadParameter(f"{text!r} is no list of lengths of at least 2; give for example 128,32")
    return [int(part) for part in text.split(",")]


def _chosen(_context: click.Context, _option: click.Parameter, text: str | None) -> list[Variant] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in _EVERYONE:
            raise click.BadParameter(f"{name!r} is none of {', '.join(_EVERYONE)}")
    return [_EVERYONE[name] for name in names]


def _read(path: Path) -> Report:
    try:
        return Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"{path} is no JSON of this benchmark: {error}") from error


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--model", metavar="NAME", default="distilbert-base-uncased", show_default=True,
              help="A well-known checkpoint, a folder, or a hub name. Only its configuration is read.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", default=16, show_default=True,
              help="Rows of a step.")  # fmt: skip
@click.option("--seq", "lengths", callback=_lengths, metavar="N[,N...]", default="128,32", show_default=True,
              help="Tokens of the longest rows; the picture shows the first.")  # fmt: skip
@click.option("--variants", callback=_chosen, metavar="NAME[,NAME...]",
              help="Only these, and full.  [default: all but those of --ablation]")  # fmt: skip
@click.option("--ablation", is_flag=True, help="Also far10-store with one piece of its plan off at a time.")
@click.option("--rounds", type=click.IntRange(min=1), metavar="N", default=7, show_default=True,
              help="Timed steps of each variant.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Of torch.  [default: torch's own choice]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with a schema_version.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the tables for a document.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Also draw peak against time into this PNG.")  # fmt: skip
@click.option("--from", "source", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="Show the JSON of an earlier run, without measuring.")  # fmt: skip
def main(
    model: str,
    batch_size: int,
    lengths: list[int],
    variants: list[Variant] | None,
    ablation: bool,
    rounds: int,
    threads: int | None,
    as_json: bool,
    as_markdown: bool,
    picture: Path | None,
    source: Path | None,
) -> None:
    """Measure one training step of a model by many methods, relative to full fine-tuning.

    It runs on CUDA where torch has it, else on the CPU. The whole takes a quarter of an hour on two cores and 10 GiB;
    nothing else should run beside it.

    \b
    Examples:
      python -m benchmarks.far_step --json > run.json
      python -m benchmarks.far_step --from run.json --markdown --picture step.png
      python -m benchmarks.far_step --seq 128 --variants far10-store,lora8 --rounds 3 --threads 1
    """
    if source is None:
        chosen = [*(VARIANTS if variants is None else variants), *(ABLATION if ablation else ())]
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            config = load_config(resolve_model(model), with_known=True)
            found = measure(config, chosen, batch_size, lengths, rounds, partial(click.echo, err=True))
        except FarsearchError as error:
            raise click.ClickException(str(error)) from error
        report = Report(device_name(), resolve_model(model).name, rounds, tuple(found))
    else:
        report = _read(source)
    if picture is not None:
        save_picture(report, picture)
    _print(report, as_json, as_markdown)


if __name__ == "__main__":
    main()
