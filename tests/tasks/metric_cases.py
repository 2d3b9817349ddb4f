"""Random rows for every metric, and independent reference implementations of the metrics."""

from __future__ import annotations

import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from scipy.stats import rankdata
from seqeval.metrics import f1_score as seqeval_f1
from sklearn.metrics import f1_score, precision_score, recall_score

TAGS = ("O", "B-PER", "I-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "I-NEW-YORK", "B-NEW-YORK", "B", "I", "PER", "misc")
"""Of all schemes, with names of several parts, bare letters and names without a place."""

_WORDS = ("the", "a cat", "cat", "Cats", "an", "dog", "dog's", "dog.", "the dog", "1,000", "%", "", "New  York", "été")
_texts = st.lists(st.sampled_from(_WORDS), max_size=3).map(" ".join)
_class = st.integers(0, 2)
_number = st.one_of(st.integers(-2, 2).map(float), st.floats(-100, 100).map(lambda value: round(value, 3)))
_labels = st.sets(st.integers(0, 3)).map(lambda found: tuple(sorted(found)))
_golds = st.lists(_texts, max_size=3).map(lambda texts: tuple((text, 7) for text in texts))
_tag = st.integers(0, len(TAGS) - 1)


def _of_words(tags: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(word[i] for word in tags) for i in range(3))


_ROWS: Mapping[str, st.SearchStrategy[Any]] = {
    "classification": st.tuples(_class, _class, _class),
    "regression": st.tuples(_number, _number, _number),
    "multi-label": st.tuples(_labels, _labels, _labels),
    "question-answering": st.tuples(_texts, _texts, _golds),
    "token-classification": st.lists(st.tuples(_tag, _tag, _tag), max_size=6).map(_of_words),
}


def rows(kind: str, least: int = 1, most: int = 12) -> st.SearchStrategy[list[tuple[Any, Any, Any]]]:
    """Strategy for lists of rows: (prediction, other prediction, truth)."""
    return st.lists(_ROWS[kind], min_size=least, max_size=most)


def accuracy(said: Sequence[int], true: Sequence[int]) -> float:
    """Share of equal pairs."""
    return sum(a == b for a, b in zip(said, true, strict=True)) / len(true)


def matthews(said: Sequence[int], true: Sequence[int]) -> float:
    """Covariance of the class indicators over the root of both variances, by numpy."""
    classes = sorted({*said, *true})
    first, second = ((np.array(side)[:, None] == classes).astype(float) for side in (said, true))
    first, second = first - first.mean(0), second - second.mean(0)
    size = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / size) if len(set(said)) > 1 and len(set(true)) > 1 else 0.0


def f1(said: Sequence[int], true: Sequence[int]) -> float:
    """F1 of class 1 against all others, by scikit-learn."""
    return float(f1_score([a == 1 for a in true], [a == 1 for a in said], zero_division=0))


def macro_f1(said: Sequence[int], true: Sequence[int]) -> float:
    """Macro F1, by scikit-learn."""
    return float(f1_score(true, said, average="macro", zero_division=0))


def pearson(said: Sequence[float], true: Sequence[float]) -> float:
    """Pearson correlation by numpy, 0 where a side is constant."""
    return float(np.corrcoef(said, true)[0, 1]) if len(set(said)) > 1 and len(set(true)) > 1 else 0.0


def spearman(said: Sequence[float], true: Sequence[float]) -> float:
    """Spearman correlation: Pearson's, of scipy's ranks."""
    return pearson(rankdata(said).tolist(), rankdata(true).tolist())


def micro_f1(said: Sequence[Sequence[int]], true: Sequence[Sequence[int]]) -> float:
    """Micro F1 over (row, label) pairs of 4 labels, by scikit-learn."""
    return float(f1_score(*_label_pairs(said, true), zero_division=0))


def _label_pairs(*sides: Sequence[Sequence[int]]) -> list[list[bool]]:
    """Whether each row has each of 4 labels: the answers, then the predictions."""
    return [[label in row for row in side for label in range(4)] for side in reversed(sides)]


def squad_words(text: str) -> list[str]:
    """Normalised words: lower case, without punctuation and articles."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return [word for word in re.sub(r"\b(a|an|the)\b", " ", kept).split() if word]


def squad_row(said: str, golds: Sequence[tuple[str, int]]) -> tuple[float, float]:
    """Exact match and F1 of a row, from the definition: precision and recall over common words."""
    mine, best = squad_words(said), (0.0, 0.0)
    answers = [words for text, _ in golds if (words := squad_words(text))] or [[]]
    for answer in answers:
        same = sum(min(count, Counter(answer)[word]) for word, count in Counter(mine).items())
        if not mine or not answer:
            found = float(not mine and not answer)
        elif same == 0:
            found = 0.0
        else:
            precision, recall = same / len(mine), same / len(answer)
            found = 2 * precision * recall / (precision + recall)
        best = (max(best[0], float(mine == answer)), max(best[1], found))
    return best


def squad(said: Sequence[str], true: Sequence[Sequence[tuple[str, int]]]) -> float:
    """Mean F1."""
    return sum(squad_row(a, b)[1] for a, b in zip(said, true, strict=True)) / len(true)


def entity_f1(said: Sequence[Sequence[int]], true: Sequence[Sequence[int]]) -> float:
    """Entity F1 by seqeval, with its warnings about unknown schemes suppressed."""
    names = [[[TAGS[i] for i in row] for row in side] for side in (true, said)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(seqeval_f1(*names, zero_division=0))


def mean(*parts: Callable[[Any, Any], float]) -> Callable[[Any, Any], float]:
    """Return a function that averages some of the references."""
    return lambda said, true: sum(part(said, true) for part in parts) / len(parts)


REFERENCES: Mapping[str, tuple[str, Callable[[Any, Any], float]]] = {
    "accuracy": ("classification", accuracy),
    "matthews_correlation": ("classification", matthews),
    "f1": ("classification", f1),
    "macro_f1": ("classification", macro_f1),
    "accuracy_f1": ("classification", mean(accuracy, f1)),
    "pearson": ("regression", pearson),
    "spearman": ("regression", spearman),
    "pearson_spearman": ("regression", mean(pearson, spearman)),
    "micro_f1": ("multi-label", micro_f1),
    "squad": ("question-answering", squad),
    "entity_f1": ("token-classification", entity_f1),
}
"""Of each metric the kind of its rows, and its value from predictions and answers."""

PARTS: Mapping[str, Mapping[str, Callable[[Any, Any], float]]] = {
    "accuracy_f1": {"accuracy": accuracy, "f1": f1},
    "pearson_spearman": {"pearson": pearson, "spearman": spearman},
    "micro_f1": {
        "precision": lambda said, true: float(precision_score(*_label_pairs(said, true), zero_division=0)),
        "recall": lambda said, true: float(recall_score(*_label_pairs(said, true), zero_division=0)),
        "exact_match": accuracy,
    },
    "squad": {
        "exact_match": lambda said, true: sum(squad_row(a, b)[0] for a, b in zip(said, true, strict=True)) / len(true)
    },
}
"""Of metrics with several parts, those parts by the same independent code."""
