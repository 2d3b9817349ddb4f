"""The results on which workstation and board must agree, computed by whichever Python runs this file.

The tests call these functions under the workstation's torch, and start this file on the board::

    python checks.py FOLDER

FOLDER has ``far/`` (the copy), ``case.json`` and, for a model, ``config.json``, ``layout.json`` and ``start.pt``.
The result is written to ``answer.json``. The file uses only the syntax of Python 3.6, and features of torch 1.10 and
transformers 4.18.

A check takes the name of far's package on this machine, the folder and its case, and returns JSON types.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor, nn

__all__ = ["CHECKS"]

Case = Dict[str, Any]
State = Dict[str, Tensor]


def modules(far: str, _folder: Path, case: Case) -> Case:
    """Import each module of far, the first step on a board."""
    return {"imported": [importlib.import_module(far + "." + name).__name__ for name in case["modules"]]}


def abilities(far: str, _folder: Path, _case: Case) -> Case:
    """Optimizer features of this torch."""
    optimizer = importlib.import_module(far + ".optimizer")
    return {"fused": optimizer.has_fused(), "in_backward": optimizer.has_backward_hooks()}


def order(far: str, _folder: Path, case: Case) -> Case:
    """Batches of a phase, and its learning rates."""
    batches, schedule = importlib.import_module(far + ".batches"), importlib.import_module(far + ".schedule")
    rows = batches.phase_batches(case["lengths"], case["batch_size"], case["epochs"], case["seed"])
    rate = schedule.linear_rate(case["learning_rate"], len(rows))
    return {"batches": rows, "rates": [rate(step) for step in range(len(rows))]}


def selection(far: str, folder: Path, case: Case) -> Case:
    """Scores of the neurons between ``start.pt`` and ``primed.pt``, and the learners by score and at random."""
    choose = importlib.import_module(far + ".selection")
    before, after = torch.load(str(folder / "start.pt")), torch.load(str(folder / "primed.pt"))
    scores = choose.neuron_scores(read_layout(far, folder), before, after)
    count = choose.learner_count(len(scores[0]), case["frozen_fraction"])
    return {
        "scores": [score.tolist() for score in scores],
        "top": [choose.top_learners(score, count) for score in scores],
        "ties": choose.top_learners(torch.tensor(case["ties"]), count),
        "random": [choose.random_learners(len(score), count, case["seed"]) for score in scores],
    }


def training(far: str, folder: Path, case: Case) -> Case:
    """A FAR phase: ``apply_far``, the loop and ``merge`` with the case's options, then prediction."""
    batches, execution, features, loop, optimizers, schedule, surgery = (
        importlib.import_module(far + "." + name)
        for name in ("batches", "execution", "features", "loop", "optimizer", "schedule", "surgery")
    )
    layout = read_layout(far, folder)
    model, start = read_model(folder)
    names = list(model.state_dict())
    rows, steps = features.Features(case["rows"], case["labels"]), []  # type: Tuple[Any, List[float]]
    phase = batches.phase_batches(rows.lengths, case["batch_size"], case["epochs"], case["seed"])
    how = execution.Execution(**case["execution"])
    surgery.apply_far(model, layout, case["learners"], execution=how, **case["freeze"])
    trainable = surgery.trainable_count(model)
    optimizer = optimizers.make_optimizer(model=model, **case["optimizer"])
    rate = schedule.linear_rate(case["learning_rate"], len(phase))
    loop.train(
        model, rows, phase, optimizer, rate, 0, case["seed"], case["micro_batch_size"],
        lambda _step, loss: steps.append(loss),
    )  # fmt: skip
    surgery.merge(model, layout)
    state = model.state_dict()
    return {
        "losses": steps,
        "logits": loop.predict(model, rows, 0).tolist(),
        "trainable": trainable,
        "same_names": list(state) == names,
        "moved": sorted(name for name, value in start.items() if not torch.equal(value, state[name])),
        "moved_neurons": [moved_neurons(start, state, block) for block in layout.blocks],
    }


def peaks(far: str, folder: Path, case: Case) -> Case:
    """Peak of all tensors in the second training step under each of several plans, in bytes."""
    return {"peaks": [step_peak(far, folder, step) for step in case["steps"]]}


def step_peak(far: str, folder: Path, case: Case) -> int:
    """Parameters, buffers and the optimizer's state, plus the peak of the step's temporary tensors.

    The batch is allocated before the step and not counted, as in the cost model. Every other row is shorter, because
    without any padding a model makes no mask.
    """
    execution, features, loop, optimizers, surgery = (
        importlib.import_module(far + "." + name) for name in ("execution", "features", "loop", "optimizer", "surgery")
    )
    model, _ = read_model(folder)
    how = execution.Execution(**case["execution"])
    surgery.apply_far(model, read_layout(far, folder), case["learners"], execution=how)
    optimizer = optimizers.make_optimizer(case["kind"], model)
    size, length = case["batch_size"], case["length"]
    mask = torch.ones(size, length, dtype=torch.long)
    mask[1::2, length // 2 :] = 0
    ids = mask + torch.arange(size * length).view(size, length) % 900
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": torch.arange(size) % 2}
    batch = features.Batch(inputs, (1,) * size)

    def step() -> None:
        loop.train_step(model, optimizer, batch, micro_batch_size=case["micro_batch_size"])

    model.train()
    step()
    state = [value for entry in optimizer.state.values() for value in entry.values() if isinstance(value, Tensor)]
    held = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers(), *state])
    return held + allocated_peak(step)


def allocated_peak(call: Callable[[], Any]) -> int:
    """Peak bytes of a call over those allocated before it, from torch's profiler (1.10 or newer)."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        call()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    # older versions have microseconds only; within one, events are in order
    starts = [event.start_ns() if hasattr(event, "start_ns") else event.start_us() for event in events]
    level = peak = 0
    for i in sorted(range(len(events)), key=lambda i: starts[i]):
        level += events[i].nbytes()
        peak = max(peak, level)
    return peak


def moved_neurons(start: State, state: State, block: Any) -> List[int]:
    """Neurons of a feed-forward block whose row, bias or column differs between two states."""
    up, bias, down = ((start[name] != state[name]) for name in (block.up + ".weight", block.up + ".bias",
                                                                block.down + ".weight"))  # fmt: skip
    return (up.any(1) | bias | down.any(0)).nonzero().flatten().tolist()


def read_layout(far: str, folder: Path) -> Any:
    """The layout that the workstation wrote."""
    layout = importlib.import_module(far + ".layout")
    return layout.ModelLayout.from_dict(json.loads((folder / "layout.json").read_text()))


def read_model(folder: Path) -> Tuple[nn.Module, State]:
    """The model that the workstation wrote, as this machine's transformers builds it, and its weights."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(folder))
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    start = torch.load(str(folder / "start.pt"))
    missing, unexpected = model.load_state_dict(start, strict=False)
    assert not unexpected
    # transformers 4.18 counts this constant buffer among a BERT's weights, 5 does not
    assert set(missing) <= {"bert.embeddings.position_ids"}
    return model, start


CHECKS = {check.__name__: check for check in (modules, abilities, order, selection, training, peaks)}


if __name__ == "__main__":
    here = Path(sys.argv[1])
    sys.path.insert(0, str(here))
    asked = json.loads((here / "case.json").read_text())
    answer = CHECKS[asked["check"]]("far", here, asked)
    (here / "answer.json").write_text(json.dumps(answer))
