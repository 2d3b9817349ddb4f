"""The tokenizers package alone encodes rows as transformers does, for every kind of task."""

from __future__ import annotations

import random
from typing import Any

import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from farsearch.runtime.encoding import encode
from farsearch.runtime.onnx_engine.tokenizer import FastTokenizer
from farsearch.runtime.task import Rows, Task
from tests.tiny import make_distilbert, make_vocabulary


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same tokenizer by tokenizers and by transformers."""
    folder = make_distilbert(tmp_path_factory.mktemp("model"))
    path = str(folder / "tokenizer.json")
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    ours = FastTokenizer(tokenizers.Tokenizer.from_file(path))
    return ours, PreTrainedTokenizerFast(tokenizer_file=path, **special)


def texts_of(count: int, longest: int, seed: int = 0) -> list[str]:
    """Random texts, one of them empty, with words outside of the vocabulary."""
    draw = random.Random(seed)
    words = [*make_vocabulary()[80:], "Straße", "unbelievable", "日本", "[MASK]", "it's"]
    return ["", *(" ".join(draw.choices(words, k=draw.randint(1, longest))) for _ in range(count - 1))]


def rows_of(kind: str) -> tuple[Task, Rows]:
    """Rows of a kind of task, long ones among them."""
    first, second = texts_of(12, 60), texts_of(12, 60, 1)
    task = Task("t", kind, ("O", "B-A"), "accuracy", ("a", "b"), "label")
    if kind == "question-answering":
        second[0] = "an answer"
        answers: Any = [((context.split()[-1], len(context) - len(context.split()[-1])),) for context in second]
        return task, Rows(tuple(zip(first, second, strict=True)), tuple(answers))
    if kind == "token-classification":
        words = [tuple(text.split()) or ("a",) for text in first]
        return task, Rows(tuple(words), tuple((0,) * len(row) for row in words))
    if kind == "single":
        task = task._replace(kind="classification", texts=("a",))
        return task, Rows(tuple((text,) for text in first), (0,) * 12)
    return task, Rows(tuple(zip(first, second, strict=True)), (1,) * 12)


@pytest.mark.parametrize("max_length", [12, 32, 64])
@pytest.mark.parametrize("kind", ["single", "classification", "token-classification", "question-answering"])
def test_rows_are_encoded_as_by_transformers(pair: tuple[Any, Any], kind: str, max_length: int) -> None:
    """Ids, segments, targets, and the places of tokens in words and contexts."""
    task, rows = rows_of(kind)
    ours, theirs = (encode(tokenizer, rows, task, max_length, segments=True) for tokenizer in pair)
    assert ours == theirs
    assert max(ours.lengths) == max_length
