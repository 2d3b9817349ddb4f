"""Runtime metrics against independent implementations, entities against seqeval, answers against SQuAD's definition."""

from __future__ import annotations

import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from farsearch.runtime.entities import count_entities, entities
from farsearch.runtime.scores import METRICS, evidence, score
from farsearch.runtime.spans import match_answers, normalized
from farsearch.runtime.task import KINDS
from tests.tasks.metric_cases import PARTS, REFERENCES, TAGS, rows, squad_row


def test_every_kind_has_a_metric() -> None:
    """Every metric is for one kind, and its value is one of its components or their mean."""
    assert {kind for rule in METRICS.values() for kind in rule.kinds} == set(KINDS)
    assert all(len(rule.kinds) == 1 and rule.value in (*rule.parts, "mean") for rule in METRICS.values())
    assert METRICS.keys() == REFERENCES.keys()


@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=30)
@given(data=st.data())
def test_metrics_and_their_parts_equal_the_references(name: str, data: st.DataObject) -> None:
    """Also with predictions or rows of one class."""
    predicted, _, true = zip(*data.draw(rows(REFERENCES[name][0], most=30)), strict=True)
    found = score(name, evidence(name, predicted, true, TAGS))
    assert found.value == pytest.approx(REFERENCES[name][1](predicted, true), abs=1e-9)
    for part, reference in PARTS.get(name, {}).items():
        assert found.parts[part] == pytest.approx(reference(predicted, true), abs=1e-9)


def test_invalid_inputs_are_refused() -> None:
    """No rows, different lengths, a number of tags other than of words, an unknown metric."""
    with pytest.raises(ValueError, match="there are no rows"):
        score("accuracy", [])
    with pytest.raises(ValueError, match="1 predictions for 2 answers"):
        evidence("accuracy", [1], [1, 0])
    with pytest.raises(ValueError, match="1 predicted tags for 2 words"):
        evidence("entity_f1", [(0,)], [(0, 1)], ("O", "B-X"))
    with pytest.raises(KeyError):
        score("bleu", [(1.0, 1.0)])


@given(st.lists(st.sampled_from([*TAGS, ".", "I-PER-x", "S", "E", "E-LOC", "I-", "ORG", "B-O"]), max_size=12))
def test_entities_equal_those_of_seqeval(tags: list[str]) -> None:
    """For well-formed and malformed rows, in any scheme and in none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = get_entities(tags)
    assert entities(tags) == set(expected)
    assert len(expected) == len(set(expected))


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER I-PER O I-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER B-PER I-LOC", {("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 2)}),
        ("S-PER B-LOC I-LOC E-LOC", {("PER", 0, 0), ("LOC", 1, 3)}),
        ("B-NEW-YORK I-NEW-YORK", {("NEW-YORK", 0, 1)}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_entity_examples(tags: str, found: set[tuple[str, int, int]]) -> None:
    """IOB2, IOB1, adjacent ones, IOBES, a name with a dash, none."""
    assert entities(tags.split()) == found


def test_an_entity_needs_the_right_type_and_words() -> None:
    """Others count as predicted, but not as correct."""
    true = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-LOC"]
    assert count_entities(["B-PER", "I-PER", "O", "B-PER", "O", "B-LOC"], true) == (2, 3, 3)
    assert count_entities(["B-PER", "O", "O", "B-LOC", "I-LOC", "O"], true) == (0, 2, 3)


@given(rows("question-answering", most=6))
def test_answers_are_matched_by_the_definition(found: list[tuple[str, str, tuple[tuple[str, int], ...]]]) -> None:
    """Precision and recall over common words, the maximum over the answers, unanswerable questions."""
    for predicted, _, golds in found:
        assert match_answers(predicted, [text for text, _ in golds]) == pytest.approx(squad_row(predicted, golds))


@pytest.mark.parametrize(
    ("predicted", "answers", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
        ("tower in Paris", ["the Eiffel Tower in Paris", "Paris"], 0, 6 / 7),
        ("cat cat dog", ["cat dog dog"], 0, 2 / 3),
        ("1,000", ["1000"], 1, 1),
        ("Theatre", ["re"], 0, 0),
        ("", [], 1, 1),
        ("Paris", [], 0, 0),
        ("", ["Paris"], 0, 0),
        ("the", ["a"], 1, 1),
        ("the", ["a", "Paris"], 0, 0),
        ("rain", ["snow", "rain."], 1, 1),
    ],
)
def test_answer_examples(predicted: str, answers: list[str], exact: float, f1: float) -> None:
    """Case, punctuation, articles, repeated words, questions without an answer, the best of several."""
    assert match_answers(predicted, answers) == pytest.approx((exact, f1))


def test_answer_normalisation() -> None:
    """Articles are whole words, any white space is one space, non-ASCII punctuation is retained."""
    assert normalized("  An apple\u00a0a day -- the\tTheory!  “Ä” ") == "apple day theory “ä”"


def test_ranks_of_many_equal_values() -> None:
    """Spearman's correlation of a shuffled grid of ties equals scipy's."""
    draw = random.Random(0)
    predicted, true = ([float(draw.randrange(4)) for _ in range(500)] for _ in range(2))
    expected = REFERENCES["spearman"][1](predicted, true)
    assert score("spearman", evidence("spearman", predicted, true)).value == pytest.approx(expected, abs=1e-12)
