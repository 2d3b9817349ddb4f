"""The board's metrics are the tasks'."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farsearch.far.board.scores import score
from farsearch.tasks import metrics

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)


@pytest.mark.parametrize("name", ["accuracy", "matthews_correlation"])
@given(pairs=PAIRS)
def test_a_board_scores_as_the_search_does(name: str, pairs: list[tuple[int, int]]) -> None:
    """Also where all predictions, or all rows, are of one class; scikit-learn computes the other side."""
    predictions, labels = ([pair[i] for pair in pairs] for i in (0, 1))
    expected = metrics.score(name, predictions, labels).value
    assert score(name, predictions, labels) == pytest.approx(expected, abs=1e-12)
