"""Measure the machine that this runs on: what fine-tuning a BERT-like model takes here, operation by operation.

This file is part of farsearch, and runs alone too: it needs Python 3.6 and torch 1.10, or later ones, and nothing else.

    python3 measure.py --out result.json

writes what was measured; ``farsearch devices import result.json`` on a workstation makes a device profile of it. Leave
the machine alone meanwhile: what else runs on it makes its figures too slow.
"""

import argparse
import datetime
import glob
import itertools
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "BUSY_SHARE",
    "CASES",
    "RESULT",
    "SCHEMA_VERSION",
    "WORKLOADS",
    "cases",
    "demanded_cores",
    "machine",
    "make_call",
    "measure",
    "tiny_step",
    "workload",
]

RESULT = "farsearch calibration"
"""What the file says that it is."""
SCHEMA_VERSION = 1
SECONDS = 200.0
"""Time for the measurements; with a process that is started for its memory the whole stays under 4 minutes."""

Take = Callable[..., List[Tensor]]
"""Tensors of the shapes asked for."""
Call = Callable[[], Any]

_MIB = 2.0**20
_LEAST_S = 2e-3
"""A shorter call is repeated until it takes this long, so that the clock does not matter."""
_OPERANDS = 16
"""Sets of operands of a product, which take turns."""
BUSY_SHARE = 0.2
"""Others that keep more than this share of the cores busy are waited for, and widen the range of times."""
_ROUNDS = 9
"""More rounds than this say nothing new."""
_SHARES = {"launch": 0.05, "products": 0.3, "streams": 0.3, "sustained": 0.35}
"""Shares of the time. What one leaves, the sustained load at the end takes."""

_TOKENS = (32, 128, 512, 1024, 2048)
_WIDTHS = ((384, 1536), (768, 3072))
"""Hidden and feed-forward width of MiniLM, and of DistilBERT and BERT-base."""
_ATTENTION = ((12, 32, 32), (48, 32, 32), (192, 32, 64), (48, 64, 64), (96, 128, 32), (96, 128, 64), (48, 256, 64))
"""Rows times heads, tokens, and columns of a head."""
_STREAMS = (1 << 13, 1 << 16, 1 << 19, 1 << 21, 1 << 23, 3 << 23)
"""Elements; the largest is the word embeddings of DistilBERT and BERT-base."""
_COLUMNS = 512


def _gemm_nt(take: Take, t: int, k: int, n: int) -> Call:
    x, w, b = take((t, k), (n, k), (n,))
    return lambda: torch.addmm(b, x, w.t())


def _gemm_nn(take: Take, t: int, k: int, n: int) -> Call:
    g, w = take((t, n), (n, k))
    return lambda: torch.mm(g, w)


def _gemm_tn(take: Take, t: int, k: int, n: int) -> Call:
    g, x = take((t, n), (t, k))
    return lambda: torch.mm(g.t(), x)


def _bmm_nt(take: Take, b: int, length: int, h: int) -> Call:
    q, k = take((b, length, h), (b, length, h))
    return lambda: torch.bmm(q, k.transpose(1, 2))


def _bmm_nn(take: Take, b: int, length: int, h: int) -> Call:
    p, v = take((b, length, length), (b, length, h))
    return lambda: torch.bmm(p, v)


def _bmm_tn(take: Take, b: int, length: int, h: int) -> Call:
    p, g = take((b, length, length), (b, length, h))
    return lambda: torch.bmm(p.transpose(1, 2), g)


def _add(take: Take, n: int) -> Call:
    x, y = take((n,), (n,))
    return lambda: x + y


def _scale(take: Take, n: int) -> Call:
    (x,) = take((n,))
    return lambda: x * 0.5


def _add_in_place(take: Take, n: int) -> Call:
    x, y = take((n,), (n,))
    return lambda: x.add_(y, alpha=1e-9)


def _fill_masked(take: Take, n: int) -> Call:
    (x,) = take((n,))
    mask = torch.zeros(n, dtype=torch.bool, device=x.device)
    return lambda: x.masked_fill_(mask, 0.0)


def _clone(take: Take, n: int) -> Call:
    (x,) = take((n,))
    return lambda: x.clone()


