"""The software of a device as far as a trace depends on it, and its emulation in a trace.

The trace runs this machine's torch and transformers. Functions that save other tensors, or work in another way, in the
device's versions are replaced while a step is traced (``emulated``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from farsearch.devices.profile import Attention, Profile
from farsearch.far.layout import ModelLayout
from farsearch.models.heads import Head
from farsearch.models.load import build_model

__all__ = ["FlashBlocks", "Software", "build_ordinary", "emulated", "software_of", "step_count_bytes", "torch_version"]


_BOARD_THREADS = 4
"""Threads of torch on a board without calibration: all CPU boards with a profile have four cores."""


class FlashBlocks(NamedTuple):
    """The block sizes of the CPU's attention kernel, per thread; 0 tokens stand for all of a row.

    The numbers are those of torch's FlashAttentionKernel.cpp.
    """

    threads: int
    queries: int
    keys: int


@dataclass(frozen=True)
class Software:
    """The properties of a device's software on which the trace of a step depends.

    Attributes:
        attention: of ordinary modules, as in a profile.
        old: torch before 1.11. It saves the input of a softmax beside its output until the backward pass, and has no
            view of a tensor in elements of another size.
        cuda: the generator's state is 16 bytes on the CPU; that of a CPU's generator is 5 KB and counts as memory.
        flash: blocks of the kernel that torch's attention uses on a CPU without dropout; None if it composes products
            there too.
    """

    attention: Attention = "math"
    old: bool = False
    cuda: bool = False
    flash: FlashBlocks | None = None


def torch_version(profile: Profile) -> tuple[int, int]:
    """Return the major and minor version of a device's torch."""
    match = re.match(r"(\d+)\.(\d+)", profile.torch)
    assert match is not None, "a profile's version was checked"
    return int(match[1]), int(match[2])


def software_of(profile: Profile, max_length: int) -> Software:
    """Return the software of a profile; the peak of memory is predicted at ``max_length`` tokens."""
    version, cuda = torch_version(profile), profile.kind == "cuda"
    flash = profile.attention == "math" and not cuda and version >= _FLASH_WITH_MASK
    return Software(profile.attention, version < (1, 11), cuda, _flash_blocks(profile, max_length) if flash else None)


_FLASH_WITH_MASK = (2, 3)
"""The first torch whose CPU kernel of attention takes a mask."""


def _flash_blocks(profile: Profile, max_length: int) -> FlashBlocks:
    threads = torch.get_num_threads() if profile.basis == "calibrated" else _BOARD_THREADS
    queries = 256 if max_length >= 768 else 64 if max_length >= 192 else 32 if max_length > 32 else 0
    return FlashBlocks(threads, queries, 512 if max_length > 512 else 0)


def step_count_bytes(profile: Profile, kernel: str) -> int:
    """Return the bytes on the device of AdamW's step count of a tensor.

    It is a Python number before torch 1.12, since then a tensor of one element on the CPU, which only the fused kernel
    has on the device.
    """
    on_device = kernel == "fused" if profile.kind == "cuda" else torch_version(profile) >= (1, 12)
    return 4 if on_device else 0


def build_ordinary(config: Any, head: Head, software: Software) -> tuple[nn.Module, ModelLayout]:
    """Build a model whose ordinary modules compute attention as on the device."""
    config = copy.deepcopy(config)
    # None: scaled_dot_product_attention where the family supports it
    config._attn_implementation = "eager" if software.attention == "eager" else None
    return build_model(config, head)


class _KeepingSoftmax(torch.autograd.Function):
    """Softmax whose input lives as long as its output: derivatives.yaml of torch 1.10 has both in its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        y = torch.ops.aten._softmax(x, dim, False)
        ctx.dim = dim
        ctx.save_for_backward(x, y)
        return y  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        x, y = ctx.saved_tensors
        return torch.ops.aten._softmax_backward_data(g, y, ctx.dim, x.dtype), None


def _keeping_softmax(x: Tensor, dim: int, *_: Any, **__: Any) -> Tensor:
    return _KeepingSoftmax.apply(x, dim)  # type: ignore[no-any-return, no-untyped-call]


def _old_view(x: Tensor, *shape: Any) -> Tensor:
    if len(shape) == 1 and isinstance(shape[0], torch.dtype) and shape[0].itemsize != x.dtype.itemsize:
        raise RuntimeError("torch 1.10 sees a tensor only in elements of its own size")
    return x.view(*shape)


def _memory_efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The kernel that ``F.scaled_dot_product_attention`` selects for float32 and a mask on CUDA.

    Its mask is a float tensor for all heads; it saves one logarithm per row instead of the probabilities.
    """
    assert not enable_gqa, "a BERT has as many keys as queries"
    bias = attn_mask
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        bias = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(attn_mask.logical_not(), -torch.inf)
    if bias is not None:
        bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, bias, True, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]


