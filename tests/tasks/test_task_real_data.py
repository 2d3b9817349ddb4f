"""The loaders and the split on the real GLUE files, where they are available."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from farsearch.tasks import TaskData
from farsearch.tasks.load import load_task
from farsearch.tasks.split import split_examples

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def glue() -> Path:
    """The folder that holds SST-2 and CoLA."""
    beside = Path(__file__).parents[2].parent / "shared" / "data" / "glue"
    folder = Path(os.environ.get("FARSEARCH_GLUE_DIR") or beside)
    if not folder.is_dir():
        pytest.skip("no GLUE files; FARSEARCH_GLUE_DIR names the folder with SST-2 and CoLA of the GLUE download")
    return folder


@pytest.fixture(scope="module")
def sst2(glue: Path) -> TaskData:
    """The whole of SST-2."""
    return load_task("sst2", glue)


def padded(text: str) -> str:
    """Put a space around each word, so that ``in`` compares whole words."""
    return f" {' '.join(text.lower().split())} "


def test_published_sizes(glue: Path, sst2: TaskData) -> None:
    """The numbers of rows, and of each class, are the published ones."""
    assert (len(sst2.train), len(sst2.dev)) == (67_349, 872)
    assert Counter(sst2.train.answers) == {1: 37_569, 0: 29_780}
    assert Counter(sst2.dev.answers) == {1: 444, 0: 428}
    cola = load_task("cola", glue)
    assert len(cola.train) == 8_551
    assert Counter(cola.train.answers) == {1: 6_023, 0: 2_528}
    assert len(cola.dev) in (1_042, 1_043)


@pytest.mark.parametrize("samples", [2048, 4096, None])
def test_no_leakage_on_sst2(sst2: TaskData, samples: int | None) -> None:
    """With 1,024 validation sentences, no training row equals, contains or is part of one."""
    split = split_examples(sst2.train, samples, seed=0)
    assert len(split.validation) == 1024
    assert len(split.train) == (samples or len(split.train))
    assert len(split.train) >= 2048
    train = [padded(sst2.train.texts[i][0]) for i in split.train]
    validation = [padded(sst2.train.texts[i][0]) for i in split.validation]
    every_training, every_validation = "\n".join(train), "\n".join(validation)
    assert [text for text in train if text in every_validation] == []
    assert [text for text in validation if text in every_training] == []


def test_a_plain_random_split_would_leak(sst2: TaskData) -> None:
    """Shows that the check above can fail: hundreds of SST-2's first 1,024 rows overlap with later rows."""
    texts = [padded(text) for (text,) in sst2.train.texts]
    rest = "\n".join(texts[1024:])
    assert sum(text in rest for text in texts[:1024]) > 300


def test_validation_resembles_the_development_set(sst2: TaskData) -> None:
    """Validation rows are whole sentences, as long as the official ones (19 words on average)."""
    split = split_examples(sst2.train, 4096, seed=0)
    means = [
        sum(len(text.split()) for (text,) in part) / len(part)
        for part in (sst2.train.take(split.validation).texts, sst2.dev.texts)
    ]
    assert means[0] == pytest.approx(means[1], rel=0.1)
