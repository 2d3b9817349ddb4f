"""The split: disjoint, stratified, seeded, and without shared text."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st

from farsearch.errors import BadInput
from farsearch.tasks import Examples
from farsearch.tasks.data import Kind
from farsearch.tasks.split import split_examples

WORDS = st.sampled_from(["a", "b", "B", "c", "d", "e", "f"])
"""Few words, so that most files hold texts that contain others."""


@st.composite
def nested_files(draw: st.DrawFn) -> Examples:
    """Strategy: short texts of few words, many contained in one another, with irregular spacing and case."""
    size = draw(st.integers(6, 40))
    texts = draw(
        st.lists(
            st.lists(WORDS, min_size=1, max_size=9).map(lambda words: " " * (len(words) % 2) + "  ".join(words)),
            min_size=size,
            max_size=size,
        )
    )
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    assume(len(set(labels)) > 1)
    return Examples(tuple((text,) for text in texts), tuple(labels))


@st.composite
def separate_files(draw: st.DrawFn) -> Examples:
    """Strategy: texts without common words."""
    labels = draw(st.lists(st.integers(0, 1), min_size=10, max_size=120))
    assume(min(Counter(labels)[label] for label in (0, 1)) >= 3)
    return Examples(tuple((f"this{i} that{i}",) for i in range(len(labels))), tuple(labels))


def padded(text: str) -> str:
    """Put a space around each word, so that ``in`` compares whole words."""
    return f" {' '.join(text.lower().split())} "


@given(nested_files(), st.integers(2, 30), st.integers(0, 3))
def test_no_text_contains_another_across_the_split(examples: Examples, samples: int, seed: int) -> None:
    """For every file, size and seed: no shared rows, no containment either way, and maximal validation texts."""
    try:
        split = split_examples(examples, min(samples, len(examples)), seed)
    except BadInput:
        reject()
    assert not set(split.train) & set(split.validation)
    assert len(set(split.train)) == len(split.train)
    texts = [padded(text) for (text,) in examples.texts]
    for v in split.validation:
        assert not any(texts[v] in texts[t] or texts[t] in texts[v] for t in split.train)
        assert all(texts[v] == other for other in texts if texts[v] in other)
    assert len({texts[v] for v in split.validation}) == len(split.validation)
    for part in (split.train, split.validation):
        assert {examples.answers[i] for i in part} == {0, 1}


@given(nested_files(), st.integers(2, 40), st.integers(0, 3))
def test_a_final_model_trains_on_all_rows(examples: Examples, samples: int, seed: int) -> None:
    """Each once: all of the file, or of a sample the sample and the validation rows."""
    rows = len(examples)
    try:
        split = split_examples(examples, min(samples, rows), seed)
    except BadInput:
        reject()
    final = split.final(rows)
    used = {*split.train, *split.validation}
    assert len(final) == len(set(final))
    assert set(final) == (used if len(used) + len(split.withheld) < rows else set(range(rows)))


@given(nested_files(), st.integers(2, 30), st.integers(0, 3))
def test_training_retains_its_rows(examples: Examples, samples: int, seed: int) -> None:
    """The requested number of training rows, or at least 80 % of the file."""
    samples, rows = min(samples, len(examples)), len(examples)
    try:
        split = split_examples(examples, samples, seed)
    except BadInput:
        assume(False)
    assert min(samples, rows - round(0.2 * rows) - 1) <= len(split.train) <= samples


@given(nested_files(), st.integers(2, 30), st.integers(0, 3))
def test_whole_texts_are_drawn_before_their_parts(examples: Examples, samples: int, seed: int) -> None:
    """Training takes contained texts only after all other texts of the class."""
    try:
        split = split_examples(examples, min(samples, len(examples)), seed)
    except BadInput:
        reject()
    texts = [padded(text) for (text,) in examples.texts]
    firsts = {text: i for i, text in reversed(list(enumerate(texts)))}
    whole = {i for text, i in firsts.items() if all(text == other for other in texts if text in other)}
    free = whole - set(split.validation)
    for place, row in enumerate(split.train):
        if row not in whole:
            later = set(free) - set(split.train[:place])
            assert all(examples.answers[i] != examples.answers[row] for i in later)


@given(separate_files(), st.integers(2, 120), st.integers(0, 3))
def test_both_parts_are_stratified(examples: Examples, samples: int, seed: int) -> None:
    """Within one row of each class's share of the rows that a part was drawn from."""
    split = split_examples(examples, min(samples, len(examples)), seed)
    everything = range(len(examples))
    pool = [i for i in everything if i not in set(split.validation)]
    for part, source in ((split.validation, everything), (split.train, pool)):
        found, whole = Counter(examples.answers[i] for i in part), Counter(examples.answers[i] for i in source)
        for label in (0, 1):
            assert abs(found[label] - len(part) * whole[label] / len(source)) <= 1


