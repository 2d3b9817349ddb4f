"""Modules of a feed-forward block that is split into learners and frozen neurons, or wholly trained.

They hold the parameters. The block is computed by ffn_function.py, or by autograd with the policy ``modules``.
"""

from functools import partial
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activations import Activation, activation_of
from .execution import FEED_FORWARD
from .ffn_function import feed_forward
from .merged_state import load_merged, save_merged

__all__ = ["SplitFeedForward", "WholeFeedForward", "padding"]

_ALIGNED, _WIDE = 16, 256


def _checked(policy: str, activation: Activation, gated: bool = False) -> str:
    if policy not in FEED_FORWARD:
        raise ValueError("policy {!r} is none of {}".format(policy, ", ".join(FEED_FORWARD)))
    if gated and policy != "modules":
        raise ValueError("policy {!r} is for blocks without a gate; gated ones support only 'modules'".format(policy))
    if policy == "compact" and activation.derivative_range is None:
        raise ValueError("policy 'compact' needs an activation whose derivative has known bounds")
    return policy


def padding(width: int, learners: int) -> int:
    """Return the number of zero neurons that pad the frozen part of a block of ``width`` neurons.

    A product with 2765 output columns takes 1.4 times as long on a CPU as one with 2768 (docs/log.md), so the frozen
    part is padded to a multiple of 16 by neurons whose weights are 0. Small blocks are not padded.
    """
    frozen = width - learners
    return -frozen % _ALIGNED if frozen and width >= _WIDE else 0


