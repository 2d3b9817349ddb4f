"""One whole fine-tuning run, predicted before it starts: priming and FAR phase, with the real padding."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cost_time import Reference
from farsearch.calibration.result import Calibration
from farsearch.cost.plans import quickest
from farsearch.cost.pricer import full_fine_tuning
from farsearch.devices.profile import Profile, write_profile
from farsearch.priming import start_state
from farsearch.records import FarConfig, StepPlan
from farsearch.resolve import resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store
from farsearch.training import Batching, far_phase

__all__ = ["RunCase", "measure_run"]

_SAMPLES = 1024
_PRIMING_EPOCHS = 0.25
_EPOCHS = 1.0

Note = Callable[[str], None]


@dataclass(frozen=True)
class RunCase:
    """Seconds of priming and of the FAR phase.

    Attributes:
        predicted_s, measured_s: priming, FAR phase.
        drift: how slow the machine was meanwhile beside its calibration.
        low_s, high_s: the range that was predicted for both together.
    """

    predicted_s: tuple[float, float]
    measured_s: tuple[float, float]
    drift: float
    low_s: float
    high_s: float

    @property
    def error(self) -> float:
        """Predicted by measured at the calibrated speed, less 1."""
        return sum(self.predicted_s) / (sum(self.measured_s) / self.drift) - 1


def measure_run(calibration: Calibration, profile: Profile, data_dir: Path, model: str, note: Note) -> RunCase:
    """Prime and fine-tune on SST-2.

    Args:
        calibration: from which ``profile`` was fitted.
        data_dir: holds the official files.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{profile.name}.toml"
        write_profile(profile, path)
        store = Store(Path(folder) / "home")
        options = SearchSpec(
            task="sst2", device=str(path), model=model, data_dir=data_dir, train_samples=_SAMPLES, batch_size=8
        )
        job = resolve_job(options, store, note)
        bench = job.bench(store)
        pricer = job.pricer(bench)
        layers = pricer.layers
        config = FarConfig((0.8,) * layers, 1e-4, _EPOCHS, priming_epochs=_PRIMING_EPOCHS)
        plan = quickest(StepPlan(), bench.layout)
        far = pricer.price(config, plan)
        primed = pricer.price(full_fine_tuning(layers, epochs=_PRIMING_EPOCHS), StepPlan())
        note(f"run: predicted {primed.wall_time_s:.0f} s of priming and {far.wall_time_s:.0f} s of the FAR phase")
        reference = Reference(calibration)
        drifts = [reference.now()]
        found = bench.primings.get(bench.model, _PRIMING_EPOCHS)
        drifts.append(reference.now())
        learners, _ = bench.select(config, found)
        start = start_state(bench.layout, bench.pretrained, found.state, learners, config, "primed")
        bench.model.load_state_dict(start)
        begun = time.perf_counter()
        far_phase(
            bench.model, bench.layout, learners, config, plan, bench.train_rows,
            Batching(job.settings.job.batch_size, bench.pad_id, 0),
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        drifts.append(reference.now())
    low, high = (sum(part.wall_time_range_s[end] for part in (primed, far)) for end in (0, 1))
    case = RunCase(
        (primed.wall_time_s, far.wall_time_s), (found.seconds, seconds), sum(drifts) / len(drifts), low, high
    )
    note(f"run: measured {found.seconds:.0f} s and {seconds:.0f} s, machine {case.drift:.2f} as slow")
    return case
