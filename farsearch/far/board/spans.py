"""How well a text answers a question, as SQuAD's official script has it.

Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016, and Know What You Don't Know:
Unanswerable Questions for SQuAD, 2018, whose rules for questions without an answer hold for all.
"""

import re
import string
from collections import Counter
from typing import List, Sequence, Tuple

__all__ = ["match_answers", "normalized"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized(text: str) -> str:
    """A text in lower case without ASCII's punctuation and the articles, its words one space apart."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def match_answers(prediction: str, answers: Sequence[str]) -> Tuple[float, float]:
    """Exact match, 0 or 1, and F1 over words of a prediction; each is the best over the answers.

    Answers of which normalising leaves nothing are left out. Where no answer is left the question has none, and "" is
    the right prediction; a prediction or an answer of no words has F1 1 where the other has none either, else 0.
    """
    said = normalized(prediction)
    right = [answer for answer in map(normalized, answers) if answer] or [""]
    return float(said in right), max(_f1(said.split(), answer.split()) for answer in right)


def _f1(said: List[str], right: List[str]) -> float:
    if not said or not right:
        return float(said == right)
    same = sum((Counter(said) & Counter(right)).values())
    return 2.0 * same / (len(said) + len(right))
