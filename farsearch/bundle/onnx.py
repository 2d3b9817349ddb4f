"""Export the fine-tuned model as ONNX, for inference without torch, and compare it with torch."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from farsearch.errors import BundleError, MissingResource
from farsearch.models.config import load_config
from farsearch.models.families import max_length_of
from farsearch.models.load import load_finetuned
from farsearch.models.source import resolve_model

__all__ = ["TOLERANCE", "OnnxCheck", "check_packages", "export_onnx"]

TOLERANCE = 1e-4
"""Largest difference between torch's logits and ONNX's."""

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_SPANS = ["start_logits", "end_logits"]
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OPSET = 18
"""Old enough for the runtimes of small devices, new enough that the exporter writes it without converting."""
_SHAPES = ((1, 1), (1, 7), (3, 16), (8, 33))
"""Rows and tokens of the compared batches, in addition to one row of the model's maximum length."""


@dataclass(frozen=True)
class OnnxCheck:
    """An exported model, and its difference from torch.

    Attributes:
        inputs: names of the inputs, each ``[batch, length]`` of int64. The one output is ``logits``, ``[batch,
        classes]``. difference: largest absolute difference of a logit. batches: number of compared batches. size: size
        of the file in bytes.
    """

    inputs: tuple[str, ...]
    difference: float
    batches: int
    size: int


def check_packages() -> None:
    """Raise MissingResource without the extra ``onnx``."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingResource(f'ONNX needs the package {missing[0]}; install it with: pip install "farsearch[onnx]"')


def export_onnx(model_folder: Path, kind: str, out: Path) -> OnnxCheck:
    """Write a saved model as one ONNX file with dynamic batch size and length.

    Args:
        model_folder: folder of ``save_pretrained``.
        kind: kind of its task.

    Raises:
        BundleError: when the logits differ from torch's by more than ``TOLERANCE``.
    """
    source = resolve_model(str(model_folder))
    config = load_config(source)
    model = load_finetuned(source, kind).cpu().eval()
    accepted = inspect.signature(model.forward).parameters
    inputs = tuple(name for name in _INPUTS if name in accepted)
    outputs = _SPANS if kind == "question-answering" else ["logits"]
    with _quiet():
        batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
        program = torch.onnx.export(
            model,
            kwargs=_batch(inputs, config, 2, 9),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={name: {0: batch, 1: length} for name in inputs},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(out), external_data=False)
    shapes = (*_SHAPES, (1, max_length_of(config)))
    difference = _compare(model, out, outputs, [_batch(inputs, config, *shape) for shape in shapes])
    # NaN is not within the tolerance
    if not difference <= TOLERANCE:
        raise BundleError(
            f"the ONNX model's logits differ from torch's by {difference:.1e}, more than {TOLERANCE:.0e}; export "
            "without `onnx`"
        )
    return OnnxCheck(inputs, difference, len(shapes), out.stat().st_size)


def _batch(inputs: tuple[str, ...], config: Any, rows: int, length: int) -> dict[str, Tensor]:
    """Random token ids; every other row is padded from its middle."""
    draw = torch.Generator().manual_seed(1000 * rows + length)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1::2, (length + 1) // 2 :] = 0
    ids = torch.randint(0, config.vocab_size, (rows, length), generator=draw)
    arguments = (ids, mask, torch.zeros_like(ids))
    return {name: value for name, value in zip(_INPUTS, arguments, strict=True) if name in inputs}


def _compare(model: nn.Module, path: Path, outputs: list[str], batches: list[dict[str, Tensor]]) -> float:
    """Largest difference of a logit between torch and the file; NaN if one is NaN."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    differences = []
    for batch in batches:
        with torch.no_grad():
            expected = model(**batch)
        logits = session.run(outputs, {name: value.numpy() for name, value in batch.items()})
        differences += [
            (torch.from_numpy(value) - expected[name]).abs().max() for name, value in zip(outputs, logits, strict=True)
        ]
    return float(torch.stack(differences).max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings on its own code and on packages that no model here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
