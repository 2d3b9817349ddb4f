"""The embedded sample against its licence file and the README."""

from __future__ import annotations

from collections import Counter
from importlib import resources

import pytest

from farsearch.tasks import TaskData
from farsearch.tasks.load import load_task
from farsearch.tasks.official import OFFICIAL


@pytest.fixture(scope="module")
def reviews() -> TaskData:
    """The packaged sample."""
    return load_task("reviews")


def normal(text: str) -> str:
    """Normalise to lower-case words with spaces around, so that ``in`` compares whole words."""
    kept = "".join(c if c.isalnum() or c == "'" else " " for c in text.lower())
    return f" {' '.join(kept.split())} "


def test_size_and_balance(reviews: TaskData) -> None:
    """At least 640 rows in two classes of equal size, in both parts."""
    assert len(reviews.train) + len(reviews.dev) >= 640
    assert len(reviews.dev) >= 100
    for part in (reviews.train, reviews.dev):
        counts = Counter(part.answers)
        assert counts[0] == counts[1]
    assert reviews.source == "embedded sample"
    assert OFFICIAL["reviews"].rows == {"train": len(reviews.train), "dev": len(reviews.dev)}


def test_no_text_is_repeated_or_contained(reviews: TaskData) -> None:
    """Ignoring case and punctuation, within a part and across both."""
    texts = [normal(text) for (text,) in reviews.train.texts + reviews.dev.texts]
    assert len(set(texts)) == len(texts)
    assert [(a, b) for a in texts for b in texts if a != b and a in b] == []


def test_rows_are_not_sorted_by_class(reviews: TaskData) -> None:
    """The first quarter of either file has both classes."""
    for part in (reviews.train, reviews.dev):
        assert set(part.answers[: len(part) // 4]) == {0, 1}


def test_texts_are_single_clean_lines(reviews: TaskData) -> None:
    """Sentences are trimmed, single-spaced and short."""
    for (text,) in reviews.train.texts + reviews.dev.texts:
        assert text == " ".join(text.split())
        assert 2 <= len(text.split()) <= 60


def test_the_licence_is_packaged() -> None:
    licence = (resources.files("farsearch.tasks") / "reviews" / "LICENSE").read_text(encoding="utf-8")
    assert "CC0 1.0" in licence
