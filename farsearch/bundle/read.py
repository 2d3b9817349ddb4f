"""Read a bundle, and run its FAR phase on other data with the runtime of the board."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farsearch.bundle.onnx import check_packages
from farsearch.cost.plans import quickest
from farsearch.errors import BadInput, BundleError, DataError, Diverged, MissingResource, OutOfMemory
from farsearch.far.display import PATH, shown
from farsearch.far.layout import ModelLayout
from farsearch.records import Engine, StepPlan, StudySettings, Trial, TrialOutcome, read_trial
from farsearch.runtime.bundle_files import BundleFiles, BundleProblem, open_bundle
from farsearch.runtime.job import Options, summary_lines
from farsearch.runtime.memory import is_out_of_memory
from farsearch.runtime.rows import RowProblem
from farsearch.runtime.run import load_engine, run_bundle
from farsearch.runtime.task import Task
from farsearch.tasks.constant_answer import Constant, constant_answer
from farsearch.tasks.metrics import MetricValue, score

__all__ = ["Bundle", "Tuned", "finetune", "read_bundle"]

_KEYS = {
    "schema_version", "study", "settings", "trial", "why", "versions", "created", "base", "phase", "sha256", "digest",
}  # fmt: skip


@dataclass(frozen=True)
class Bundle:
    """A bundle, verified against its checksums.

    Attributes:
        files: its files and ``far.json``.
    """

    files: BundleFiles
    settings: StudySettings
    trial: Trial[TrialOutcome]
    plan: StepPlan

    @property
    def layout(self) -> ModelLayout:
        """The layout of its model."""
        return ModelLayout.from_dict(self.files.phase["layout"])

    @property
    def task(self) -> Task:
        """Its task."""
        return self.files.task


@dataclass(frozen=True)
class Tuned:
    """Result of fine-tuning on a user's rows.

    Attributes:
        metric, constant: metrics of the model and of the best constant answer on the dev file; None without one.
        steps: number of steps.
        summary: lines on the model, and on measured beside predicted memory and time.
    """

    metric: MetricValue | None
    constant: Constant | None
    steps: int
    summary: list[str]


def read_bundle(folder: Path) -> Bundle:
    """Read and validate a bundle.

    Raises:
        BundleError: when it is missing, damaged, or of another schema.
    """
    with _runtime_errors(folder):
        files = open_bundle(str(folder))
    manifest = files.manifest
    known = _KEYS | ({"refit"} & set(manifest))  # bundles of the trial's own model have none
    if set(manifest) != known:
        wrong = sorted(map(str, set(manifest) ^ known))[0]
        raise BundleError(f"{folder}/far.json has a missing or unknown key {shown(wrong)}; export the bundle again")
    try:
        settings, trial = StudySettings.from_dict(manifest["settings"]), read_trial(manifest["trial"])
        layout = ModelLayout.from_dict(files.phase["layout"])
        if not isinstance(trial, Trial):
            raise BadInput("its trial has no configuration")
        if len(trial.config.frozen_fractions) != len(layout.layers):
            raise BadInput("configuration and layout have different numbers of layers")
        return Bundle(files, settings, trial, StepPlan.from_dict(files.phase["plan"]))
    except (BadInput, TypeError, KeyError, AttributeError) as error:
        raise BundleError(f"{folder}/far.json does not describe a bundle: {error}; export it again") from error


@contextmanager
def _runtime_errors(where: Path) -> Iterator[None]:
    """Translate the errors of the runtime into farsearch's."""
    try:
        yield
    except BundleProblem as error:
        raise BundleError(str(error)) from error
    except RowProblem as error:
        raise DataError(str(error)) from error
    except FileExistsError as error:
        raise BadInput(str(error)) from error
    except FloatingPointError as error:
        raise Diverged(f"{error}; a bundle with a lower learning rate may help") from error
    except OSError as error:
        named = error.filename or where
        reason = error.strerror or str(error)
        raise MissingResource(
            f"{shown(str(named), PATH)}: {reason}; check the path, its permissions and the disk"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory("memory ran out with a single row at a time; close other programs") from error


def finetune(
    bundle: Bundle,
    train: Path,
    dev: Path | None,
    out: Path,
    epochs: float | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    report: Callable[[str], None] | None = None,
    base: Path | None = None,
    engine: Engine | None = None,
) -> Tuned:
    """Run the bundle's FAR phase on a user's own file and save the merged model into ``out``.

    Args:
        train, dev: files of rows of the bundle's task, as ``runtime.rows`` reads them.
        epochs: replaces the bundle's.
        report: called with each line of progress.
        base: folder of the public checkpoint, for a bundle that is a delta.
        engine: that trains; None for the bundle's.

    Raises:
        BadInput: when ``out`` is in use, or the bundle has not what the engine needs.
        BundleError: when the weights do not fit the model.
        DataError: for invalid rows, or labels that are not the bundle's.
        MissingResource: for files that can't be read or written.
    """
    if engine == "torch" and bundle.files.engine == "onnx":
        raise BadInput(f"{bundle.files.folder} is compiled for the engine onnx; export it again with `engine` torch")
    given = None if base is None else str(base)
    compiling = engine == "onnx" and bundle.files.engine == "torch"
    with (
        _runtime_errors(out),
        _compiled(bundle.files, given) if compiling else nullcontext(bundle.files) as files,
    ):
        options = Options(
            train=str(train),
            out=str(out),
            dev=None if dev is None else str(dev),
            epochs=epochs,
            base=given,
            plan=_fast_plan(bundle, files),
        )
        trainer = load_engine(files)
        result = run_bundle(trainer, files, options, report or (lambda _: None), on_step or (lambda *_: None))
    summary = summary_lines(result, str(out))
    if result.predictions is None:
        return Tuned(None, None, result.log.steps, summary)
    task, answers = bundle.task, result.answers
    metric = score(task.metric, result.predictions, answers, task.labels, task.positive_id)
    return Tuned(metric, constant_answer(task, answers), result.log.steps, summary)


def _compiled(bundle: BundleFiles, base: str | None) -> AbstractContextManager[BundleFiles]:
    from farsearch.bundle.engine import compiled_bundle

    check_packages()
    return compiled_bundle(bundle, base)


def _fast_plan(bundle: Bundle, files: BundleFiles) -> dict[str, Any] | None:
    """The fastest plan with the same dropout masks as the bundle's; None for a compiled one, which has no other."""
    if files.engine == "onnx":
        return None
    return (quickest(bundle.plan, bundle.layout) if bundle.plan.dropout == "seed" else bundle.plan).to_dict()
