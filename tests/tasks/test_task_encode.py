"""Token ids and targets of every kind of task, the default length, and decoding of logits to answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from farsearch.far.features import IGNORED, Span
from farsearch.runtime.encoding import Encoded, encode, first_rows, predictions
from farsearch.runtime.task import Rows, Task
from farsearch.tasks import Examples
from farsearch.tasks.encode import default_max_length, encode_examples

SENTENCES = Task("mine", "classification", ("no", "yes"), "accuracy", ("sentence",), "label")
PAIRS = SENTENCES._replace(texts=("one", "other"))
QUESTIONS = Task("asked", "question-answering", (), "squad", ("question", "context"), "answers", None, True)
NAMES = Task("names", "token-classification", ("B-X", "I-X", "O"), "entity_f1", ("words",), "tags")


def make_tokenizer(longest: int = 512) -> PreTrainedTokenizerFast:
    """Return a BERT-like tokenizer of words and signs that splits long words into pieces of three letters."""
    pieces = {f"##{a}{b}{c}"[: 2 + n]: 0 for n in (1, 2, 3) for a in "abxy" for b in "abxy" for c in "abxy"}
    heads = {name[2:]: 0 for name in pieces}
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", *"?.,", *heads, *pieces]
    vocabulary = {name: i for i, name in enumerate(dict.fromkeys(names))}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=longest,
    )  # fmt: skip


TOKENIZER = make_tokenizer()


def examples(texts: Sequence[str]) -> Examples:
    """Sentences of the first class."""
    return Examples(tuple((text,) for text in texts), (0,) * len(texts))


@pytest.mark.parametrize("longest", [512, 64])
@pytest.mark.parametrize(("words", "expected"), [(1, 8), (6, 8), (7, 16), (14, 16), (15, 24), (126, 128), (500, 128)])
def test_default_length(words: int, expected: int, longest: int) -> None:
    """The longest text with special tokens, rounded up to a multiple of 8, at most 128 and the model's maximum."""
    rows = examples(["bad", " ".join(["good"] * words), "good bad"])
    assert default_max_length(make_tokenizer(longest), rows, SENTENCES, 512) == min(expected, longest)
    assert default_max_length(TOKENIZER, rows, SENTENCES, longest) == min(expected, longest)


def test_default_length_covers_every_row() -> None:
    """The longest text counts at any position in a long file, and both texts of a pair count."""
    assert default_max_length(TOKENIZER, examples(["bad"] * 8999 + ["good " * 20]), SENTENCES, 512) == 24
    pair = Examples((("good " * 10, "bad " * 11),), (0,))
    assert default_max_length(TOKENIZER, pair, PAIRS, 512) == 24


def test_windows_may_be_longer_than_sentences() -> None:
    """Contexts are read in windows of up to 384 tokens."""
    rows = Examples((("good?", "bad " * 900),), ((),))
    assert default_max_length(TOKENIZER, rows, QUESTIONS, 512) == 384


def test_sentences_are_truncated_and_not_padded() -> None:
    """A truncated row retains its last special token; row order is preserved."""
    rows = Examples((("good bad",), ("bad " * 30,), ("what",)), (1, 0, 1))
    encoded = encode_examples(TOKENIZER, rows, SENTENCES, 8)
    assert encoded.features.input_ids == [[2, 4, 5, 3], [2, 5, 5, 5, 5, 5, 5, 3], [2, 1, 3]]
    assert encoded.lengths == [4, 8, 3]
    assert encoded.features.targets == [1, 0, 1]
    assert encoded.answers == (1, 0, 1)
    assert encoded.features.segments is None


def test_pairs_are_one_row() -> None:
    """[SEP] follows each text; token types are set for models that take them; the longer text is truncated."""
    rows = Rows((("good", "bad bad"), ("good " * 9, "bad")), (1, 0))
    encoded = encode(TOKENIZER, rows, PAIRS, 8, segments=True)
    assert encoded.features.input_ids == [[2, 4, 3, 5, 5, 3], [2, 4, 4, 4, 4, 3, 5, 3]]
    assert encoded.features.segments == [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]]
    assert encode(TOKENIZER, rows, PAIRS, 8).features.segments is None
    assert encode(TOKENIZER, rows._replace(texts=(("good",), ("bad",))), SENTENCES, 8, True).features.segments is None


def test_targets_of_numbers_and_label_sets() -> None:
    """Numbers are floats; label sets are multi-hot vectors."""
    rows = Rows((("good",), ("bad",)), (3, 0.5))
    assert encode(TOKENIZER, rows, SENTENCES._replace(kind="regression"), 8).features.targets == [3.0, 0.5]
    rows = Rows((("good",), ("bad",)), ((), (0, 2)))
    several = SENTENCES._replace(kind="multi-label", labels=("a", "b", "c"))
    assert encode(TOKENIZER, rows, several, 8).features.targets == [(0.0, 0.0, 0.0), (1.0, 0.0, 1.0)]


