"""Memory that a feed-forward block saves for the backward pass, from the tensors that autograd saves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from farsearch.calibration.steps import allocated_peak
from farsearch.far.layout import FeedForwardLayout, LayerLayout, ModelLayout
from farsearch.far.surgery import reconfigure
from tests.far.saved import saved_bytes

ROWS, LENGTH, HIDDEN = 3, 16, 40
WIDTH = 4 * HIDDEN
H = ROWS * LENGTH * HIDDEN * 4
"""Bytes of one hidden state: the unit of the account."""
NORM = 2 * ROWS * LENGTH * 4
"""LayerNorm's mean and deviation of each token."""


class Block(nn.Module):
    """A feed-forward block of BERT: Linear, GELU, linear, dropout, add, LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.activation, self.down = nn.Linear(HIDDEN, WIDTH), nn.GELU(), nn.Linear(WIDTH, HIDDEN)
        self.dropout, self.norm = nn.Dropout(0.1), nn.LayerNorm(HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        """``[rows, length, hidden]`` to the same shape."""
        y: Tensor = self.norm(self.dropout(self.down(self.activation(self.up(x)))) + x)
        return y


BLOCK = FeedForwardLayout("block.up", "block.activation", "block.down")
LAYOUT = ModelLayout("block", (LayerLayout("block", (), (BLOCK,)),))


def saved_by_block(learners: int | None, live: bool = True) -> int:
    """Bytes that the block's forward pass saves, without the parameters."""
    model = nn.ModuleDict({"block": Block()})
    reconfigure(model, LAYOUT, [None if learners is None else range(learners)])
    x = torch.randn(ROWS, LENGTH, HIDDEN, requires_grad=live)
    return saved_bytes(lambda: model["block"](x), model.parameters())


def peak_bytes(learners: int | None) -> int:
    """Peak of a real forward and backward pass of one block, without its parameters and input."""
    model = nn.ModuleDict({"block": Block()})
    reconfigure(model, LAYOUT, [None if learners is None else range(learners)])
    x = torch.randn(ROWS, LENGTH, HIDDEN, requires_grad=True)
    return allocated_peak(lambda: model["block"](x).sum().backward())


def test_a_split_block_never_peaks_higher() -> None:
    """Its two parts run one after another, so the temporaries of one are freed before those of the other.

    In both directions: the frozen part is first in the forward and last in the backward pass.
    """
    full = peak_bytes(None)
    assert all(peak_bytes(learners) < full for learners in (0, 1, WIDTH // 10, WIDTH // 4, WIDTH // 2, WIDTH - 1))
    assert peak_bytes(WIDTH // 4) < 0.7 * full


def test_full_fine_tuning_saves_eleven() -> None:
    """x, pre-activation (4), activation (4), dropout mask and LayerNorm's input: 11 h."""
    assert saved_by_block(None) == 11 * H + NORM


@pytest.mark.parametrize("learners", [0, 1, WIDTH // 10, WIDTH // 2, WIDTH - 1, WIDTH])
def test_split_block_saves_seven_and_four_r(learners: int) -> None:
    """(7 + 4r) h: the frozen part saves only its pre-activation.

    Without learners nothing needs x, so it is h less.
    """
    share = learners / WIDTH
    expected = (7 + 4 * share) * H + NORM - (0 if learners else H)
    assert saved_by_block(learners) == round(expected)


@pytest.mark.parametrize("learners", [1, WIDTH // 10, WIDTH // 2, WIDTH])
def test_frozen_part_saves_nothing_above_a_frozen_bottom(learners: int) -> None:
    """There x has no gradient: only the learners' pre-activation and activation are saved, (3 + 8r) h."""
    assert saved_by_block(learners, live=False) == round((3 + 8 * learners / WIDTH) * H) + NORM