class _FlashOnCpu(torch.autograd.Function):
    """The CPU's attention kernel, with the buffers that it allocates without being visible to a mode."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, blocks: FlashBlocks, scale: Any
    ) -> Tensor:
        _, heads, length, size = query.shape
        # the kernel's output lies like ``[rows, length, heads, size]``, on meta it lies like the queries
        like = query.as_strided(query.shape, (length * heads * size, size, heads * size, 1))
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        y, logarithms = kernel(like, key, value, attn_mask=mask, scale=scale)
        queries, keys = blocks.queries or length, blocks.keys or length
        query.new_empty(blocks.threads * queries * (keys + 2 + size))
        ctx.save_for_backward(query, key, value, y, logarithms, mask)
        ctx.scale, ctx.scores, ctx.row_sums = scale, blocks.threads * queries * keys, blocks.threads * queries
        return y  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,) = gradients
        *saved, mask = ctx.saved_tensors
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        dq_dk_dv = kernel(g, *saved, 0.0, False, attn_mask=mask, scale=ctx.scale)
        buffers = g.new_empty(2 * ctx.scores), g.new_empty(ctx.row_sums)
        del buffers
        return (*dq_dk_dv, None, None, None)


def _flash_on_cpu(
    blocks: FlashBlocks,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """``F.scaled_dot_product_attention`` on a CPU: its kernel if there is no dropout, else composed products.

    The kernel takes a mask of floats.
    """
    if dropout_p > 0.0 or is_causal or enable_gqa:
        composed = F.scaled_dot_product_attention
        return composed(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attended, masked = (torch.scalar_tensor(number, device=query.device) for number in (0.0, -torch.inf))
        attn_mask = torch.where(attn_mask, attended, masked)
    return _FlashOnCpu.apply(query, key, value, attn_mask, blocks, scale)  # type: ignore[no-any-return, no-untyped-call]


_OLD: Mapping[Any, Callable[..., Any]] = {
    F.softmax: _keeping_softmax,
    torch.softmax: _keeping_softmax,
    Tensor.softmax: _keeping_softmax,
    Tensor.view: _old_view,
}
_FUSED: Mapping[Any, Callable[..., Any]] = {F.scaled_dot_product_attention: _memory_efficient}


class _Replacing(TorchFunctionMode):
    """The context in which functions are replaced, in the backward pass too."""

    def __init__(self, replaced: Mapping[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self._replaced = replaced

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``, or its replacement."""
        if func is Tensor.backward:
            return self._backward(args[0])
        return self._replaced.get(func, func)(*args, **(kwargs or {}))

    def _backward(self, loss: Tensor) -> None:
        """Run the backward pass of a loss with the same replacements.

        A mode is inactive while it handles a function, here for the whole pass: recomputed parts would be computed, and
        saved, in another way than in the forward pass.
        """
        with _Replacing(self._replaced):
            torch.autograd.Variable._execution_engine.run_backward(
                (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
            )


class emulated(_Replacing):
    """The context in which this machine's torch saves the same tensors as the device's."""

    def __init__(self, software: Software) -> None:
        replaced = {**(_OLD if software.old else {}), **(_FUSED if software.attention == "fused" else {})}
        if software.flash is not None:
            replaced[F.scaled_dot_product_attention] = partial(_flash_on_cpu, software.flash)
        super().__init__(replaced)
        self._state = torch.get_rng_state
        self._counted = not software.cuda

    def __enter__(self) -> Any:
        """Let the state of the generator be seen too: torch makes that tensor where no mode can see it."""
        if self._counted:
            torch.get_rng_state = lambda: self._state().clone()
        return super().__enter__()  # type: ignore[no-untyped-call]  # of torch

    def __exit__(self, *error: Any) -> None:
        """Put all back."""
        torch.get_rng_state = self._state
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # of torch