def test_a_word_is_tagged_at_its_first_piece() -> None:
    """Other pieces and special tokens are ignored; truncated words are predicted as outside."""
    rows = Rows((("good", "abxyab", "xyx", "bad"),), ((2, 0, 1, 0),))
    encoded = encode(TOKENIZER, rows, NAMES, 6)
    assert encoded.features.targets == [(IGNORED, 2, 0, IGNORED, 1, IGNORED)]
    assert encoded.places == ((1, 2, 4, -1),)
    logits = torch.zeros(6, 3)
    logits[[1, 2, 4], [2, 0, 1]] = 1
    assert predictions(encoded, logits) == [(2, 0, 1, 2)]


WORDS = st.sampled_from(["good", "bad", "abxyab", "xyx", "ab.", "yy,", "xaxbxa"])


@st.composite
def questions(draw: st.DrawFn) -> Rows:
    """Strategy: short questions, contexts of up to sixty words, and answers of up to four words, or none."""
    texts, answers = [], []
    for _ in range(draw(st.integers(1, 3))):
        words = draw(st.lists(WORDS, min_size=1, max_size=60))
        context = " ".join(words)
        first = draw(st.integers(0, len(words) - 1))
        count = draw(st.integers(0, 4))
        begin = len(" ".join(words[:first])) + (first > 0)
        text = " ".join(words[first : first + count])
        texts.append((" ".join(draw(st.lists(WORDS, min_size=1, max_size=30))), context))
        answers.append(((text, begin),) if count else ())
    return Rows(tuple(texts), tuple(answers))


def perfect_logits(encoded: Encoded) -> Tensor:
    """Logits that predict every target perfectly."""
    logits = [torch.zeros(length, 2) for length in encoded.lengths]
    for values, (start, end) in zip(logits, encoded.features.targets, strict=True):
        values[start, 0] = values[end, 1] = 10.0
    return torch.cat(logits)


@given(questions(), st.sampled_from([36, 48, 96]))
@settings(deadline=None)
def test_windows_cover_every_context_and_answer(rows: Rows, max_length: int) -> None:
    """Windows respect the maximum length, cover the whole context, and one contains each answer whole.

    Decoding targets returns the answer's characters; perfect logits give the right answers.
    """
    encoded = encode(TOKENIZER, rows, QUESTIONS, max_length, segments=True)
    assert max(encoded.lengths) <= max_length
    assert encoded.features.segments is not None
    seen: dict[int, set[int]] = {}
    whole: set[int] = set()
    for i, row in enumerate(encoded.of):
        context = rows.texts[row][1]
        places = encoded.places[i]
        seen.setdefault(row, set()).update(c for a, b in places for c in range(a, b))
        assert all(segment for (a, b), segment in zip(places, encoded.features.segments[i], strict=True) if b > a)
        target = encoded.features.targets[i]
        if target != Span(0, 0):
            ((text, begin),) = rows.answers[row]
            assert context[places[target.start][0] : places[target.end][1]] == text
            assert places[target.start][0] == begin
            whole.add(row)
    for row, (_, context) in enumerate(rows.texts):
        assert seen[row] == {match for match, character in enumerate(context) if character != " "}
    assert whole == {row for row, answer in enumerate(rows.answers) if answer}
    said = predictions(encoded, perfect_logits(encoded))
    assert said == [answer[0][0] if answer else "" for answer in rows.answers]


def test_a_task_without_unanswerable_questions_always_answers() -> None:
    """The best span is returned, however high the no-answer score."""
    rows = Rows((("good?", "bad abxyab good"),), ((("bad", 0),),))
    for task, expected in ((QUESTIONS, ""), (QUESTIONS._replace(unanswerable=False), "good")):
        encoded = encode(TOKENIZER, rows, task, 32)
        logits = torch.zeros(encoded.lengths[0], 2)
        logits[0] = 9.0
        logits[-2] = 1.0
        assert predictions(encoded, logits) == [expected]


def test_the_best_window_answers() -> None:
    """Spans are compared over all windows of a question; a span never ends before its start."""
    context = " ".join(["bad"] * 20 + ["good"] + ["xyx"] * 20)
    encoded = encode(TOKENIZER, Rows((("good?", context),), ((),)), QUESTIONS, 24)
    assert len(encoded.of) > 2
    logits = [torch.zeros(length, 2) for length in encoded.lengths]
    for values, places in zip(logits, encoded.places, strict=True):
        for token, (a, b) in enumerate(places):
            if context[a:b] == "good":
                values[token] = 3.0
                values[token + 1, 0] = values[token - 1, 1] = 4.0
    assert predictions(encoded, torch.cat(logits)) == ["good"]


def test_first_rows() -> None:
    """The first rows with all their windows, without windows of other rows."""
    long = " ".join(["bad"] * 40)
    rows = Rows((("good?", long), ("bad?", long), ("ab?", long)), ((), (("bad", 0),), ()))
    encoded = encode(TOKENIZER, rows, QUESTIONS, 24, segments=True)
    part = first_rows(encoded, 2)
    assert part == encode(TOKENIZER, Rows(rows.texts[:2], rows.answers[:2]), QUESTIONS, 24, segments=True)
    assert re.fullmatch("(bad ?)+", part.contexts[1])