def _split_heads(take: Take, n: int) -> Call:
    (x,) = take((n // _COLUMNS // 16, 16, 8, _COLUMNS // 8))
    heads = x.transpose(1, 2)
    return lambda: heads.clone(memory_format=torch.contiguous_format)


def _zeros(take: Take, n: int) -> Call:
    (x,) = take((n,))
    return lambda: torch.zeros_like(x)


def _gelu(take: Take, n: int) -> Call:
    (x,) = take((n,))
    return lambda: F.gelu(x)


def _gelu_backward(take: Take, n: int) -> Call:
    g, x = take((n,), (n,))
    return lambda: torch.ops.aten.gelu_backward(g, x)


def _softmax(take: Take, n: int) -> Call:
    (x,) = take((n // _COLUMNS * 4, _COLUMNS // 4))
    return lambda: torch.softmax(x, -1)


def _layer_norm(take: Take, n: int) -> Call:
    x, w, b = take((n // _COLUMNS, _COLUMNS), (_COLUMNS,), (_COLUMNS,))
    return lambda: torch.native_layer_norm(x, (_COLUMNS,), w, b, 1e-12)


def _layer_norm_backward(take: Take, n: int) -> Call:
    g, x, w, b = take((n // _COLUMNS, _COLUMNS), (n // _COLUMNS, _COLUMNS), (_COLUMNS,), (_COLUMNS,))
    _, mean, rstd = torch.native_layer_norm(x, (_COLUMNS,), w, b, 1e-12)
    want = [True, True, True]
    return lambda: torch.ops.aten.native_layer_norm_backward(g, x, (_COLUMNS,), mean, rstd, w, b, want)


def _random_bits(take: Take, n: int) -> Call:
    (x,) = take((n,))
    words = torch.empty(n // 4, dtype=torch.int64, device=x.device)
    return lambda: words.random_(-(2**63), None)


def _bernoulli(take: Take, n: int) -> Call:
    (x,) = take((n,))
    return lambda: x.bernoulli_(0.9)


def _sum_rows(take: Take, n: int) -> Call:
    (x,) = take((n // _COLUMNS, _COLUMNS))
    return lambda: x.sum(0)


def _sum_columns(take: Take, n: int) -> Call:
    (x,) = take((n // _COLUMNS, _COLUMNS))
    return lambda: x.sum(-1)


def _embedding_gradient(take: Take, n: int) -> Call:
    tokens = 256
    (g,) = take((tokens, _COLUMNS))
    rows = n // _COLUMNS
    ids = torch.arange(tokens, device=g.device) % rows
    return lambda: torch.ops.aten.embedding_dense_backward(g, ids, rows, -1, False)


def _fused_adamw(take: Take, n: int) -> Call:
    p, g, average, square = take((n,), (n,), (n,), (n,))
    count = torch.ones((), device=p.device)
    return lambda: torch._fused_adamw_(
        [p], [g], [average], [square], [], [count],
        lr=1e-9, beta1=0.9, beta2=0.999, weight_decay=0.01, eps=1e-8, amsgrad=False, maximize=False,
    )  # fmt: skip


CASES: Dict[str, Callable[..., Call]] = {
    "gemm_nt": _gemm_nt, "gemm_nn": _gemm_nn, "gemm_tn": _gemm_tn,
    "bmm_nt": _bmm_nt, "bmm_nn": _bmm_nn, "bmm_tn": _bmm_tn,
    "add": _add, "scale": _scale, "add_in_place": _add_in_place, "fill_masked": _fill_masked,
    "clone": _clone, "split_heads": _split_heads, "zeros": _zeros, "gelu": _gelu, "gelu_backward": _gelu_backward,
    "softmax": _softmax, "layer_norm": _layer_norm, "layer_norm_backward": _layer_norm_backward,
    "random_bits": _random_bits, "bernoulli": _bernoulli, "sum_rows": _sum_rows, "sum_columns": _sum_columns,
    "embedding_gradient": _embedding_gradient, "fused_adamw": _fused_adamw,
}  # fmt: skip
"""Each makes one call of one operation, from a function that gives operands and from dimensions."""


def cases(group: str) -> List[Tuple[str, Tuple[int, ...]]]:
    """Names and dimensions of what is timed: ``products`` or ``streams``.

    Products are the linear maps of a layer for few and for many tokens, with all neurons, with learners alone, and with
    what is frozen beside them.
    """
    if group == "streams":
        return [(name, (n,)) for name in CASES if name[:4] not in ("gemm", "bmm_") for n in _STREAMS]
    found: List[Tuple[str, Tuple[int, ...]]] = []
    for d, ff in _WIDTHS:
        few, some, most = ff // 64, ff // 160 * 16, ff - ff // 160 * 16
        maps = [(d, d), (d, ff), (ff, d), (d, few), (few, d), (d, some), (some, d), (d, most), (most, d)]
        found += [(form, (t, k, n)) for t in _TOKENS for k, n in maps for form in ("gemm_nt", "gemm_nn", "gemm_tn")]
    return found + [(form, dims) for dims in _ATTENTION for form in ("bmm_nt", "bmm_nn", "bmm_tn")]


def make_call(name: str, dims: Sequence[int], take: Take) -> Call:
    """The call of a case with operands from ``take``."""
    return CASES[name](take, *dims)


class _Pool:
    """Operands for all cases, cut from one tensor in turn, so that preparing a case costs nothing."""

    def __init__(self, device: torch.device, elements: int) -> None:
        self._numbers = torch.rand(elements, device=device)
        self._next = 0

    def __call__(self, *shapes: Tuple[int, ...]) -> List[Tensor]:
        sizes = [_size(shape) for shape in shapes]
        room, needed = self._numbers.numel(), sum(sizes)
        if needed > room:
            raise MemoryError("{} elements asked for".format(needed))
        start = self._next if self._next + needed <= room else 0
        self._next = start + needed
        parts = torch.split(self._numbers[start : self._next], sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes)]

    def calls(self, case: Tuple[str, Tuple[int, ...]]) -> Call:
        """A case's call. A product's operands change from call to call: in a step, weights come from memory.

        What is computed element by element was just written by the operation before.
        """
        first = make_call(case[0], case[1], self)
        if case[0][:4] not in ("gemm", "bmm_"):
            return first
        turns = itertools.cycle([first] + [make_call(case[0], case[1], self) for _ in range(_OPERANDS - 1)])
        return lambda: next(turns)()


def _size(shape: Iterable[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _time(call: Call, device: torch.device, repeats: int) -> float:
    """Seconds of one call, mean over ``repeats`` in a row."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait(device)
    return (time.perf_counter() - start) / repeats


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _timed_cases(
    group: str, device: torch.device, pool: _Pool, seconds: float, tell: Callable[[str], None]
) -> List[Dict[str, Any]]:
    """Median seconds of each case that this torch has, that fits, and that the time is enough for.

    Cases are timed in turn, again and again, so that a disturbance does not hit one of them alone; the order is
    shuffled, so that a time which ends early has still seen small and large ones.
    """
    order = cases(group)
    random.Random(0).shuffle(order)
    times: Dict[Tuple[str, Tuple[int, ...]], List[float]] = {}
    repeats: Dict[Tuple[str, Tuple[int, ...]], int] = {}
    left_out = set()
    end = time.perf_counter() + seconds
    for turn in range(_ROUNDS):
        tell("{}, round {} of at most {}".format(group, turn + 1, _ROUNDS))
        for case in order:
            if time.perf_counter() >= end and times:
                return _samples(times)
            if case in left_out:
                continue
            try:
                call = pool.calls(case)
                if case not in times:
                    call()
                    once = _time(call, device, 1)
                    # one that would take a tenth of the time is for a faster machine
                    if once > seconds / 10 and times:
                        left_out.add(case)
                        continue
                    repeats[case] = max(1, min(200, int(math.ceil(_LEAST_S / max(once, 1e-9)))))
                    times[case] = []
            except (AttributeError, RuntimeError, MemoryError, TypeError):
                # an operation that this torch does not have, or no memory for
                left_out.add(case)
                continue
            times[case].append(_time(call, device, repeats[case]))
    return _samples(times)


def _samples(times: Dict[Tuple[str, Tuple[int, ...]], List[float]]) -> List[Dict[str, Any]]:
    return [
        {"case": name, "dims": list(dims), "seconds": _median(values), "rounds": len(values)}
        for (name, dims), values in sorted(times.items())
        if values
    ]


class _Layer(nn.Module):
    """A layer of an encoder, of which ``learners`` neurons are trained; 0 for all of them."""

    def __init__(self, d: int, ff: int, learners: int) -> None:
        super().__init__()
        self.heads = 12
        self.q, self.k, self.v, self.out = (nn.Linear(d, d) for _ in range(4))
        self.norm, self.last_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, learners or ff), nn.Linear(learners or ff, d)
        self.frozen = nn.ModuleList([nn.Linear(d, ff - learners), nn.Linear(ff - learners, d)] if learners else [])
        for parameter in self.frozen.parameters():
            parameter.requires_grad = False

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = torch.matmul(q, k.transpose(-1, -2)) * (d // self.heads) ** -0.5
        chances = F.dropout(torch.softmax(scores, -1), 0.1)
        context = torch.matmul(chances, v).transpose(1, 2).reshape(b, t, d)
        x = self.norm(x + F.dropout(self.out(context), 0.1))
        y = self.down(F.gelu(self.up(x)))
        if self.frozen:
            y = y + self.frozen[1](F.gelu(self.frozen[0](x)))
        out: Tensor = self.last_norm(x + F.dropout(y, 0.1))
        return out


class _Double(torch.autograd.Function):
    """A function of the kind that farsearch's own step is made of: Python in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return gradients[0] * 2.0 + x * 0.0


class _TinyLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = _Layer(24, 48, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(_Double.apply(x))  # type: ignore[no-untyped-call, unused-ignore]
        return out


def tiny_step(device: torch.device) -> Call:
    """Forward and backward pass of layers that have nothing to compute: what remains is the operations' overhead.

    Call it under ``torch.device("meta")`` to trace it.
    """
    layers = nn.Sequential(*[_TinyLayer() for _ in range(4)]).to(device)
    inputs = torch.ones(2, 8, 24, device=device)

    def step() -> None:
        layers(inputs).sum().backward()
        for parameter in layers.parameters():
            parameter.grad = None

    return step


def _optimizers(parameters: Sequence[nn.Parameter]) -> List[torch.optim.Optimizer]:
    """One for each parameter, with its state made."""
    found: List[torch.optim.Optimizer] = []
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
        try:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW([parameter], fused=True)
            optimizer.step()
        except (TypeError, RuntimeError):  # torch has no fused kernel here
            optimizer = torch.optim.AdamW([parameter])
            optimizer.step()
        found.append(optimizer)
    return found


def _launch(device: torch.device, seconds: float) -> Dict[str, float]:
    """Overheads: of an operation alone, of a tiny training step, of an optimizer's call, of a token of a batch."""
    number = torch.zeros(1, device=device)
    step = tiny_step(device)
    # many, as in a step of training: one alone would stay in the processor's caches
    optimizers = _optimizers([nn.Parameter(torch.zeros(8, device=device)) for _ in range(32)])

    def step_all() -> None:
        for optimizer in optimizers:
            optimizer.step()

    rows = [list(range(64 - row)) for row in range(8)]

    def collate() -> None:
        torch.tensor([row + [0] * (64 - len(row)) for row in rows]).to(device)
        torch.tensor([[1] * len(row) + [0] * (64 - len(row)) for row in rows]).to(device)

    calls: List[Tuple[str, Call, int]] = [
        ("operation", lambda: number.add_(1), 200), ("tiny_step", step, 5),
        ("optimizer_call", step_all, 1), ("batch_of_512_tokens", collate, 20),
    ]  # fmt: skip
    for _, call, _ in calls:
        for _ in range(5):
            call()
    times: Dict[str, List[float]] = {name: [] for name, _, _ in calls}
    end = time.perf_counter() + seconds
    while len(times["operation"]) < 5 or time.perf_counter() < end:
        for name, call, repeats in calls:
            times[name].append(_time(call, device, repeats))
    found = {name: _median(values) for name, values in times.items()}
    found["optimizer_call"] /= len(optimizers)
    return found


WORKLOADS = {
    "narrow": (8, 32, 384, 1536, 144, 4),
    "wide": (8, 64, 768, 3072, 0, 2),
    "long": (8, 128, 384, 1536, 0, 2),
    "learners": (8, 128, 768, 3072, 304, 2),
}
"""Training steps as they occur: rows, tokens, hidden and feed-forward width, learners (0 for all) and layers."""


def workload(name: str, device: torch.device) -> Call:
    """One training step: forward pass, backward pass, SGD. Call it under ``torch.device("meta")`` to trace it."""
    rows, length, d, ff, learners, layers = WORKLOADS[name]
    stack = nn.Sequential(*[_Layer(d, ff, learners) for _ in range(layers)]).to(device)
    x = torch.ones(rows, length, d, device=device)
    optimizer = torch.optim.SGD([p for p in stack.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        stack(x).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _sustained(device: torch.device, seconds: float, tell: Callable[[str], None]) -> Dict[str, Any]:
    """Whole training steps in turn until the time is over: what sustained load takes, and what heat does to it."""
    steps: Dict[str, Call] = {}
    times: Dict[str, List[Tuple[float, float]]] = {}
    start = time.perf_counter()
    for name in WORKLOADS:
        try:
            step = workload(name, device)
            step()
            if _time(step, device, 1) > seconds / 12 and steps:
                continue
        except RuntimeError:  # no memory for it
            continue
        steps[name], times[name] = step, []
    told = start
    while steps and (time.perf_counter() - start < seconds or len(next(iter(times.values()))) < 3):
        for name, step in steps.items():
            taken = _time(step, device, 1)
            times[name].append((time.perf_counter() - start, taken))
        if time.perf_counter() - told > 10:
            told = time.perf_counter()
            tell("sustained load, {:.0f} of {:.0f} s".format(told - start, seconds))
    return {name: _course(values) for name, values in times.items()}


def _course(values: List[Tuple[float, float]]) -> Dict[str, float]:
    """Median seconds of a step: in all, in the first third and in the last."""
    third = max(1, len(values) // 3)
    seconds = [taken for _, taken in values]
    return {
        "seconds": _median(seconds), "first": _median(seconds[:third]), "last": _median(seconds[-third:]),
        "steps": len(values),
    }  # fmt: skip


_BARE_PROCESS = """
def read(path, key):
    try:
        lines = open(path).read().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024.0 for line in lines if line.startswith(key + ":")), None)
before = read("/proc/meminfo", "MemAvailable")
import torch
try:
    from transformers import AutoTokenizer, BertForSequenceClassification, DistilBertForSequenceClassification
    with_transformers = 1
except ImportError:
    with_transformers = 0
taken = 0.0
if torch.cuda.is_available():
    torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")
    torch.cuda.synchronize()
    after = read("/proc/meminfo", "MemAvailable")
    # the GPU of a Jetson board works in the host's memory, and so does its context
    if before is not None and after is not None:
        taken = before - after
peak = read("/proc/self/status", "VmHWM")
if peak is None:
    import resource, sys
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2.0 ** 20 if sys.platform == "darwin" else 1024.0)
print(max(peak, taken), with_transformers)
"""
"""Prints what a process holds that has the imports, and the context, of one that fine-tunes, in MiB. On Linux it is
VmHWM, because ``ru_maxrss`` begins at what the parent held when it started the process."""

_CUDA_PROCESS = """
import torch
torch.ones(8, 8, device="cuda") @ torch.ones(8, 8, device="cuda")
torch.cuda.synchronize()
print(torch.cuda.mem_get_info()[0])
"""


def _run(code: str, timeout: float) -> Optional[List[str]]:
    """The words that a fresh Python prints for ``code``; None when it fails or takes too long.

    It finds modules where this process does: -c would look in the working folder first.
    """
    code = "import sys; sys.path[:] = {!r}\n{}".format(sys.path, code)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.decode("utf-8", "replace").split() or None


def _read(path: str) -> Optional[str]:
    try:
        with open(path, errors="replace") as file:
            return file.read().replace("\x00", "").strip()
    except OSError:
        return None


def _plain(text: str) -> str:
    """One line of what can be printed: boards put tabs and zero bytes into what they say of themselves."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _field(path: str, key: str) -> Optional[float]:
    """The value of ``key`` in a file of /proc in MiB."""
    for line in (_read(path) or "").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024.0
    return None


def _memory(device: torch.device, timeout: float) -> Dict[str, Any]:
    """MiB: what is visible, what others hold of it, and what a bare process that trains takes; None for unknown."""
    found: Dict[str, Any] = {"visible_mib": None, "others_mib": None, "process_mib": None, "visible_is": "", "own": ""}
    if device.type == "cuda" and not _integrated():
        torch.zeros(1, device=device)
        free, total = [number / _MIB for number in torch.cuda.mem_get_info()]
        words = _run(_CUDA_PROCESS, timeout)
        own = None if words is None else max(0.0, free - float(words[-1]) / _MIB)
        # this process has a context too, and holds what its allocator reserved; neither counts as others' memory
        held = (own or 300.0) + torch.cuda.memory_reserved() / _MIB
        others = min(max(0.0, total - free - held), 0.9 * total)
        found.update(visible_mib=total, others_mib=others, process_mib=own, visible_is="of the GPU", own="CUDA context")
        return found
    visible, found["visible_is"] = _visible()
    available = _field("/proc/meminfo", "MemAvailable")
    if available is not None:
        mine = _field("/proc/self/status", "RssAnon") or 0.0
        found["others_mib"] = min(max(0.0, visible - available - mine), 0.9 * visible)
    words = _run(_BARE_PROCESS, timeout)
    if words is not None:
        found["process_mib"] = float(words[-2])
        found["own"] = "torch and transformers" if words[-1] == "1" else "torch without transformers"
    found["visible_mib"] = visible
    return found


def _integrated() -> bool:
    """The GPU works in the host's memory, as on Jetson boards."""
    properties = torch.cuda.get_device_properties(0)
    known = getattr(properties, "is_integrated", None)
    return bool(known) if known is not None else os.path.exists("/etc/nv_tegra_release")


def _visible() -> Tuple[float, str]:
    """Memory that this process may see in MiB, with the reason."""
    physical = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _read(os.path.join("/sys/fs/cgroup", name)) or ""
        if limit.isdigit() and int(limit) < physical:
            return int(limit) / _MIB, "limit of the control group in {}".format(name)
    return physical / _MIB, "physical pages"


def _busy_cores(seconds: float = 0.5) -> Optional[float]:
    """Cores that other programs keep busy while this one sleeps; None where the system does not tell."""
    before = _busy_seconds()
    time.sleep(seconds)
    after = _busy_seconds()
    return None if before is None or after is None else max(0.0, after - before) / seconds


def _busy_seconds() -> Optional[float]:
    text = _read("/proc/stat")
    if text is None:
        return None
    user, nice, system, _idle, _waiting, interrupt, soft, stolen = [int(field) for field in text.split()[1:9]]
    return (user + nice + system + interrupt + soft + stolen) / float(os.sysconf("SC_CLK_TCK"))


def demanded_cores(used: float, cores: int) -> float:
    """Cores that others ask for who got ``used`` of ``cores`` beside this process: of d asked for, c d / (c + d)."""
    used = min(used, 0.9 * cores)
    return cores * used / (cores - used)


class _Others:
    """What other programs take while this one works, children of this one not among them."""

    def __init__(self) -> None:
        self._busy, self._own, self._begun = _busy_seconds(), sum(os.times()[:4]), time.perf_counter()

    def cores(self) -> Optional[float]:
        """Cores kept busy by others since this was made; None where the system does not tell."""
        now = _busy_seconds()
        if now is None or self._busy is None:
            return None
        others = now - self._busy - (sum(os.times()[:4]) - self._own)
        return max(0.0, others) / (time.perf_counter() - self._begun)


def _settled(cores: int, patience: float, tell: Callable[[str], None]) -> Optional[float]:
    """Cores that others keep busy, after a wait of at most ``patience`` seconds for them to end."""
    busy = _busy_cores()
    if busy is None or busy <= BUSY_SHARE * cores:
        return busy
    tell("other programs keep {:.1f} of {} cores busy; waiting up to {:.0f} s for them".format(busy, cores, patience))
    end = time.perf_counter() + patience
    while busy is not None and busy > BUSY_SHARE * cores and time.perf_counter() < end:
        time.sleep(1.0)
        busy = _busy_cores()
    return busy


def _conditions() -> Dict[str, str]:
    """Clocks, governors, power mode and temperatures, as far as this machine tells them."""
    found = {}
    folder = "/sys/devices/system/cpu/cpu0/cpufreq"
    for name, path in (
        ("board", "/proc/device-tree/model"),
        ("jetpack", "/etc/nv_tegra_release"),
        ("cpu_governor", folder + "/scaling_governor"),
        ("cpu_khz", folder + "/scaling_cur_freq"),
        ("cpu_max_khz", folder + "/scaling_max_freq"),
    ):
        text = _read(path)
        if text:
            found[name] = _plain(text.splitlines()[0])
    for path in sorted(
        glob.glob("/sys/class/devfreq/*gpu*/cur_freq") + glob.glob("/sys/class/devfreq/*gv11b*/cur_freq")
    ):
        found["gpu_hz"] = _plain(_read(path) or "")
    degrees = [_read(path) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    known = [int(text) for text in degrees if text and text.lstrip("-").isdigit()]
    if known:
        found["hottest_celsius"] = "{:.0f}".format(max(known) / 1000.0)
    for name, command in (("power_mode", ["nvpmodel", "-q"]), ("throttled", ["vcgencmd", "get_throttled"])):
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10)
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            found[name] = _plain(done.stdout.decode("utf-8", "replace"))
    return found


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> Dict[str, Any]:
    """What the figures depend on: processor, cores, torch and its threads, memory."""
    device = _device()
    cuda = device.type == "cuda"
    return {
        "kind": device.type,
        "processor": _plain(torch.cuda.get_device_name() if cuda else _cpu_name()),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "memory_gib": int(round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2.0**30)),
    }


def _cpu_name() -> str:
    """The CPU's model, from /proc/cpuinfo where there is one."""
    lines = (_read("/proc/cpuinfo") or "").splitlines()
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            if line.startswith(key) and ":" in line:
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measure(seconds: float = SECONDS, tell: Callable[[str], None] = lambda _: None) -> Dict[str, Any]:
    """Measure this machine: CUDA where torch has it, otherwise the CPU with torch's threads.

    Args:
        seconds: time for the measurements; the memory of a bare process may take 30 s more.
        tell: is told in a few words what goes on.
    """
    device = _device()
    begun = time.perf_counter()
    cores = machine()["cores"]
    busy = _settled(cores, min(30.0, 0.15 * seconds), tell)
    before, others = _conditions(), _Others()
    tell("memory of a bare process")
    memory = _memory(device, 30.0)
    room = memory["visible_mib"] - (memory["others_mib"] or memory["visible_mib"] / 2)
    # operands of the largest streams, but never more than an eighth of what is free
    elements = int(min(4 * _STREAMS[-1], room * _MIB / 4 / 8))
    tell("overheads")
    launch = _launch(device, _SHARES["launch"] * seconds)
    pool = _Pool(device, elements)
    samples: List[Dict[str, Any]] = []
    with torch.no_grad():
        for group in ("products", "streams"):
            samples += _timed_cases(group, device, pool, _SHARES[group] * seconds, tell)
    del pool
    spent = time.perf_counter() - begun
    sustained = _sustained(device, max(_SHARES["sustained"] * seconds, min(seconds, 200.0) - spent), tell)
    used = others.cores()
    if busy is not None and used is not None:
        # a short look before misses what comes later
        busy = max(busy, demanded_cores(used, cores))
        if busy > BUSY_SHARE * cores:
            tell(
                "other programs kept {:.1f} of {} cores busy: times are too long and get a wider range; measure again "
                "when the machine is idle".format(busy, cores)
            )
    return {
        "what": RESULT,
        "schema_version": SCHEMA_VERSION,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "busy_cores": busy,
        "conditions": {"before": before, "after": _conditions()},
        "memory": memory,
        "launch": launch,
        "samples": samples,
        "sustained": sustained,
        "took_s": time.perf_counter() - begun,
    }


def _may_write(path: str) -> bool:
    """Whether there is nothing under this name, or the result of an earlier run."""
    if not os.path.lexists(path):
        return True
    try:
        with open(path) as file:
            held = json.load(file)
    except (OSError, ValueError):
        return False
    return isinstance(held, dict) and {"schema_version", "machine", "samples"} <= set(held)


def main() -> None:
    """The command line of the file on a board."""
    parser = argparse.ArgumentParser(description="Measure this machine for farsearch; leave it alone meanwhile.")
    parser.add_argument("--out", default="result.json", help="file to write (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time to measure (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch, where it runs on the CPU (default: torch's own)")
    arguments = parser.parse_args()
    if not _may_write(arguments.out):
        parser.error("--out {} exists and is no result of this script; give another name".format(arguments.out))
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    result = measure(arguments.seconds, lambda text: print(text, flush=True))
    # in one step, so that a power cut leaves no half of a file
    with open(arguments.out + ".part", "w") as file:
        json.dump(result, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(arguments.out + ".part", arguments.out)
    print("wrote {}; on the workstation: farsearch devices import {}".format(arguments.out, arguments.out))


if __name__ == "__main__":
    main()
