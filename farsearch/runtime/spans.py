"""Exact match and F1 of the answer to a question, as in SQuAD's official script.

Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016, and Know What You Don't Know:
Unanswerable Questions for SQuAD, 2018, whose rules for questions without an answer are used for both.
"""

import re
import string
from collections import Counter
from typing import List, Sequence, Tuple

__all__ = ["match_answers", "normalized"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """Return a text in lower case, without ASCII punctuation and articles, and with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def match_answers(prediction: str, answers: Sequence[str]) -> Tuple[float, float]:
    """Return the exact match, 0 or 1, and the F1 over words of a prediction, each the maximum over the answers.

    Answers that are empty after normalisation are left out; without an answer the correct prediction is "". If either
    text has no words, F1 is 1 when both have none, else 0.
    """
    text = normalized(prediction)
    true = [answer for answer in map(normalized, answers) if answer] or [""]
    return float(text in true), max(_f1(text.split(), answer.split()) for answer in true)


def _f1(predicted: List[str], true: List[str]) -> float:
    if not predicted or not true:
        return float(predicted == true)
    same = sum((Counter(predicted) & Counter(true)).values())
    return 2.0 * same / (len(predicted) + len(true))