@given(separate_files(), st.integers(2, 120), st.integers(2, 120), st.integers(0, 3))
def test_sizes_without_contained_texts(examples: Examples, samples: int, max_validation: int, seed: int) -> None:
    """Validation takes the rest, or 20 % where that is more, up to its maximum.

    It leaves at least one row of each class for training.
    """
    rows = len(examples)
    samples = min(samples, rows)
    split = split_examples(examples, samples, seed, max_validation)
    size = min(max_validation, max(rows - samples, round(0.2 * rows)))
    left = Counter(examples.answers) - Counter(examples.answers[i] for i in split.validation)
    assert len(split.validation) == size or (len(split.validation) < size and min(left.values()) == 1)
    assert len(split.train) == min(samples, rows - len(split.validation))


@given(separate_files(), st.integers(0, 3))
def test_none_takes_all_rows(examples: Examples, seed: int) -> None:
    """Without ``samples``, every row that is not held out is trained on."""
    split = split_examples(examples, None, seed)
    assert sorted(split.train + split.validation) == list(range(len(examples)))
    assert split == split_examples(examples, len(examples), seed)


def many(rows: int) -> Examples:
    """Separate texts, every third of class 1."""
    return Examples(tuple((f"this{i} that{i}",) for i in range(rows)), tuple(int(i % 3 == 0) for i in range(rows)))


def test_the_draw_depends_on_the_seed_alone() -> None:
    """The same seed draws the same rows, another one others."""
    examples = many(300)
    assert split_examples(examples, 100, 1) == split_examples(examples, 100, 1)
    assert split_examples(examples, 100, 1) != split_examples(examples, 100, 2)


def test_the_draw_is_golden() -> None:
    """Existing studies must resume with the rows that they began with."""
    split = split_examples(many(30), 6, 0, 4)
    assert (split.train, split.validation) == ((14, 12, 11, 29, 6, 10), (26, 27, 19, 20))


def test_a_smaller_sample_is_a_prefix_of_a_larger_one() -> None:
    """More samples extend the training rows; validation rows stay the same."""
    examples = many(3000)
    small, large = (split_examples(examples, samples, 1) for samples in (100, 900))
    assert small.validation == large.validation
    assert large.train[:100] == small.train
    assert len(small.validation) == 1024


def test_phrases_of_a_validation_sentence_are_not_trained_on() -> None:
    """A small treebank: the phrases of a sentence are on its side of the split, or on neither."""
    sentences = [f"the film{i} is good{i} and it{i} ends well{i}" for i in range(40)]
    texts, labels = [], []
    for i, sentence in enumerate(sentences):
        words = sentence.split()
        for part in (words, words[:2], words[3:], words[4:6]):
            texts.append(" ".join(part))
            labels.append(i % 2)
    split = split_examples(Examples(tuple((text,) for text in texts), tuple(labels)), None, 0)
    assert all(row % 4 == 0 for row in split.validation)
    assert len(split.validation) == 8, "20 % of 160 rows are the 4 rows of each of 8 sentences"
    assert not {row // 4 for row in split.train} & {row // 4 for row in split.validation}


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (301, "301 training samples are more than the 300 rows"),
        (1, "1 training samples are too few for 2 classes"),
        (0, "0 training samples are too few"),
        (-5, "-5 training samples are too few"),
    ],
)
def test_impossible_sizes_are_refused(samples: int, message: str) -> None:
    """The error has the value and the rule."""
    with pytest.raises(BadInput, match=message):
        split_examples(many(300), samples, 0)


def test_unsplittable_files_are_refused() -> None:
    """One class, no rows, or one text that contains all others: one line each."""
    with pytest.raises(BadInput, match="has 1 class; give one with at least 2"):
        split_examples(Examples((("a",), ("b",)), (0, 0)), None, 0)
    with pytest.raises(BadInput, match="has 0 classes"):
        split_examples(Examples((), ()), None, 0)
    with pytest.raises(BadInput, match="leaves no validation row of class 0"):
        split_examples(Examples((("a b c d",), ("a",), ("b",), ("c",)), (0, 1, 1, 0)), None, 0)


