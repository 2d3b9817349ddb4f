"""Selection of neurons: counts, scores, the top ones, and the random baseline."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from farsearch.far.layout import FeedForwardLayout, LayerLayout, ModelLayout
from farsearch.far.selection import (
    learner_count,
    learner_counts,
    neuron_scores,
    overlap,
    random_learners,
    top_learners,
)

fractions = st.floats(0, 1)


@pytest.mark.parametrize(
    ("width", "fraction", "expected"),
    [(3072, 0.9, 307), (3072, 0.6, 1229), (1536, 0.9, 154), (64, 0.98, 1), (64, 0.0, 64), (64, 1.0, 0), (10, 0.05, 10)],
)
def test_learner_count_golden(width: int, fraction: float, expected: int) -> None:
    """The number of learners is the rounded share of the width; a fraction below half a neuron freezes none."""
    assert learner_count(width, fraction) == expected


@given(st.integers(1, 4096), fractions, fractions)
def test_freezing_more_never_leaves_more_learners(width: int, one: float, other: float) -> None:
    """The count falls with the fraction, from all neurons at 0 to none at 1."""
    low, high = sorted((one, other))
    assert width >= learner_count(width, low) >= learner_count(width, high) >= 0
    assert (learner_count(width, 0.0), learner_count(width, 1.0)) == (width, 0)


def test_layers_that_are_not_split_count_as_none() -> None:
    """A layer without frozen neurons, and one of the frozen bottom."""
    assert learner_counts(64, [0.5, 0.0, 0.5, 1.0, 0.001]) == [32, None, 32, 0, None]
    assert learner_counts(64, [0.5, 0.0, 0.5, 1.0], bottom_layers=3) == [None, None, None, 0]


def _block(path: str) -> FeedForwardLayout:
    return FeedForwardLayout(f"{path}.up", f"{path}.activation", f"{path}.down")


def _layout(layers: int) -> ModelLayout:
    return ModelLayout(
        "embeddings",
        tuple(LayerLayout(f"l{i}", (), (_block(f"l{i}"),)) for i in range(layers)),
    )


def test_scores_against_a_loop() -> None:
    """A neuron's score is the sum of absolute changes of its row, bias entry and column, layer by layer."""
    width, hidden, layers = 5, 3, 2
    torch.manual_seed(0)
    names = {"up.weight": (width, hidden), "up.bias": (width,), "down.weight": (hidden, width), "down.bias": (hidden,)}
    before = {f"l{i}.{name}": torch.randn(shape) for i in range(layers) for name, shape in names.items()}
    after = {name: value + torch.randn(value.shape) for name, value in before.items()}
    scores = neuron_scores(_layout(layers), before, after)
    assert [score.dtype for score in scores] == [torch.float64] * layers
    for i in range(layers):
        for j in range(width):
            expected = abs(after[f"l{i}.up.bias"][j].item() - before[f"l{i}.up.bias"][j].item())
            for k in range(hidden):
                for name, where in ((f"l{i}.up.weight", (j, k)), (f"l{i}.down.weight", (k, j))):
                    expected += abs(after[name][where].item() - before[name][where].item())
            assert scores[i][j].item() == pytest.approx(expected, rel=1e-12)


def test_an_unchanged_model_scores_zero() -> None:
    """The second map's bias belongs to no neuron."""
    state = {"l0.up.weight": torch.ones(4, 2), "l0.up.bias": torch.ones(4), "l0.down.weight": torch.ones(2, 4)}
    moved = {**state, "l0.down.bias": torch.ones(2)}
    assert neuron_scores(_layout(1), state, moved)[0].tolist() == [0.0] * 4


scores_and_count = st.lists(st.integers(-3, 3), min_size=1, max_size=30).flatmap(
    lambda scores: st.tuples(st.just(scores), st.integers(0, len(scores)))
)


@given(scores_and_count)
def test_top_learners_against_a_plain_sort(case: tuple[list[int], int]) -> None:
    """The highest scores, the lower index on ties, in ascending order of the indices."""
    scores, count = case
    expected = sorted(sorted(range(len(scores)), key=lambda j: (-scores[j], j))[:count])
    assert top_learners(torch.tensor(scores, dtype=torch.float64), count) == expected


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.data())
def test_a_smaller_selection_is_part_of_a_larger_one(scores: list[float], data: st.DataObject) -> None:
    """Freezing more only removes learners; selection is deterministic."""
    values = torch.tensor(scores, dtype=torch.float64)
    small, large = sorted((data.draw(st.integers(0, len(scores))), data.draw(st.integers(0, len(scores)))))
    assert set(top_learners(values, small)) <= set(top_learners(values, large))
    assert top_learners(values, large) == top_learners(values.clone(), large)


def test_ties_of_a_whole_layer() -> None:
    """If no neuron moved, the first ones are selected, on any machine."""
    assert top_learners(torch.zeros(3072), 307) == list(range(307))


@given(st.integers(1, 200), st.integers(0, 2**31), st.data())
def test_random_learners_are_a_seeded_draw(width: int, seed: int, data: st.DataObject) -> None:
    """The right number of distinct neurons, independent of the state of torch's own generator."""
    count = data.draw(st.integers(0, width))
    torch.manual_seed(data.draw(st.integers(0, 9)))
    drawn = random_learners(width, count, seed)
    torch.manual_seed(1234)
    assert drawn == random_learners(width, count, seed)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == count
    assert all(0 <= j < width for j in drawn)


def test_random_learners_differ_by_seed_and_are_uniform() -> None:
    """Over many seeds each neuron is drawn about equally often."""
    assert random_learners(1000, 100, 0) != random_learners(1000, 100, 1)
    drawn = [j for seed in range(400) for j in random_learners(20, 10, seed)]
    assert all(150 < drawn.count(j) < 250 for j in range(20))


def test_overlap() -> None:
    """The mean share of common learners over the layers that have any; None if none has."""
    assert overlap([[0, 1, 2, 3], [5]], [[2, 3, 4, 5], [5]]) == pytest.approx((0.5 + 1.0) / 2)
    assert overlap([[], [1, 2]], [[], [3, 4]]) == 0.0
    assert overlap([[], []], [[], []]) is None
    assert overlap([], []) is None
