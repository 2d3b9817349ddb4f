"""The summary of a custom file, and the scores of constant predictions on it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import accuracy_score, f1_score

from farsearch.runtime.task import Task
from farsearch.tasks import Examples, TaskData
from farsearch.tasks.constant_answer import constant_answer
from farsearch.tasks.custom import load_own
from farsearch.tasks.description import own_data
from farsearch.tasks.summary import Understood, token_counts, understand
from tests.journey import call


def loaded(folder: Path, content: str, told: list[str] | None = None, **given: Any) -> TaskData:
    """Load the task of a CSV file with this content."""
    path = folder / "a.csv"
    path.write_text(content, encoding="utf-8")
    own = own_data(None, {"train": path, **given})
    assert own is not None
    return load_own(own, (told if told is not None else []).append)


def table(header: str, *rows: str, count: int = 40) -> str:
    """A CSV file in which ``{i}`` is the row number."""
    return "\n".join([header, *(rows[i % len(rows)].replace("{i}", str(i)) for i in range(count)), ""])


def test_rows_columns_and_classes_are_summarised(tmp_path: Path) -> None:
    """In two lines, which are stored as JSON types."""
    told: list[str] = []
    rows = ("{i},hello number{i},a body{i} here,ham", "{i},hi number{i},one body{i},ham",
            "{i},hm number{i},some body{i},ham", "{i},ho number{i},no body{i},spam")  # fmt: skip
    data = loaded(tmp_path, table("id,title,body,label", *rows), told)
    assert told[-2:] == [
        "32 training and 8 development rows; text: title + body; label: label; unused: id",
        "classification, accuracy; 2 classes: ham 30 (75.0 %), spam 10",
    ]
    found = understand(data)
    assert Understood.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("text,label", ("one w{i},1.5", "two w{i},-2"), "regression, pearson_spearman; numbers from -2 to 1.5"),
        ("text,label", ("one w{i},a|b", "two w{i},a"), "multi-label, micro_f1; 2 labels: a 40 (100.0 %), b 20"),
        ("text,label", ("one w{i} x,O B-A O",), "token-classification, entity_f1; 2 tags: O 80 (66.7 %), B-A 40"),
        ("question,context,answer", ("what,the {i} answer,answer",), "question-answering, squad"),
    ],
)
def test_targets_of_each_kind_are_summarised(tmp_path: Path, header: str, rows: tuple[str, ...], said: str) -> None:
    """Labels with counts and the share of the commonest; numbers with their range."""
    assert understand(loaded(tmp_path, table(header, *rows))).lines()[1] == said


def test_summary_lines_are_short_for_any_names(tmp_path: Path) -> None:
    """At most three, of at most 100 characters, without control characters."""
    header = ",".join(["text", "label", *(f"column{'x' * 40}{i}" for i in range(30))])
    rows = [f"word{{i}} caf\u00c3\u00a9 \ufffd,{'class' * 12}{i}" + ",0" * 30 for i in range(12)]
    found = understand(loaded(tmp_path, table(header, *rows)))
    lines = found.lines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith("label: label; unused: 30")
    assert lines[1].endswith(", … (11 more)")


def test_texts_of_a_broken_encoding_are_counted(tmp_path: Path) -> None:
    """U+FFFD and UTF-8 decoded as another encoding count; similar-looking letters do not."""
    broken = [
        "caf\u00e9".encode().decode("latin-1"),
        "it\u2019s".encode().decode("cp1252"),
        "\u043f\u0440\u0438".encode().decode("latin-1"),
    ]
    fine = ["caf\u00e9", "S\u00c3O PAULO", "it\u2019s", "\u043f\u0440\u0438", "\u00abCAF\u00c9\u00bb", "\u20ac 5"]
    texts = [*broken, *fine, "lost \ufffd", "lost \ufffd\ufffd"]
    rows = [f"{text} word{{i}},{i % 2}" for i, text in enumerate(texts)]
    told: list[str] = []
    found = understand(loaded(tmp_path, table("text,label", *rows, count=2 * len(rows)), told))
    assert (found.mojibake, found.replaced) == (6, 4)
    assert "4 rows with U+FFFD (lost letters), 6 with letters as Ã© (wrong encoding)" in told


class Words:
    """A tokenizer of whole words between two special tokens, with ``a`` and ``b`` in its vocabulary."""

    unk_token_id, all_special_ids = 0, [0, 1, 2]

    def __call__(self, *columns: list[str], **_: Any) -> dict[str, Any]:
        """Return the token ids of each row."""
        known = {"a": 3, "b": 4}
        texts = [" ".join(row).split() for row in zip(*columns, strict=True)]
        return {"input_ids": [[1, *(known.get(word, 0) for word in words), 2] for words in texts]}


def test_truncated_rows_and_unknown_tokens_are_counted() -> None:
    """Special tokens count for the length, but not for the share of unknown tokens."""
    rows = Examples((("a b c d",), ("a",), ("b a",), ("x",)), (0, 1, 0, 1))
    found = token_counts(Words(), rows, "classification", 4)
    assert (found.cut, found.unknown) == (1 / 4, 3 / 8)
    assert found.text == "25.0 % of rows cut at 4 tokens, 37.5 % unknown tokens"


def test_tasks_show_prints_the_inferred_schema(tmp_path: Path) -> None:
    """With the options of a run, and the run command for it."""
    (tmp_path / "my mails.csv").write_text(table("body,folder", "one w{i},a", "two w{i},b"), encoding="utf-8")
    given = ("--text-column", "body", "--label-column", "folder")
    done = call(tmp_path, "tasks", "show", "my mails.csv", *given)
    assert "32 training and 8 development rows; text: body; label: folder" in done.out
    assert done.out.endswith(
        "  farsearch run --device jetson-nano --train 'my mails.csv' --text-column body --label-column folder\n"
    )
    data = call(tmp_path, "tasks", "show", "my mails.csv", *given, "--json").json
    assert data["task"]["understood"]["counts"] == {"a": 20, "b": 20}


# -- constant predictions


def task(kind: str, metric: str, labels: tuple[str, ...] = (), **more: Any) -> Task:
    """A task of this kind."""
    texts = ("question", "context") if kind == "question-answering" else ("text",)
    return Task("t", kind, labels, metric, texts, "label", **more)


CLASSES = random.Random(0).choices([0, 1, 1, 1, 2], k=200)
TWO = random.Random(1).choices([0, 0, 0, 1], k=200)


@pytest.mark.parametrize(
    ("metric", "answers", "more", "expected"),
    [
        ("accuracy", CLASSES, {}, max(accuracy_score(CLASSES, [i] * 200) for i in range(3))),
        ("macro_f1", CLASSES, {},
         max(f1_score(CLASSES, [i] * 200, average="macro", zero_division=0) for i in range(3))),
        ("matthews_correlation", CLASSES, {}, 0.0),
        ("f1", TWO, {}, f1_score(TWO, [1] * 200)),
        ("f1", TWO, {"positive": "a"}, f1_score(TWO, [0] * 200, pos_label=0)),
        ("accuracy_f1", TWO, {}, max(accuracy_score(TWO, [i] * 200) / 2 + f1_score(TWO, [i] * 200, zero_division=0) / 2
                                     for i in (0, 1))),
    ],
)  # fmt: skip
def test_the_best_constant_class(metric: str, answers: list[int], more: dict[str, Any], expected: float) -> None:
    """As scikit-learn scores each class predicted for every row."""
    labels = ("a", "b", "c")[: max(answers) + 1]
    found = constant_answer(task("classification", metric, labels, **more), answers)
    assert found.value == pytest.approx(expected)


def test_the_best_constant_labels() -> None:
    """Against trying all sets of labels."""
    draw = random.Random(2)
    answers = [tuple(i for i, share in enumerate((0.7, 0.5, 0.3, 0.1)) if draw.random() < share) for _ in range(60)]
    true = sum(map(len, answers))
    sets = [tuple(i for i in range(4) if bits >> i & 1) for bits in range(1, 16)]
    best = max(2 * sum(len({*labels} & {*row}) for row in answers) / (len(labels) * 60 + true) for labels in sets)
    assert constant_answer(task("multi-label", "micro_f1", tuple("abcd")), answers).value == pytest.approx(best)


@pytest.mark.parametrize("metric", ["pearson", "spearman", "pearson_spearman"])
def test_a_constant_number_has_correlation_0(metric: str) -> None:
    """Its correlation is undefined, and counts as 0."""
    assert constant_answer(task("regression", metric), [1.0, 2.5, 7.0]).value == 0.0


def test_constant_outside_tags_and_no_answer() -> None:
    """Tags: no entity is predicted. Questions: correct where there is no answer."""
    tags = constant_answer(task("token-classification", "entity_f1", ("O", "B-A")), [(0, 1), (0, 0)])
    assert (tags.answer, tags.value) == ("O", 0.0)
    answers = [(("Ann", 0),), (), (), (("Rome", 3),)]
    squad = constant_answer(task("question-answering", "squad"), answers)
    assert (squad.answer, squad.value) == ("no answer", 0.5)