def test_a_pair_shares_no_text_with_training() -> None:
    """With three hypotheses per premise, all rows of a premise are on one side, or on neither."""
    pairs = tuple((f"Premise {i // 3} is  this", f"hypothesis {i} it is") for i in range(300))
    split = split_examples(Examples(pairs, tuple(i % 3 for i in range(300))), None, 0)
    assert len(split.validation) == 60, "rows that are withheld with their premise are validated on too"
    assert not {row // 3 for row in split.train} & {row // 3 for row in split.validation}


PAIRS = st.lists(st.tuples(*[st.lists(WORDS, min_size=3, max_size=6).map(" ".join)] * 2), min_size=12, max_size=60)


@given(PAIRS, st.integers(0, 3))
def test_no_text_of_a_pair_contains_one_across_the_split(pairs: list[tuple[str, str]], seed: int) -> None:
    """Checked for equality and containment either way; only texts in over 10 rows may cross."""
    examples = Examples(tuple(pairs), tuple(float(i % 7) + 0.5 for i in range(len(pairs))))
    try:
        split = split_examples(examples, None, seed, kind="regression")
    except BadInput:
        reject()
    often = Counter(padded(text) for row in pairs for text in {padded(text): text for text in row}.values())
    texts = [{padded(text) for text in row if often[padded(text)] <= 10} for row in pairs]
    assert not set(split.train) & set(split.validation)
    for v in split.validation:
        for t in split.train:
            assert not any(a in b or b in a for a in texts[v] for b in texts[t])


def test_very_common_texts_do_not_group_rows() -> None:
    """A second text in more than a twentieth of the rows does not put them on one side."""
    pairs = tuple((f"review {i} number{i}", "is it good?") for i in range(100))
    split = split_examples(Examples(pairs, tuple(i % 2 for i in range(100))), None, 0)
    assert (len(split.train), len(split.validation)) == (80, 20)


def test_equal_rows_of_common_texts_stay_together() -> None:
    """Where both texts of a pair are common, equal pairs are still on one side."""
    pairs = tuple((f"colour {i % 5} here", f"size {i % 4} there") for i in range(400))
    split = split_examples(Examples(pairs, tuple(i % 2 for i in range(400))), None, 0)
    assert not {pairs[row] for row in split.train} & {pairs[row] for row in split.validation}


def test_all_questions_of_a_context_are_on_one_side() -> None:
    """Contexts differ in case and spacing; both sides retain unanswerable questions."""
    rows = tuple((f"what {i}?", f"{'The' if i % 2 else 'the'}  context {i // 5} is long") for i in range(200))
    answers = tuple(() if i % 4 == 0 else (("long", 1),) for i in range(200))
    split = split_examples(Examples(rows, answers), None, 0, kind="question-answering")
    assert not {row // 5 for row in split.train} & {row // 5 for row in split.validation}
    assert len(split.validation) == 40
    for part in (split.train, split.validation):
        assert {bool(answers[row]) for row in part} == {True, False}


def test_a_few_large_contexts_can_be_split() -> None:
    """One context is held out even where each has more than a fifth of the questions."""
    rows = tuple((f"what {i}?", f"context {i % 3} is long") for i in range(30))
    split = split_examples(Examples(rows, ((("long", 13),),) * 30), None, 0, kind="question-answering")
    assert len(split.train) == 20
    assert len({row % 3 for row in split.validation}) == 1
    with pytest.raises(BadInput, match="all its rows share texts"):
        split_examples(Examples((("a?", "one c x"), ("b?", "one c x")), ((), ())), None, 0, kind="question-answering")


def test_numbers_are_stratified_by_deciles() -> None:
    """Each tenth of the numbers has its share of both parts, within one row."""
    numbers = tuple(float((i * 37) % 200) for i in range(200))
    examples = Examples(tuple((f"this{i} that{i}",) for i in range(200)), numbers)
    split = split_examples(examples, None, 0, kind="regression")
    assert Counter(int(numbers[row] // 20) for row in split.validation) == dict.fromkeys(range(10), 4)


@pytest.mark.parametrize("kind", ["multi-label", "token-classification"])
def test_a_rare_label_is_on_both_sides(kind: Kind) -> None:
    """Five rows of a hundred have the rare label 7 beside a common one: a fifth of them is for validation."""
    answers = tuple((0, 7) if i % 20 == 0 else (0, 0) if kind == "token-classification" else (0,) for i in range(100))
    examples = Examples(
        tuple((f"this{i}", f"that{i}")[: 2 if kind != "multi-label" else 1] for i in range(100)), answers
    )
    split = split_examples(examples, None, 0, kind=kind)
    assert sum(7 in answers[row] for row in split.validation) == 1
    assert sum(7 in answers[row] for row in split.train) == 4


def test_tagged_words_are_compared_as_sentences() -> None:
    """A sentence within another is never for validation, nor for training if the other is for validation."""
    sentences = [("the", "film", str(i), "is", "good") for i in range(20)]
    rows = (*sentences, *(words[:3] for words in sentences))
    split = split_examples(Examples(rows, tuple((0,) * len(row) for row in rows)), None, 0, kind="token-classification")
    assert all(row < 20 for row in split.validation)
    assert not {row % 20 for row in split.train} & {row % 20 for row in split.validation}
