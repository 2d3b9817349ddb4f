"""How a training step is executed: the tensors that are saved or recomputed for the backward pass, and the portions.

No execution changes which parameters are trained. ``modules`` everywhere is the model as transformers built it.
"""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterator, List, NamedTuple, Optional

from .display import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "FEED_FORWARD",
    "KERNELS",
    "LOSS_SCALE",
    "Execution",
    "autocast_dtype",
    "autocast_to",
    "checked",
    "compute_dtype",
    "gradient_scale",
    "portions",
    "rows_at_once",
]

FEED_FORWARD = ("modules", "store", "compact", "recompute")
"""Policies of a feed-forward block (ffn.py)."""

KERNELS = ("loop", "foreach", "fused")
"""How all tensors are stepped: one after another, operation by operation (``loop``); each operation on all of them at
once, with a copy of them (``foreach``, torch's default on CUDA); or in one kernel, without temporaries (``fused``)."""

_CHOICES = {
    "feed_forward": FEED_FORWARD,
    "attention": ("modules", "recompute"),
    "dropout": ("modules", "seed"),
    "layer_norm": ("modules", "output"),
    "frozen_dtype": ("float32", "bfloat16", "float16"),
    "precision": ("float32", "bfloat16", "float16"),
}

LOSS_SCALE = 1024.0
"""Factor of gradients inside of layers in float16 (half.py): those of a mean loss lose nothing below, and are far from
the largest float16, 65504."""

_TOKENS_AT_ONCE = 1024
"""Tokens whose temporaries live together: few enough that they stay small beside the saved tensors, enough for matrix
products near their full rate (512 took 15 % longer on two CPU cores, docs/log.md)."""


class Execution(NamedTuple):
    """How the forward and backward pass of a model are executed.

    Attributes:
        feed_forward: tensors that a block saves for the backward pass: ``modules`` those of autograd, ``store`` the
            pre-activations, ``compact`` the frozen neurons' derivative in one byte (not exact), ``recompute`` only its
            input.
        attention: ``modules``, or ``recompute``: scores and probabilities are recomputed.
        dropout: ``modules``, or ``seed``: masks are redrawn.
        layer_norm: ``modules``, or ``output``: the normalised input is rebuilt from the output.
        frozen_dtype: of the frozen feed-forward weights: ``float32``, ``bfloat16`` or ``float16`` (the latter two
            round them).
        checkpointing: a layer saves only its input, and runs forward again before its backward pass.
        chunk_rows: sequences whose temporaries live together; None selects by their length.
        precision: of the layers (half.py): ``float32``, or ``bfloat16`` or ``float16``, which need a ``feed_forward``
            and an ``attention`` that are not ``modules``.
    """

    feed_forward: str = "modules"
    attention: str = "modules"
    dropout: str = "modules"
    layer_norm: str = "modules"
    frozen_dtype: str = "float32"
    checkpointing: bool = False
    chunk_rows: Optional[int] = None
    precision: str = "float32"


def checked(execution: Execution) -> Execution:
    """Return ``execution``.

    Raises:
        ValueError: for an unknown value, or a precision that the other values do not support.
    """
    for name, choices in _CHOICES.items():
        if getattr(execution, name) not in choices:
            raise ValueError("{} is {}, none of {}".format(name, shown(getattr(execution, name)), ", ".join(choices)))
    if execution.precision != "float32" and "modules" in (execution.feed_forward, execution.attention):
        raise ValueError(
            "precision is {!r} and feed_forward or attention 'modules', which compute in float32".format(
                execution.precision
            )
        )
    return execution


def rows_at_once(shape: Any) -> int:
    """Return the number of rows of ``[batch, length, hidden]`` (or ``[tokens, hidden]``) that are computed together.

    It is a power of two, so that few sizes occur for all paddings.
    """
    length = shape[1] if len(shape) > 2 else 1
    rows = max(1, _TOKENS_AT_ONCE // max(1, length))
    return 1 << (rows.bit_length() - 1)


def portions(x: "Tensor", rows: Optional[int]) -> List[slice]:
    """Return slices of the first dimension of ``x`` that are computed one after another; None selects their size."""
    step = rows or rows_at_once(x.shape)
    return [slice(start, start + step) for start in range(0, x.shape[0], step)]


@contextmanager
def autocast_to(x: "Tensor", dtype: "Optional[torch.dtype]") -> Iterator[None]:
    """Autocast to a type on the device of ``x``, or disable autocast, whatever the outer setting."""
    import torch

    if autocast_dtype(x) == dtype:
        yield
    elif dtype is None:
        with torch.autocast(x.device.type, enabled=False):
            yield
    else:
        with torch.autocast(x.device.type, dtype=dtype):
            yield


def autocast_dtype(x: "Tensor") -> "Optional[torch.dtype]":
    """Return the type of products under autocast on the device of ``x``; None if it is off."""
    import torch

    kind = x.device.type
    if kind == "meta":
        return None
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    # before torch 2.4 each device had its own functions
    if kind == "cuda" and torch.is_autocast_enabled():
        return torch.get_autocast_gpu_dtype()
    if kind == "cpu" and torch.is_autocast_cpu_enabled():
        return torch.get_autocast_cpu_dtype()
    return None


def compute_dtype(x: "Tensor") -> "torch.dtype":
    """Return the type of products with ``x``: autocast's if it is on, else that of ``x``."""
    return autocast_dtype(x) or x.dtype


def gradient_scale(x: "Tensor", parameter: "Optional[Tensor]") -> float:
    """Return the factor of the gradients with which a function of ``x`` and a parameter is differentiated.

    It is ``LOSS_SCALE`` in layers in float16, whose parameters are float32 without autocast.
    """
    import torch

    is_half = x.dtype == torch.float16 and autocast_dtype(x) is None
    return LOSS_SCALE if is_half and parameter is not None and parameter.dtype == torch.float32 else 1.0