class SplitFeedForward(nn.Module):
    """``down(activation(up(x)))`` with the neurons in ``learners`` trained and all else frozen, ``b2`` included.

    Args:
        up: linear map ``[width, hidden]``, with or without bias; of a gated block ``[2 width, hidden]``.
        activation: module or function between the two maps.
        down: linear map ``[hidden, width]``, with or without bias.
        learners: indices of the trained hidden neurons, ``0 <= k <= width`` of them.
        policy: as in ``Execution.feed_forward``.
        frozen_dtype: of the frozen weights.
        rows: sequences computed together; None selects by length.
        gated: the module that the block replaces, if it is ``down(dropout(activation(a) b))`` with ``a, b`` the halves
            of ``up(x)``; its only policy is ``modules``.
        dropout: of a gated block.
        names: of ``up`` and ``down`` in the gated module.

    The three modules are stored without their weights, so that ``release`` can restore and return them. In a state
    dict, read or written, the block has the weights and names of the block before the split.
    """

    def __init__(
        self,
        up: nn.Linear,
        activation: Any,
        down: nn.Linear,
        learners: Sequence[int],
        policy: str = "modules",
        frozen_dtype: torch.dtype = torch.float32,
        rows: Optional[int] = None,
        gated: Optional[nn.Module] = None,
        dropout: Optional[nn.Dropout] = None,
        names: Tuple[str, str] = ("", ""),
    ) -> None:
        super().__init__()
        self.activation_pair = activation_of(activation)
        self.policy, self.rows = _checked(policy, self.activation_pair, gated is not None), rows
        width = down.weight.shape[1]
        chosen = set(learners)
        self.learners = sorted(chosen)
        self.frozen = [j for j in range(width) if j not in chosen]
        held = up.weight.dtype if frozen_dtype == torch.float32 else frozen_dtype
        more = padding(width, len(self.learners))
        with torch.no_grad():
            here = torch.tensor(self.learners, dtype=torch.long, device=up.weight.device)
            rest = torch.tensor(self.frozen, dtype=torch.long, device=up.weight.device)
            self.learner_up = _parameter(_rows(up.weight, here, width), bool(chosen))
            self.learner_bias = _parameter(_rows(up.bias, here, width), bool(chosen))
            self.learner_down = _parameter(down.weight.index_select(1, here), bool(chosen))
            self.frozen_up = _parameter(_rows(up.weight, rest, width, more, held))
            self.frozen_bias = _parameter(_rows(up.bias, rest, width, more))
            self.frozen_down = _parameter(F.pad(down.weight.index_select(1, rest), (0, more)).to(held))
            self.bias = _parameter(None if down.bias is None else down.bias.detach())
        up.weight = up.bias = down.weight = down.bias = None  # type: ignore[assignment]
        # in tuples, so that they are no submodules: the parameters are the seven above
        self.shells = (up, activation, down)
        self.stands_for = (gated,)
        self.p = 0.0 if dropout is None else dropout.p
        self._saved = [("down", "")] if gated is None else [("up", names[0] + "."), ("down", names[1] + ".")]
        # likewise no submodule
        self._front = (_Front(self),)

    @property
    def front(self) -> nn.Module:
        """The module that replaces ``up``, unless the block is gated."""
        return self._front[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., hidden]`` to ``[..., hidden]``."""
        learners = (self.learner_up, self.learner_bias, self.learner_down) if self.learners else None
        frozen = (self.frozen_up, self.frozen_bias, self.frozen_down) if self.frozen else None
        if self.policy != "modules":
            return feed_forward(x, self.activation_pair, self.policy, learners, frozen, self.bias, self.rows)
        # the frozen part first, as in ffn_function.py
        if frozen is None:
            return self._learned(x)
        value = self._value(F.linear(x, self.frozen_up.to(self.learner_up.dtype), self.frozen_bias))
        y = F.linear(value, self.frozen_down.to(self.learner_up.dtype), None if learners else self.bias)
        del value
        return y if learners is None else y + self._learned(x)

    def _learned(self, x: Tensor) -> Tensor:
        """The learners' part, with ``b2``."""
        return F.linear(self._value(F.linear(x, self.learner_up, self.learner_bias)), self.learner_down, self.bias)

    def _value(self, before: Tensor) -> Tensor:
        """The neurons' values from the output of ``up``."""
        activation = self.shells[1]
        if self.stands_for[0] is None:
            return activation(before)  # type: ignore[no-any-return]
        inner, gate = before.chunk(2, -1)
        value = activation(inner) * gate
        return F.dropout(value, self.p, self.training) if self.p else value

    def extra_repr(self) -> str:
        """Return the two counts and the policy, for torch's ``repr``."""
        return "learners={}, frozen={}, policy={}".format(len(self.learners), len(self.frozen), self.policy)

    def release(self) -> Tuple[nn.Linear, Any, nn.Linear]:
        """Return the three original modules with the weights of this block, in the original order of the neurons."""
        up, activation, down = self.shells
        for name, value in self.whole("up").items():
            setattr(up, name, nn.Parameter(value))
        for name, value in self.whole("down").items():
            setattr(down, name, nn.Parameter(value))
        return up, activation, down

    def whole(self, linear: str) -> Dict[str, Tensor]:
        """Return weight and bias, if any, of ``up`` or ``down`` in the original order of the neurons, detached."""
        order = torch.tensor(self.learners + self.frozen, device=self.learner_up.device).argsort()
        with torch.no_grad():
            if linear == "up":
                weight = self._joined(self.learner_up, self.frozen_up, order)
                bias = self._joined(self.learner_bias, self.frozen_bias, order)
            else:
                frozen_down = self.frozen_down.to(self.learner_up.dtype)
                weight = torch.cat([self.learner_down, frozen_down], 1).index_select(1, order)
                bias = None if self.bias is None else self.bias.detach()
        return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}

    def put(self, linear: str, name: str, value: Tensor) -> None:
        """Copy ``weight`` or ``bias`` of ``up`` or ``down``, in the shape of ``whole``, into learners and frozen."""
        width = len(self.learners) + len(self.frozen)
        here, rest = (
            torch.tensor(neurons, dtype=torch.long, device=value.device) for neurons in (self.learners, self.frozen)
        )
        with torch.no_grad():
            if linear == "up":
                learned, held = (
                    (self.learner_up, self.frozen_up) if name == "weight" else (self.learner_bias, self.frozen_bias)
                )
                learned.copy_(_rows(value, here, width))
                held.copy_(_rows(value, rest, width, padding(width, len(self.learners))))
            elif name == "weight":
                self.learner_down.copy_(value.index_select(1, here))
                self.frozen_down[:, : len(self.frozen)].copy_(value.index_select(1, rest))
            else:
                self.bias.copy_(value)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        save_merged(self._merged(), destination, prefix)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: List[str],
        unexpected_keys: List[str], error_msgs: List[str],
    ) -> None:  # fmt: skip
        load_merged(
            self._merged(), self._put_merged, state_dict, prefix, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _merged(self) -> Dict[str, Tensor]:
        """The tensors of the saved maps, each map's with its prefix."""
        return {inner + name: value for linear, inner in self._saved for name, value in self.whole(linear).items()}

    def _put_merged(self, key: str, value: Tensor) -> None:
        inner, dot, name = key.rpartition(".")
        linear = next(linear for linear, prefix in self._saved if prefix == inner + dot)
        self.put(linear, name, value)

    def _joined(self, learned: Any, frozen: Any, order: Tensor) -> Any:
        """Rows of the learners and of the frozen neurons in the original order."""
        if learned is None:
            return None
        times = 1 if self.stands_for[0] is None else 2
        parts = [part.view((times, part.shape[0] // times) + part.shape[1:]) for part in (learned, frozen)]
        # the order has no index of the padding, which comes last
        joined = torch.cat([parts[0], parts[1].to(learned.dtype)], 1).index_select(1, order)
        return joined.flatten(0, 1)


class _Front(nn.Identity):
    """Replaces ``up``: returns its input, and has the weights of ``up`` in a state dict."""

    def __init__(self, split: SplitFeedForward) -> None:
        super().__init__()
        # in a tuple, so that its parameters are not counted twice
        self._split = (split,)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        save_merged(self._split[0].whole("up"), destination, prefix)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: List[str],
        unexpected_keys: List[str], error_msgs: List[str],
    ) -> None:  # fmt: skip
        (split,) = self._split
        load_merged(
            split.whole("up"), partial(split.put, "up"), state_dict, prefix, strict, missing_keys, unexpected_keys,
            error_msgs,
        )  # fmt: skip


def _rows(rows: Any, index: Tensor, width: int, more: int = 0, dtype: Optional[torch.dtype] = None) -> Any:
    """The rows of the neurons ``index``, and of ``more`` zero neurons; a gated block has two rows per neuron."""
    if rows is None:
        return None
    selected = rows.view((-1, width) + rows.shape[1:]).index_select(1, index)
    selected = F.pad(selected, (0, 0) * (selected.dim() - 2) + (0, more)).flatten(0, 1)
    return selected.to(dtype or rows.dtype)


def _parameter(value: Any, trained: bool = False) -> Any:
    return None if value is None else nn.Parameter(value, requires_grad=trained)


class _Held(nn.Module):
    """Holds a linear map's parameters under their names, and returns its input."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return x


class WholeFeedForward(nn.Module):
    """A wholly trained block, ``b2`` included, computed by the same function.

    Its parameters have the names of the ordinary modules': ``held`` replaces ``up``.
    """

    def __init__(self, up: nn.Linear, activation: Any, down: nn.Linear, policy: str, rows: Optional[int]) -> None:
        super().__init__()
        self.activation_pair = activation_of(activation)
        self.policy, self.rows = _checked(policy, self.activation_pair), rows
        self.weight, self.bias = down.weight, down.bias
        self.shells = (up, activation, down)
        # in a tuple, so that its parameters are not counted twice
        self._held = (_Held(up),)

    @property
    def held(self) -> nn.Module:
        """The module that replaces ``up``."""
        return self._held[0]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., hidden]`` to ``[..., hidden]``."""
        up = self._held[0]
        learners = (up.weight, up.bias, self.weight)
        return feed_forward(x, self.activation_pair, self.policy, learners, None, self.bias, self.rows)

    def release(self) -> Tuple[nn.Linear, Any, nn.Linear]:
        """Return the three original modules, which share their parameters with the block."""
        return self.shells
