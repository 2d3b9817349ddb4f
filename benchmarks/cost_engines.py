"""The predicted peak and time of whole processes that train a bundle without torch, against measured ones.

    python -m benchmarks.cost_engines [--settings 30] [--json]

This machine's CPU is calibrated with the engine first. Each setting is exported with random weights, and trained by
``train.py`` in a process of its own, whose highest resident memory (``VmHWM``) and median step are compared with what
was predicted before. Steps of the calibration before and after each process tell how fast the machine is now: times are
divided by its slowdown. Leave it idle meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import transformers
from scipy.stats import spearmanr

from benchmarks.cost_memory import this_host
from benchmarks.engine_bundles import make_bundle, spread_words, write_rows
from benchmarks.engines import watched
from farsearch.bundle.engine import peaks_of
from farsearch.calibration.fit import fit_engine
from farsearch.calibration.local import measure_here
from farsearch.calibration.measure.onnx_timing import compiled_step, unpacked
from farsearch.calibration.measure.rounds import time_call
from farsearch.calibration.payload import engine_payload
from farsearch.calibration.result import Calibration
from farsearch.cost.compiled import vocabulary_mib
from farsearch.cost.plans import for_engine
from farsearch.cost.pricer import Pricer
from farsearch.devices.profile import Profile
from farsearch.formatting import markdown_table
from farsearch.models.families import layout_of
from farsearch.models.heads import Head
from farsearch.records import Engine, FarConfig, StepPlan

__all__ = ["SETTINGS", "Case", "Setting", "main", "report"]

_STEPS = 5
_VOCABULARY = 30_522
"""Of the bundles' tokenizer."""
Note = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """A training: a model by family and size, its batches, and what learns.

    Attributes:
        fraction: of frozen neurons in each layer.
        frozen: the embeddings are frozen, layers with frozen attention, and frozen bottom layers.
    """

    family: str
    batch: int
    seq: int
    fraction: float
    frozen: tuple[bool, int, int] = (False, 0, 0)
    micro_batch: int | None = None
    recompute: bool = False

    @property
    def title(self) -> str:
        """One line."""
        embeddings, attention, bottom = self.frozen
        parts = [f"{self.family} {self.batch} x {self.seq}", f"{1 - self.fraction:.0%} learn"]
        parts += ["embeddings frozen"] * embeddings
        parts += [f"attention of {attention} frozen"] * bool(attention)
        parts += [f"bottom {bottom} frozen"] * bool(bottom)
        parts += [f"{self.micro_batch} at once"] * bool(self.micro_batch)
        return ", ".join(parts + ["recompute"] * self.recompute)


