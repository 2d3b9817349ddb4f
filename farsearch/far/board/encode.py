"""Rows of a task as token ids with their targets, and back from logits to what a model says of each row.

Long contexts of questions go through in windows that overlap, so that no answer is cut off; other texts are cut.
"""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from ..features import IGNORED, Features, Span
from .task import Rows, Task

__all__ = ["Encoded", "encode", "first_rows", "predictions"]

_AT_ONCE = 4096
"""Texts tokenised at once: bounds the memory that the tokenizer's own records take."""

_OVERLAP = 1 / 3.0
"""Share of a window's tokens that the next one has too; 128 of 384, as the BERT paper's code for SQuAD has it."""
_QUESTION = 64
"""Tokens of a question at most, and never more than a third of a row, so that a context has room."""
_CANDIDATES = 20
"""First and last tokens of each window that an answer is looked for among."""
_ANSWER = 30
"""Tokens of an answer at most."""

Offsets = Tuple[Tuple[int, int], ...]


class Encoded(NamedTuple):
    """Rows of a task as a model is fed with them.

    ``answers`` are what is true of each row. ``of`` is the row that each of the features belongs to. ``places`` lead
    back from the tokens of each feature: of tagged words the first token of each word, or -1 where it was cut off; of
    questions the characters of the context that each token is, ``(0, 0)`` for those that are no part of it.
    ``contexts`` are the questions' contexts, one a row.
    """

    task: Task
    features: Features
    answers: Tuple[Any, ...]
    of: Tuple[int, ...]
    places: Tuple[Tuple[Any, ...], ...] = ()
    contexts: Tuple[str, ...] = ()

    @property
    def lengths(self) -> List[int]:
        """Tokens of each of the features."""
        return self.features.lengths


def encode(tokenizer: Any, rows: Rows, task: Task, max_length: int, segments: bool = False) -> Encoded:
    """Rows as features of at most ``max_length`` tokens.

    Args:
        tokenizer: a fast tokenizer of transformers.
        segments: whether the model is told which text of a pair a token is of.
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
    told = segments and len(task.texts) > 1
    features = Features(ids, [target(answer, len(task.labels)) for answer in rows.answers], types if told else None)
    return Encoded(task, features, tuple(rows.answers), tuple(range(len(ids))))


_TARGETS: Dict[str, Callable[[Any, int], Any]] = {
    "classification": lambda answer, _: int(answer),
    "regression": lambda answer, _: float(answer),
    "multi-label": lambda answer, count: tuple(float(label in answer) for label in range(count)),
}


def _tagged(tokenizer: Any, rows: Rows, task: Task, max_length: int) -> Encoded:
    """A word's tag is learned and read at its first token."""
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
    """Each question with every window of its context; the target is where the window holds the first right answer."""
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
    """Texts of so many tokens at most, special ones not counted."""
    batch = tokenizer(
        texts, add_special_tokens=False, truncation=True, max_length=tokens, return_offsets_mapping=True,
        return_attention_mask=False, return_token_type_ids=False,
    )  # fmt: skip
    return [text[: offsets[-1][1]] if offsets else text for text, offsets in zip(texts, batch["offset_mapping"])]


def _span_of(offsets: Offsets, answer: Tuple[str, int]) -> Span:
    """The tokens of an answer, where a window holds all of it."""
    text, begin = answer
    end = begin + len(text)
    inside = [i for i, (a, b) in enumerate(offsets) if b > a and a < end and b > begin]
    if not inside or offsets[inside[0]][0] > begin or offsets[inside[-1]][1] < end:
        return Span(0, 0)
    return Span(inside[0], inside[-1])


def first_rows(encoded: Encoded, count: int) -> Encoded:
    """The first ``count`` rows."""
    kept = [i for i, row in enumerate(encoded.of) if row < count]
    places = tuple(encoded.places[i] for i in kept) if encoded.places else ()
    return Encoded(
        encoded.task, encoded.features.take(kept), encoded.answers[:count], tuple(encoded.of[i] for i in kept), places,
        encoded.contexts[:count],
    )  # fmt: skip


def predictions(encoded: Encoded, logits: Tensor) -> List[Any]:
    """What a model says of each row, in the form of the task's answers; of a question the answer's text, or ``""``.

    Args:
        logits: of ``predict`` for these features.
    """
    return _PREDICTIONS[encoded.task.kind](encoded, logits)


def _labels_above_half(_: Encoded, logits: Tensor) -> List[Any]:
    return [tuple(i for i, value in enumerate(row) if value > 0) for row in logits.tolist()]


def _tags(encoded: Encoded, logits: Tensor) -> List[Any]:
    """Of words that were cut off the tag that says nothing of them, which is the first where none is called O."""
    labels = encoded.task.labels
    outside = labels.index("O") if "O" in labels else 0
    best = logits.argmax(1).split(encoded.lengths)
    return [
        tuple(int(tags[token]) if token >= 0 else outside for token in firsts)
        for tags, firsts in zip(best, encoded.places)
    ]


def _answers(encoded: Encoded, logits: Tensor) -> List[Any]:
    """The text of the best span of all windows of a question.

    The score of a span is the sum of the logits of its first and its last token (Devlin et al., BERT, NAACL 2019,
    section 4.3). A question may be without an answer when no span scores more than the first special token does in
    the window where it scores least.
    """
    best: Dict[int, Tuple[float, str]] = {}
    null: Dict[int, float] = {}
    for row, offsets, values in zip(encoded.of, encoded.places, logits.split(encoded.lengths)):
        starts, ends = values.unbind(1)
        null[row] = min(null.get(row, float("inf")), float(starts[0] + ends[0]))
        found = _best_span(offsets, starts, ends)
        if found is not None and (row not in best or found[0] > best[row][0]):
            best[row] = (found[0], encoded.contexts[row][found[1] : found[2]].strip())
    return [_answer(best.get(row), null[row], encoded.task.unanswerable) for row in range(len(encoded.answers))]


def _answer(best: Optional[Tuple[float, str]], null: float, unanswerable: bool) -> str:
    if best is None or (unanswerable and null > best[0]):
        return ""
    return best[1]


def _best_span(offsets: Offsets, starts: Tensor, ends: Tensor) -> Optional[Tuple[float, int, int]]:
    """Score, first and end character of the best span of a window's context; None where it has no context."""
    inside = torch.tensor([b > a for a, b in offsets])
    if not bool(inside.any()):
        return None
    count = min(_CANDIDATES, int(inside.sum()))
    first, last = (torch.where(inside, each, torch.full_like(each, -1e30)).topk(count) for each in (starts, ends))
    spans = [
        (a + b, offsets[i][0], offsets[j][1])
        for a, i in zip(first[0].tolist(), first[1].tolist())
        for b, j in zip(last[0].tolist(), last[1].tolist())
        if 0 <= j - i < _ANSWER
    ]
    return max(spans) if spans else None


_PREDICTIONS: Dict[str, Callable[[Encoded, Tensor], List[Any]]] = {
    "classification": lambda _, logits: logits.argmax(1).tolist(),
    "regression": lambda _, logits: logits[:, 0].tolist(),
    "multi-label": _labels_above_half,
    "token-classification": _tags,
    "question-answering": _answers,
}
