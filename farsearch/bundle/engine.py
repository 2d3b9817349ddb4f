"""The FAR phase of a trial, compiled for the onnx engine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from farsearch.cost.plans import for_engine, stepped_at_end
from farsearch.far.layout import ModelLayout
from farsearch.far.loss import PLAIN, LossForm
from farsearch.far.surgery import apply_far, merge
from farsearch.files import link_or_copy
from farsearch.graph.compiler import PROGRAM, WEIGHTS, compile_step, engine_execution
from farsearch.graph.memory import EngineMemory
from farsearch.models.config import load_config
from farsearch.models.heads import Head, head_for
from farsearch.models.source import resolve_model
from farsearch.records import StepPlan
from farsearch.runtime.bundle_files import BundleFiles
from farsearch.runtime.memory import resident_mib
from farsearch.runtime.program_file import read_program
from farsearch.runtime.torch_engine.model import load_model

__all__ = ["ENGINE_FOLDER", "compile_phase", "compiled_bundle", "peaks_of"]

ENGINE_FOLDER = "engine"
"""Folder of a bundle with the compiled engine."""


def compile_phase(
    folder: Path,
    model: nn.Module,
    layout: ModelLayout,
    head: Head,
    start: Mapping[str, Tensor],
    learners: Sequence[Sequence[int] | None],
    frozen: tuple[bool, int, int],
    plan: StepPlan,
    heads: Sequence[Sequence[int] | None] = (),
    form: LossForm = PLAIN,
) -> str:
    """Compile a FAR phase into ``folder / ENGINE_FOLDER``; the model keeps its weights.

    Args:
        start: weights from which the phase starts, of all tensors that a saved model has.
        frozen: whether the embeddings are frozen, the layers with frozen attention, and the frozen bottom layers.
        plan: of the engine ``onnx``.
        heads: the trained heads of each layer; empty if no attention is split.
        form: of the loss.

    Returns:
        The file of the start weights, by its path in the bundle.

    Raises:
        BadInput: for a model that can't be compiled.
    """
    now = {name: value.clone() for name, value in model.state_dict().items()}
    engine = folder / ENGINE_FOLDER
    engine.mkdir()
    try:
        model.load_state_dict(start, strict=False)
        execution = engine_execution(layout, plan)
        apply_far(model, layout, learners, *frozen, execution=execution, heads=heads or None)
        compile_step(model, layout, head, sorted(start), form).write(engine)
    finally:
        merge(model, layout)
        model.load_state_dict(now)
    return f"{ENGINE_FOLDER}/{WEIGHTS}"


@contextmanager
def compiled_bundle(bundle: BundleFiles, base: str | None) -> Iterator[BundleFiles]:
    """Compile a bundle for torch into a temporary folder, beside links to its files.

    Args:
        base: folder of the public checkpoint, for a bundle that is a delta.

    Raises:
        BadInput: as ``compile_phase``.
        BundleProblem: when weights and model do not fit.
    """
    phase = bundle.phase
    model = load_model(bundle, base)
    config = load_config(resolve_model(bundle.path("model")))
    names = phase["weights"]["names"]
    start = {name: value for name, value in model.state_dict().items() if name in names}
    frozen = (phase["frozen_embeddings"], phase["frozen_attention_layers"], phase["frozen_bottom_layers"])
    layout = ModelLayout.from_dict(phase["layout"])
    plan = for_engine(StepPlan.from_dict(phase["plan"]), "onnx", layout)
    plan = stepped_at_end(plan) if "clip_norm" in phase else plan
    with tempfile.TemporaryDirectory(prefix="farsearch-") as made:
        folder = Path(made)
        link_or_copy(Path(bundle.path("model")).resolve(), folder / "model")
        weights = compile_phase(
            folder, model, layout, head_for(bundle.task, config), start, phase["learners"], frozen, plan,
            phase.get("heads", ()), LossForm("class_weights" in phase, phase.get("label_smoothing", 0.0)),
        )  # fmt: skip
        program = read_program(json.loads((folder / ENGINE_FOLDER / PROGRAM).read_text(encoding="utf-8")))
        process = resident_mib() or 0.0
        peaks = peaks_of(
            folder, phase["batch_size"], phase["max_length"], process, plan, "patience" in phase, "clip_norm" in phase
        )
        # the compiling process itself trains, with torch in its memory
        predicted = {**phase["predicted"], "process_mib": process, "peaks": peaks}
        compiled = {
            **phase,
            "plan": plan.to_dict(),
            "predicted": predicted,
            "weights": {**phase["weights"], "start": weights},
        }
        yield bundle._replace(folder=str(folder), phase=compiled, program=program)


def peaks_of(
    folder: Path,
    batch_size: int,
    length: int,
    process_mib: float,
    plan: StepPlan,
    keeps_best: bool = False,
    clips: bool = False,
) -> list[tuple[int | None, float]]:
    """Return the predicted peak in MiB of a plan, and of smaller micro-batches as long as they lower it.

    Args:
        folder: of the bundle.
        process_mib: memory of the process beside the step's.
        keeps_best: a copy of the trained tensors is kept, those of the best state.
        clips: the norm of all gradients is clipped, so that all are held.
    """
    memory = EngineMemory.of_folder(folder / ENGINE_FOLDER)
    copy = memory.trained_bytes / 2**20 if keeps_best else 0.0
    peaks: list[tuple[int | None, float]] = []
    size = plan.micro_batch_size
    while size != 0:
        step = memory.step(size or batch_size, length, optimizer=plan.optimizer, parts=clips or size is not None)
        peak = process_mib + copy + step.resident / 2**20
        if not peaks or peak < peaks[-1][1]:
            peaks.append((size, peak))
        size = (size or batch_size) // 2
    return peaks
