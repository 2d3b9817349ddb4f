"""Encode rows of a task as token ids with targets, and decode logits into predictions.

A long context of a question is divided into overlapping windows, so that no answer is truncated; other texts are
truncated. Logits may be an array of torch or numpy.
"""

from heapq import nlargest
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..far.features import IGNORED, Features, Span
from .task import Rows, Task

__all__ = ["Encoded", "encode", "first_rows", "predictions"]

_AT_ONCE = 4096
"""Texts tokenised at once: bounds the memory of the tokenizer's own records."""

_OVERLAP = 1 / 3.0
"""Share of a window's tokens that the next one repeats; 128 of 384, as the BERT paper's code for SQuAD has it."""
_QUESTION = 64
"""Tokens of a question at most, and never more than a third of a row, so that a context has room."""
_CANDIDATES = 20
"""Candidates for the first and the last token of an answer in each window."""
_ANSWER = 30
"""Tokens of an answer at most."""

Offsets = Tuple[Tuple[int, int], ...]


class Encoded(NamedTuple):
    """Encoded rows of a task.

    ``answers`` are the rows' true answers. ``of`` is the row index of each feature. ``places`` map tokens to texts:
    for tagged words the first token of each word, or -1 if it was truncated; for questions the character range of each
    token in the context, ``(0, 0)`` outside of it. ``contexts`` are the questions' contexts, one per row.
    """

    task: Task
    features: Features
    answers: Tuple[Any, ...]
    of: Tuple[int, ...]
    places: Tuple[Tuple[Any, ...], ...] = ()
    contexts: Tuple[str, ...] = ()

    @property
    def lengths(self) -> List[int]:
        """Tokens of each feature."""
        return self.features.lengths


def encode(tokenizer: Any, rows: Rows, task: Task, max_length: int, segments: bool = False) -> Encoded:
    """Encode rows as features of at most ``max_length`` tokens.

    Args:
        tokenizer: a fast tokenizer of transformers.
        segments: whether the model has segment ids, which distinguish the texts of a pair.
    """
    if task.kind == "question-answering":
        return _questions(tokenizer, rows, task, max_length, segments)
    if task.kind == "token-classification":
        return _tagged(tokenizer, rows, task, max_length)
    target = _TARGETS[task.kind]
    ids: List[List[int]] = []
    types: List[List[int]] = []
    for start in range(0, len(rows.texts), _AT_ONCE):
        part = rows.texts[start : start + _AT_ONCE]
        columns = [list(texts) for texts in zip(*part)]
        batch = tokenizer(
            *columns, truncation=True, max_length=max_length, return_attention_mask=False, return_token_type_ids=True
        )
        ids += batch["input_ids"]
        types += batch["token_type_ids"]
    paired = segments and len(task.texts) > 1
    features = Features(ids, [target(answer, len(task.labels)) for answer in rows.answers], types if paired else None)
    return Encoded(task, features, tuple(rows.answers), tuple(range(len(ids))))


_TARGETS: Dict[str, Callable[[Any, int], Any]] = {
    "classification": lambda answer, _: int(answer),
    "regression": lambda answer, _: float(answer),
    "multi-label": lambda answer, count: tuple(float(label in answer) for label in range(count)),
}


def _tagged(tokenizer: Any, rows: Rows, task: Task, max_length: int) -> Encoded:
    """The target of a word, and its prediction, is at its first token."""
    ids: List[List[int]] = []
    targets: List[Tuple[int, ...]] = []
    places: List[Tuple[int, ...]] = []
    for start in range(0, len(rows.texts), _AT_ONCE):
        part = [list(words) for words in rows.texts[start : start + _AT_ONCE]]
        batch = tokenizer(
            part, is_split_into_words=True, truncation=True, max_length=max_length, return_attention_mask=False,
            return_token_type_ids=False,
        )  # fmt: skip
        for i, words in enumerate(part):
            of_tokens = batch.word_ids(i)
            firsts: Dict[int, int] = {}
            for token, word in enumerate(of_tokens):
                if word is not None:
                    firsts.setdefault(word, token)
            tags = rows.answers[start + i]
            at = {token: tags[word] for word, token in firsts.items()}
            ids.append(batch["input_ids"][i])
            targets.append(tuple(at.get(token, IGNORED) for token in range(len(of_tokens))))
            places.append(tuple(firsts.get(word, -1) for word in range(len(words))))
    return Encoded(task, Features(ids, targets), tuple(rows.answers), tuple(range(len(ids))), tuple(places))