_SIZES: Mapping[str, Mapping[str, Any]] = {
    "minilm": {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "distilbert": {"model_type": "distilbert"},
    "roberta": {"model_type": "roberta", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
                "intermediate_size": 1024, "pad_token_id": 0},
    "electra": {"model_type": "electra", "num_hidden_layers": 6},
    "mpnet": {"model_type": "mpnet", "hidden_size": 384, "num_hidden_layers": 4, "intermediate_size": 1536,
              "pad_token_id": 0},
    "deberta": {"model_type": "deberta-v2", "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
                "intermediate_size": 1024, "relative_attention": True, "position_buckets": 64,
                "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "norm_rel_ebd": "layer_norm",
                "position_biased_input": False, "max_position_embeddings": 512},
    "modernbert": {"model_type": "modernbert", "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
                   "intermediate_size": 512, "pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102,
                   "bos_token_id": 101, "eos_token_id": 102},
}  # fmt: skip
"""Configurations of transformers, all with the tokenizer's vocabulary."""

SETTINGS = (
    Setting("minilm", 8, 64, 0.9, (True, 0, 0)),
    Setting("distilbert", 8, 64, 0.9, (True, 6, 0)),
    Setting("minilm", 8, 128, 0.5),
    Setting("electra", 16, 64, 0.8, (True, 0, 0)),
    Setting("roberta", 16, 64, 0.9),
    Setting("distilbert", 4, 32, 0.95, (True, 6, 3)),
    Setting("minilm", 16, 32, 0.9, (False, 6, 0), 4),
    Setting("mpnet", 8, 64, 0.7, (True, 2, 1)),
    Setting("deberta", 8, 64, 0.9, (True, 0, 0)),
    Setting("modernbert", 8, 64, 0.8),
    Setting("minilm", 4, 32, 0.0),
    Setting("minilm", 8, 64, 0.98, (True, 6, 2)),
    Setting("minilm", 16, 128, 0.9, (True, 3, 0), 8),
    Setting("minilm", 32, 32, 0.9, (True, 0, 3), None, True),
    Setting("minilm", 8, 128, 0.9, (True, 6, 0), None, True),
    Setting("distilbert", 8, 128, 0.9),
    Setting("distilbert", 16, 64, 0.9, (True, 0, 0), 4),
    Setting("distilbert", 16, 128, 0.9, (True, 6, 0)),
    Setting("distilbert", 8, 32, 0.5, (True, 3, 2)),
    Setting("distilbert", 16, 32, 0.8, (False, 6, 0), None, True),
    Setting("electra", 8, 128, 0.9, (True, 6, 0)),
    Setting("electra", 32, 32, 0.5, (False, 0, 0), 8),
    Setting("roberta", 8, 128, 0.95, (True, 4, 2)),
    Setting("roberta", 32, 64, 0.8, (True, 0, 0), 16),
    Setting("mpnet", 16, 32, 0.9, (True, 4, 0)),
    Setting("mpnet", 8, 128, 0.9, (False, 0, 0), 2),
    Setting("deberta", 16, 32, 0.5, (True, 3, 0)),
    Setting("deberta", 8, 128, 0.9, (True, 1, 1), 4),
    Setting("modernbert", 16, 32, 0.9, (True, 0, 0)),
    Setting("modernbert", 8, 128, 0.5, (True, 4, 2)),
)


@dataclass(frozen=True)
class Case:
    """What was predicted and measured of one setting.

    Attributes:
        process_mib: of the process beside the weights, before the phase, as it measured itself.
        measured_mib: highest resident memory of the whole process; ``anonymous_mib``: of what no file backs.
        steady_s: ``measured_s`` by the slowdown of the machine since the calibration.
    """

    setting: Setting
    predicted_mib: float
    measured_mib: float
    anonymous_mib: float
    process_mib: float
    predicted_s: float
    measured_s: float
    steady_s: float

    @property
    def memory_error(self) -> float:
        """Predicted by measured, less 1."""
        return self.predicted_mib / self.measured_mib - 1

    @property
    def time_error(self) -> float:
        """Predicted by measured at the calibrated speed, less 1."""
        return self.predicted_s / self.steady_s - 1


class _Reference:
    """Steps of the calibration, which tell how fast the machine is now: 2 for half as fast as then."""

    def __init__(self, calibration: Calibration, folder: Path) -> None:
        name = next(name for name in ("learners", "narrow") if name in calibration.sustained)
        entry = unpacked(engine_payload())["steps"][name]
        self._step, self._calibrated = compiled_step(entry, str(folder), None), calibration.sustained[name].last
        self.now()

    def now(self) -> float:
        """Return the slowdown."""
        return statistics.median(time_call(self._step, 1) for _ in range(3)) / self._calibrated


def measure(setting: Setting, profile: Profile, reference: _Reference, folder: Path) -> Case:
    """Predict a setting, then train it in a process of its own.

    Args:
        profile: with the figures of the engine.
        folder: for the bundle and its results.
    """
    values = {**_SIZES[setting.family], "vocab_size": _VOCABULARY}
    model_config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    layout = layout_of(model_config)
    embeddings, attention, bottom = setting.frozen
    config = FarConfig(
        (setting.fraction,) * len(layout.layers), 1e-5, 1.0, 0.0, embeddings, attention, bottom
    ).canonical()
    wanted = StepPlan(feed_forward="recompute" if setting.recompute else "store", micro_batch_size=setting.micro_batch)
    plan = for_engine(wanted, "onnx", layout)
    bundle = make_bundle(
        folder, model_config, "onnx", batch_size=setting.batch, length=setting.seq, config=config, plan=plan
    )
    process = profile.process_mib.value + vocabulary_mib(model_config)
    (_, predicted_mib), *_ = peaks_of(bundle, setting.batch, setting.seq, process, plan)
    engines: dict[Engine, Profile] = {"onnx": profile}
    priced = Pricer(model_config, Head(), setting.batch, setting.seq, profile, engines=engines).price(config, plan)
    tokens = setting.batch * _STEPS * (setting.seq - 2)
    rows = write_rows(folder / "rows.tsv", setting.batch * _STEPS, setting.seq, spread_words(tokens))
    before = reference.now()
    _, peak, anonymous = watched([sys.executable, str(bundle / "train.py"), "--train", str(rows), "--out",
                                  str(folder / "tuned")], {})  # fmt: skip
    slow = (before + reference.now()) / 2
    found = json.loads((folder / "tuned" / "measurement.json").read_text(encoding="utf-8"))["measured"]
    seconds = found["step_time_s"]
    return Case(
        setting,
        predicted_mib,
        peak,
        anonymous,
        found["process_memory_mib"],
        priced.step_time_s,
        seconds,
        seconds / slow,
    )


def report(cases: Sequence[Case]) -> dict[str, Any]:
    """Return all cases and the errors, as fractions, for programs."""
    memory, times = [abs(case.memory_error) for case in cases], [abs(case.time_error) for case in cases]
    ranks = spearmanr([case.predicted_s for case in cases], [case.steady_s for case in cases]).statistic
    return {
        "schema_version": 1,
        "memory_mean_error": statistics.mean(memory),
        "memory_max_error": max(memory),
        "time_mean_error": statistics.mean(times),
        "time_rank_correlation": float(ranks) if len(cases) > 1 else None,
        "results": [{**dataclasses.asdict(case), "memory_error": case.memory_error, "time_error": case.time_error}
                    for case in cases],
    }  # fmt: skip


@click.command(help=__doc__)
@click.option("--settings", "count", type=click.IntRange(1, len(SETTINGS)), default=len(SETTINGS), show_default=True,
              help="The first of them.")  # fmt: skip
@click.option("--calibration-s", type=float, default=150.0, show_default=True, help="Time to calibrate this machine.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def main(count: int, calibration_s: float, as_json: bool) -> None:
    """Calibrate, measure the settings and print the table."""
    note: Note = lambda text: click.echo(text, err=True)  # noqa: E731
    calibration = measure_here(calibration_s, note, "onnx")
    profile = fit_engine(calibration, this_host()).for_engine("onnx")
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="farsearch-") as folder:
        (Path(folder) / "reference").mkdir()
        reference = _Reference(calibration, Path(folder) / "reference")
        for i, setting in enumerate(SETTINGS[:count]):
            note(f"{i + 1} of {count}: {setting.title}")
            with tempfile.TemporaryDirectory(dir=folder) as one:
                cases.append(measure(setting, profile, reference, Path(one)))
            note(json.dumps(dataclasses.asdict(cases[-1])))
    found = report(cases)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(markdown_table([_row(case) for case in cases]))
    ranks = found["time_rank_correlation"]
    click.echo(
        f"memory: mean error {found['memory_mean_error']:.1%}, worst {found['memory_max_error']:.1%}; time: mean error "
        f"{found['time_mean_error']:.1%}" + ("" if ranks is None else f", rank correlation {ranks:.3f}")
    )


def _row(case: Case) -> dict[str, str]:
    return {
        "setting": case.setting.title,
        "predicted": f"{case.predicted_mib:,.0f} MiB",
        "measured": f"{case.measured_mib:,.0f} MiB",
        "off": f"{case.memory_error:+.1%}",
        "process": f"{case.process_mib:,.0f} MiB",
        "step, predicted": f"{case.predicted_s:.3f} s",
        "at calibrated speed": f"{case.steady_s:.3f} s",
        "time off": f"{case.time_error:+.0%}",
    }


if __name__ == "__main__":
    main()
