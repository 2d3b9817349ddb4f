"""The settings of a search, declared once: for the library, the command line, and the studies that record them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from farsearch.errors import BadInput
from farsearch.far.display import shown

__all__ = ["FLAGS", "RECORDED", "SearchSpec"]

_REQUIRED: Any = dataclasses.MISSING


def _setting(
    text: str,
    default: Any = None,
    *,
    option: str | None = None,
    metavar: str | None = None,
    least: int | None = None,
    choices: Sequence[str] = (),
    kind: Literal["text", "path", "positive", "rows", "pairs"] = "text",
    fingerprint: Literal["given", "resolved"] | None = None,
    recorded: bool = True,
) -> Any:
    """Declare a setting.

    Args:
        text: help of the option, and of the argument.
        option: name of the option where it is not that of the field.
        least: lower bound of an integer.
        kind: type of the option where no bound, choices or default name it.
        fingerprint: the setting is part of a study's identity: as given, or resolved to numbers, commits and digests;
            None for metadata and for how a search is executed.
        recorded: studies record the setting, with which other hosts join them.
    """
    metadata = {
        "help": text,
        "option": option,
        "metavar": metavar,
        "least": least,
        "choices": tuple(choices),
        "kind": kind,
        "fingerprint": fingerprint,
        "recorded": recorded,
    }
    if isinstance(default, Mapping):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """The settings of a search. None leaves the default to the task, the model or the space."""

    device: str = _setting(
        "Profile of the device (see: farsearch devices list).", _REQUIRED, metavar="NAME", fingerprint="resolved"
    )
    task: str | None = _setting(
        "An official one (see: farsearch tasks list), or your own: a .toml file.", metavar="NAME",
        fingerprint="resolved",
    )  # fmt: skip
    own: Mapping[str, Any] | None = _setting(
        "Description of your own data by fields of OwnData, for example train and label_column.",
        fingerprint="resolved",
    )
    model: str | None = _setting(
        "Hub name, folder, minilm, or a known model, as deberta-v3-small.  [default: distilbert-base-uncased, for "
        "reviews minilm]", metavar="NAME", fingerprint="resolved",
    )  # fmt: skip
    allow_pickle: bool = _setting(
        "Also read pytorch_model.bin, which can hold any code; without it only safetensors.", False
    )
    revision: str | None = _setting(
        "Branch, tag or commit of a hub model; the study records its commit.  [default: main]", metavar="REV",
        fingerprint="resolved",
    )  # fmt: skip
    keep_head: bool = _setting(
        "Keep the head that the checkpoint brings, where its labels are the task's.", False, fingerprint="given"
    )
    class_weights: Literal["balanced", "none"] | None = _setting(
        "Weights of the classes in the loss: balanced, by which a rare class counts as much as a common one, or none.  "
        "[default: balanced where the rarest has under a fifth of the commonest's rows]", choices=("balanced", "none"),
        fingerprint="resolved",
    )  # fmt: skip
    patience: int | None = _setting(
        "Stop a training after N evaluations, of ten in its FAR phase, without a better validation metric, and keep "
        "its best state.  [default: train to the end]", metavar="N", least=1, fingerprint="given",
    )  # fmt: skip
    label_smoothing: float | None = _setting(
        "Share of a class's target that is spread over all classes, for example 0.1.", metavar="X", kind="positive",
        fingerprint="given",
    )  # fmt: skip
    clip_norm: float | None = _setting(
        "Scale the gradients of a step in the FAR phase to at most this norm, for example 1.", metavar="X",
        kind="positive", fingerprint="given",
    )  # fmt: skip
    data_dir: Path | None = _setting(  # noqa: RUF009
        "Folder with the task's files as GLUE or SQuAD has them, or with your own.  [default: from the hub]",
        kind="path",
    )
    study: str | None = _setting(
        "Name of the study.  [default: TASK-MODEL-DEVICE-SPACE]", metavar="NAME", recorded=False
    )
    space: str = _setting(
        "Search space (see: farsearch spaces list), or your own .yaml file.", "default", metavar="NAME",
        fingerprint="resolved",
    )  # fmt: skip
    n_trials: int = _setting("Total number of trained trials of the study.", 30, metavar="N", least=1, recorded=False)
    timeout_s: float | None = _setting(
        "Start no trial after so many seconds.", option="--timeout", metavar="S", kind="positive", recorded=False
    )
    train_samples: int | Literal["all"] | None = _setting(
        "Rows that a trial trains on.  [default: at most 4096]", metavar="N|all", kind="rows", fingerprint="resolved"
    )
    epochs: float | None = _setting(
        "Passes over them in the FAR phase.  [default: the space's, 1]", kind="positive", fingerprint="resolved"
    )
    batch_size: int | None = _setting(
        "Rows of a training step.  [default: by the model's size, 8 for MiniLM, else 16]", metavar="N", least=1,
        fingerprint="resolved",
    )  # fmt: skip
    max_length: int | None = _setting(
        "Tokens at which a text is cut.  [default: the longest, at most 128; questions 384]", metavar="N", least=4,
        fingerprint="resolved",
    )  # fmt: skip
    seed: int = _setting(
        "Of the data and the training, the same in every trial.", 0, metavar="N", least=0, fingerprint="given"
    )
    fixed: Mapping[str, Any] = _setting(
        "Fix a parameter of the space, for example learning_rate=1e-4; may be repeated.", {}, option="--set",
        kind="pairs", fingerprint="resolved",
    )  # fmt: skip
    max_memory_mib: float | None = _setting(
        "Bound of the peak memory beside the device's own.", option="--max-memory", metavar="MIB", kind="positive",
        fingerprint="given",
    )  # fmt: skip
    max_time_s: float | None = _setting(
        "Bound of the wall time on the device.", option="--max-time", metavar="S", kind="positive", fingerprint="given"
    )
    device_samples: int | None = _setting(
        "Rows that the device will train on, for its time.  [default: those of a trial]", metavar="N", least=1,
        fingerprint="given",
    )  # fmt: skip
    prime_on: Literal["host", "device"] = _setting(
        "Where priming runs; on the device it costs memory and time there.", "host", choices=("host", "device"),
        fingerprint="given",
    )  # fmt: skip
    plan: Literal["memory", "time", "balanced"] = _setting(
        "Goal of the step plan on the device: least memory, least time, or both.", "balanced",
        choices=("memory", "time", "balanced"), fingerprint="given",
    )  # fmt: skip
    engine: Literal["any", "torch", "onnx"] | None = _setting(
        "Whose plans compete: torch's, those of onnx, which trains on the board's CPU without torch, or any.  "
        "[default: torch; any on a board that torch's process fills by half]", choices=("any", "torch", "onnx"),
        fingerprint="resolved",
    )  # fmt: skip
    precision: Literal["float32", "bfloat16", "float16"] = _setting(
        "Of the layers in the FAR phase: in 16 bits they take less memory and time, and do not learn exactly the same.",
        "float32", choices=("float32", "bfloat16", "float16"), fingerprint="given",
    )  # fmt: skip
    sampler: str = _setting("known-cost, tpe, nsga2, gp or random.", "known-cost", metavar="NAME", recorded=False)
    racing: bool = _setting("Stop a trial that can't reach the front any more.", True, recorded=False)
    baselines: str | None = _setting(
        "First train what the front is compared with, at three learning rates each, and begin at the best: rivals "
        "(full fine-tuning, FAR r=10 %, FFNs frozen, LoRA), all (also BitFit), paper (those of FAR's), none, or by "
        "names: full,lora8.  [default: rivals from 20 trials on]", metavar="NAME", recorded=False,
    )  # fmt: skip
    verify: bool = _setting("Then train the front's best again, as farsearch verify does.", False, recorded=False)
    workers: int = _setting(
        "Processes that train at once on this host; they share its cores.", 1, metavar="N", least=1, recorded=False
    )

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value, rules = getattr(self, each.name), each.metadata
            if value is None and each.default is None:
                continue
            if rules["choices"] and value not in rules["choices"]:
                raise BadInput(f"`{each.name}` is {shown(value)}; it must be one of {', '.join(rules['choices'])}")
            if rules["least"] is not None and value < rules["least"]:
                raise BadInput(f"`{each.name}` is {value}; it must be at least {rules['least']}")
            if rules["kind"] == "positive" and not 0 < value < math.inf:
                raise BadInput(f"`{each.name}` is {value}; it must be a number above 0")

    def recorded(self) -> dict[str, Any]:
        """Return the settings that a study records, by name."""
        return {name: getattr(self, name) for name in RECORDED}

    def given(self, record: type[Any]) -> dict[str, Any]:
        """Return the settings that a record of a study's identity takes as they are given."""
        names = {each.name for each in dataclasses.fields(record)}
        return {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if each.metadata["fingerprint"] == "given" and each.name in names
        }


FLAGS = {
    each.name: each.metadata["option"] or f"--{each.name.replace('_', '-')}" for each in dataclasses.fields(SearchSpec)
}
"""Options of the command line by the names of the settings."""

RECORDED = tuple(each.name for each in dataclasses.fields(SearchSpec) if each.metadata["recorded"])
"""Names of the settings that a study records."""