def _questions(tokenizer: Any, rows: Rows, task: Task, max_length: int, segments: bool) -> Encoded:
    """One feature for each window of a context; its target is the span of the first true answer."""
    ids: List[List[int]] = []
    types: List[List[int]] = []
    targets: List[Span] = []
    of: List[int] = []
    places: List[Offsets] = []
    room = max(1, min(_QUESTION, max_length // 3))
    for start in range(0, len(rows.texts), _AT_ONCE):
        part = rows.texts[start : start + _AT_ONCE]
        questions = _cut(tokenizer, [question for question, _ in part], room)
        batch = tokenizer(
            questions, [context for _, context in part], truncation="only_second", max_length=max_length,
            stride=int((max_length - room) * _OVERLAP), return_overflowing_tokens=True, return_offsets_mapping=True,
            return_attention_mask=False, return_token_type_ids=True,
        )  # fmt: skip
        for i, row in enumerate(batch["overflow_to_sample_mapping"]):
            inside = [sequence == 1 for sequence in batch.sequence_ids(i)]
            offsets = tuple((a, b) if there else (0, 0) for there, (a, b) in zip(inside, batch["offset_mapping"][i]))
            answers = rows.answers[start + row]
            ids.append(batch["input_ids"][i])
            types.append(batch["token_type_ids"][i])
            targets.append(_span_of(offsets, answers[0]) if answers else Span(0, 0))
            of.append(start + row)
            places.append(offsets)
    contexts = tuple(context for _, context in rows.texts)
    features = Features(ids, targets, types if segments else None)
    return Encoded(task, features, tuple(rows.answers), tuple(of), tuple(places), contexts)


def _cut(tokenizer: Any, texts: List[str], tokens: int) -> List[str]:
    """Truncate texts to a number of tokens, without counting special ones."""
    batch = tokenizer(
        texts, add_special_tokens=False, truncation=True, max_length=tokens, return_offsets_mapping=True,
        return_attention_mask=False, return_token_type_ids=False,
    )  # fmt: skip
    return [text[: offsets[-1][1]] if offsets else text for text, offsets in zip(texts, batch["offset_mapping"])]


def _span_of(offsets: Offsets, answer: Tuple[str, int]) -> Span:
    """The tokens of an answer; ``Span(0, 0)`` if the window does not contain all of it."""
    text, begin = answer
    end = begin + len(text)
    inside = [i for i, (a, b) in enumerate(offsets) if b > a and a < end and b > begin]
    if not inside or offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < end:
        return Span(0, 0)
    return Span(inside[0], inside[-1])


def first_rows(encoded: Encoded, count: int) -> Encoded:
    """Return the first ``count`` rows."""
    chosen = [i for i, row in enumerate(encoded.of) if row < count]
    places = tuple(encoded.places[i] for i in chosen) if encoded.places else ()
    return Encoded(
        encoded.task, encoded.features.take(chosen), encoded.answers[:count], tuple(encoded.of[i] for i in chosen),
        places, encoded.contexts[:count],
    )  # fmt: skip


def predictions(encoded: Encoded, logits: Any) -> List[Any]:
    """Decode logits into a prediction per row, in the form of the task's answers; of a question a text, or ``""``.

    Args:
        logits: array ``[rows or tokens, outputs]`` of torch or numpy, in the order of the features.
    """
    return _PREDICTIONS[encoded.task.kind](encoded, logits)


def _windows(encoded: Encoded, logits: Any) -> Iterator[List[List[float]]]:
    """The logits of the tokens of each feature; as lists one feature at a time, which bounds memory."""
    start = 0
    for length in encoded.lengths:
        yield logits[start : start + length].tolist()
        start += length


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _tags(encoded: Encoded, logits: Any) -> List[Any]:
    """A truncated word is predicted as ``O``, or as the first tag where no tag is called so."""
    labels = encoded.task.labels
    outside = labels.index("O") if "O" in labels else 0
    return [
        tuple(_argmax(values[token]) if token >= 0 else outside for token in firsts)
        for values, firsts in zip(_windows(encoded, logits), encoded.places)
    ]


def _answers(encoded: Encoded, logits: Any) -> List[Any]:
    """The text of the best span of all windows of a question.

    The score of a span is the sum of the logits of its first and its last token (Devlin et al., BERT, NAACL 2019,
    section 4.3). A question that may be unanswerable has no answer when no span scores above the first special token,
    in the window where that scores lowest.
    """
    best: Dict[int, Tuple[float, str]] = {}
    null: Dict[int, float] = {}
    for row, offsets, values in zip(encoded.of, encoded.places, _windows(encoded, logits)):
        null[row] = min(null.get(row, float("inf")), values[0][0] + values[0][1])
        span = _best_span(offsets, values)
        if span is not None and (row not in best or span[0] > best[row][0]):
            best[row] = (span[0], encoded.contexts[row][span[1] : span[2]].strip())
    return [_answer(best.get(row), null[row], encoded.task.unanswerable) for row in range(len(encoded.answers))]


def _answer(best: Optional[Tuple[float, str]], null: float, unanswerable: bool) -> str:
    if best is None or (unanswerable and null > best[0]):
        return ""
    return best[1]


def _best_span(offsets: Offsets, values: List[List[float]]) -> Optional[Tuple[float, int, int]]:
    """Score, first and end character of the best span of a window; None if it contains no part of the context."""
    inside = [i for i, (a, b) in enumerate(offsets) if b > a]
    firsts, lasts = (nlargest(_CANDIDATES, inside, key=lambda i: values[i][side]) for side in (0, 1))
    spans = [
        (values[i][0] + values[j][1], offsets[i][0], offsets[j][1])
        for i in firsts
        for j in lasts
        if 0 <= j - i < _ANSWER
    ]
    return max(spans) if spans else None


_PREDICTIONS: Dict[str, Callable[[Encoded, Any], List[Any]]] = {
    "classification": lambda _, logits: [_argmax(row) for row in logits.tolist()],
    "regression": lambda _, logits: [row[0] for row in logits.tolist()],
    "multi-label": lambda _, logits: [tuple(i for i, value in enumerate(row) if value > 0) for row in logits.tolist()],
    "token-classification": _tags,
    "question-answering": _answers,
}
