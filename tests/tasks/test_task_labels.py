"""Schema inference for custom files: the columns that are read, and the meaning of their labels."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import f1_score

from farsearch.errors import BadInput, DataError
from farsearch.resolve import resolve_job
from farsearch.runtime import scores
from farsearch.runtime.rows import RowProblem, read_rows
from farsearch.runtime.task import Task
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store
from farsearch.tasks import TaskData
from farsearch.tasks.custom import load_own
from farsearch.tasks.description import own_data
from farsearch.tasks.metrics import score


def table(header: str, *rows: str, folder: Path, name: str = "a.csv") -> Path:
    """A CSV file of thirty rows, in which ``{i}`` is the row number."""
    path = folder / name
    lines = [rows[i % len(rows)].replace("{i}", str(i)) for i in range(30)]
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return path


def json_lines(rows: list[dict[str, Any]], folder: Path) -> Path:
    """A file of JSON lines."""
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def loaded(path: Path, told: list[str] | None = None, **given: Any) -> TaskData:
    """Load the task that these options describe."""
    own = own_data(None, {"train": path, **given})
    assert own is not None
    return load_own(own, (told if told is not None else []).append)


# -- columns


@pytest.mark.parametrize(
    ("columns", "texts", "label", "unused"),
    [
        ("index,question,sentence,label", ("question", "sentence"), "label", ("index",)),
        ("premise,hypothesis,label", ("premise", "hypothesis"), "label", ()),
        ("sentence1,sentence2,gold_label,label1", ("sentence1", "sentence2"), "gold_label", ("label1",)),
        ("id,qid1,qid2,question1,question2,is_duplicate", ("question1", "question2"), "is_duplicate",
         ("id", "qid1", "qid2")),
        ("Quality,#1 ID,#2 ID,#1 String,#2 String", ("#1 String", "#2 String"), "Quality", ("#1 ID", "#2 ID")),
        ("title,text,label", ("title", "text"), "label", ()),
        ("label,title,body", ("title", "body"), "label", ()),
        ("query,passage,label", ("query", "passage"), "label", ()),
        ("question,answer,label", ("question", "answer"), "label", ()),
        ("question,context,label", ("question", "context"), "label", ()),
        ("text,label,score", ("text",), "label", ("score",)),
        ("sentence,label", ("sentence",), "label", ()),
    ],
)  # fmt: skip
def test_known_pairs_of_columns_are_inferred(
    tmp_path: Path, columns: str, texts: tuple[str, ...], label: str, unused: tuple[str, ...]
) -> None:
    """A pair is read where both of its columns exist; unused columns are reported."""

    def row(kind: str) -> str:
        return ",".join(
            kind if name == label else "7" if name in unused else f"{name} words number{{i}}"
            for name in columns.split(",")
        )

    data = loaded(table(columns, row("yes"), row("no"), folder=tmp_path))
    assert (data.spec.texts, data.spec.label, data.unused) == (texts, label, unused)
    assert data.spec.kind == "classification"
    assert data.train.texts[0] == tuple(f"{name} words number0" for name in texts)


def test_an_unused_text_column_is_highlighted(tmp_path: Path) -> None:
    """The column that the user may have meant is the first unused one, also in the output of a run."""
    path = table("id,text,remark,label", "{i},one number{i},three words here,a", "{i},two number{i},and here too,b",
                 folder=tmp_path)  # fmt: skip
    told: list[str] = []
    assert loaded(path, told).unused == ("remark (text)", "id")
    assert any("text: text; label: label; unused: remark (text), id" in line for line in told)


# -- missing labels


@pytest.mark.parametrize("mark", ["-", "nan", "NaN", "None", "null", "N/A", "?"])
def test_missing_labels_are_refused_by_line(tmp_path: Path, mark: str) -> None:
    """Such as SNLI's ``-``; ``--skip-bad-rows`` counts them, and an explicit list of labels may include the value."""
    path = table("text,label", "one number{i},yes", "two number{i},no", f"three number{{i}},{mark}", folder=tmp_path)
    with pytest.raises(DataError, match=rf"^a\.csv line 4: the label '{re.escape(mark)}' is no value.*--skip.*--label"):
        loaded(path)
    told: list[str] = []
    data = loaded(path, told, skip_bad_rows=True)
    assert (data.spec.labels, len(data.train) + len(data.dev)) == (("no", "yes"), 20)
    assert told[0] == "10 rows of a.csv left out (--skip-bad-rows), as:"
    assert loaded(path, labels=("yes", "no", mark)).spec.labels == ("yes", "no", mark)


@pytest.mark.parametrize(("others", "spelled"), [(("yes", "no"), "-1"), (("0", "1"), "-1"), (("0.0", "1.0"), "-1.0")])
def test_minus_one_among_names_or_ids_is_a_missing_label(tmp_path: Path, others: tuple[str, str], spelled: str) -> None:
    """GLUE's copies on the hub mark unlabelled rows this way."""
    rows = [f"text number{{i}},{label}" for label in (*others, spelled)]
    path = table("text,label", *rows, folder=tmp_path)
    with pytest.raises(DataError, match=rf"^a\.csv line 4: the label '{spelled}' is no value"):
        loaded(path)
    assert loaded(path, skip_bad_rows=True).spec.labels == tuple(sorted(others))
    assert len(loaded(path, labels=(spelled, *others)).spec.labels) == 3


@pytest.mark.parametrize("labels", [("-1", "1"), ("-2", "-1", "0", "1", "2")])
def test_minus_one_among_other_numbers_is_a_class(tmp_path: Path, labels: tuple[str, ...]) -> None:
    """Where the numbers are not ids from 0 on."""
    path = table("text,label", *(f"text number{{i}},{label}" for label in labels), folder=tmp_path)
    assert loaded(path).spec.labels == labels


def test_missing_values_of_json_are_refused(tmp_path: Path) -> None:
    """Null and NaN, by line."""
    for value in ("null", "NaN"):
        path = json_lines([{"text": f"a number{i}", "label": i % 2} for i in range(30)], tmp_path)
        path.write_text(path.read_text() + f'{{"text": "b", "label": {value}}}\n', encoding="utf-8")
        with pytest.raises(DataError, match=r"^a\.jsonl line 31: the label is missing"):
            loaded(path)


def test_a_missing_value_among_several_labels_is_refused(tmp_path: Path) -> None:
    """An empty cell means a row without labels."""
    path = table("text,label", "one number{i},a|b", "two number{i},b", "three number{i},nan", folder=tmp_path)
    with pytest.raises(DataError, match=r"^a\.csv line 4: the label 'nan' is no value"):
        loaded(path)


# -- several labels, numbers


@pytest.mark.parametrize(
    ("cells", "separator", "labels"),
    [
        (("a;b", "a", "b;c", "c"), ";", ("a", "b", "c")),
        (('"2,14"', "2", "14", '"14,3,2"', '"3,2,14"'), ",", ("2", "3", "14")),
        (('"red, blue"', "blue", "red"), ",", ("blue", "red")),
    ],
)
def test_combinations_of_labels_are_not_classes(
    tmp_path: Path, cells: tuple[str, ...], separator: str, labels: tuple[str, ...]
) -> None:
    """Where their parts recur the command stops, and the options that it suggests work."""
    path = table("text,label", *(f"text number{{i}},{cell}" for cell in cells), folder=tmp_path)
    with pytest.raises(DataError, match=rf"^a\.csv: labels such as .*--label-separator '{separator}'"):
        loaded(path)
    data = loaded(path, kind="multi-label", label_separator=separator)
    assert (data.spec.kind, data.spec.labels) == ("multi-label", labels)
    assert data.spec.task.label_separator == separator
    assert loaded(path, label_separator=separator).fingerprint == data.fingerprint
    assert len(loaded(path, kind="classification").spec.labels) == len(set(cells))


def test_names_with_commas_are_classes(tmp_path: Path) -> None:
    """Where their parts do not recur."""
    path = table("text,label", 'a number{i},"Arts, crafts"', 'b number{i},"Food, drink"', folder=tmp_path)
    assert loaded(path).spec.labels == ("Arts, crafts", "Food, drink")


def test_a_decimal_comma_needs_an_option(tmp_path: Path) -> None:
    """The command stops, and the option that it suggests works."""
    path = table("text,label", 'a number{i},"0,5"', "b number{i},2", 'c number{i},"1,25"', folder=tmp_path)
    with pytest.raises(
        DataError, match=r"^a\.csv: labels such as '0,5' are numbers.*--kind regression --decimal-comma"
    ):
        loaded(path)
    with pytest.raises(DataError, match=r"^a\.csv line 2: the label '0,5' has a decimal comma; .*add --decimal-comma"):
        loaded(path, kind="regression")
    data = loaded(path, decimal_comma=True)
    assert (data.spec.kind, set(data.train.answers)) == ("regression", {0.5, 1.25, 2.0})


def test_conflicting_label_options_are_refused(tmp_path: Path) -> None:
    """A separator is for several labels, a decimal comma for numbers."""
    path = table("text,label", "a number{i},x", "b number{i},y", folder=tmp_path)
    for given in (
        {"label_separator": ";", "kind": "regression"},
        {"decimal_comma": True, "kind": "classification"},
        {"decimal_comma": True, "label_separator": ";"},
        {"label_separator": ""},
        {"positive": "x"},
        {"positive": "z", "metric": "f1"},
    ):
        with pytest.raises(BadInput):
            loaded(path, **given)


# -- lists in cells


@pytest.mark.parametrize("cell", ["['a', 'b']", '["a", "b"]', "['a' 'b']", "['a','b',]"])
def test_lists_in_cells_are_read(tmp_path: Path, cell: str) -> None:
    """As JSON, Python and numpy write them."""
    quoted = '"{}"'.format(cell.replace('"', '""'))
    data = loaded(table("text,label", f"one number{{i}},{quoted}", 'two number{i},"[""a""]"', folder=tmp_path))
    assert (data.spec.kind, data.spec.labels) == ("multi-label", ("a", "b"))
    assert set(data.train.answers) == {(0,), (0, 1)}


def test_words_and_tags_in_cells_are_read(tmp_path: Path) -> None:
    """Words as a list, tags (or tag ids) as a list or separated by spaces."""
    words, tags = '"[\'Ann\', \'left\', ""N\'Djamena{i}""]"', "\"['B-PER', 'O', 'B-LOC']\""
    for cell in (tags, "B-PER O B-LOC"):
        data = loaded(table("tokens,tags", f"{words},{cell}", folder=tmp_path))
        assert data.train.texts[0] == ("Ann", "left", "N'Djamena0")
        assert [data.spec.labels[i] for i in data.train.answers[0]] == ["B-PER", "O", "B-LOC"]
    ids = loaded(table("tokens,tags", f'{words},"[1, 0, 2]"', folder=tmp_path), kind="token-classification",
                 labels=("O", "B-PER", "B-LOC"))  # fmt: skip
    assert ids.train.answers[0] == (1, 0, 2)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("text,label", "a b{i},\"['a', b]\"", "the labels .* are an invalid list"),
        ("tokens,tags", "\"['Ann', left]\",B-PER O", "the tokens .* is no list of texts"),
        ("tokens,tags", "\"['Ann', 3]\",B-PER O", "the tokens .* is no list of texts"),
    ],
)
def test_a_broken_list_is_refused(tmp_path: Path, header: str, row: str, message: str) -> None:
    """It is not read as one label, or as words with brackets."""
    good = {"text,label": "a c{i},\"['a', 'b']\"", "tokens,tags": "\"['Ann', 'left{i}']\",B-PER O"}[header]
    with pytest.raises(DataError, match=rf"^a\.csv line 3: {message}"):
        loaded(table(header, good, row, folder=tmp_path))


def test_ids_of_tags_need_their_names(tmp_path: Path) -> None:
    """The error suggests the option to add."""
    rows = [{"tokens": ["a", f"b{i}"], "tags": [0, 1]} for i in range(30)]
    path = json_lines(rows, tmp_path)
    with pytest.raises(DataError, match=r"^a\.jsonl line 1: the tag 0 is an id; .*--label"):
        loaded(path)
    assert loaded(path, labels=("O", "B-X"), kind="token-classification").train.answers[0] == (0, 1)


def test_answers_are_matched_in_their_contexts(tmp_path: Path) -> None:
    """Under any column name; labels that do not occur in the context are classes."""
    header, row = "question,context,reply", "who came{i},then person{i} came,person{i}"
    path = table(header, row, folder=tmp_path)
    assert loaded(path, label_column="reply").spec.kind == "question-answering"
    path = table("question,context,label", "who{i},it was {i} then,1", "what{i},it was {i} now,0", folder=tmp_path)
    assert loaded(path).spec.kind == "classification"


# -- the positive class


def test_the_rarest_class_is_positive(tmp_path: Path) -> None:
    """The default is reported; an option names another class."""
    path = table("text,label", "a number{i},fraud", "b number{i},legit", "c number{i},legit", folder=tmp_path)
    told: list[str] = []
    spec = loaded(path, told, metric="f1").spec
    assert (spec.positive, spec.task.positive_id) == ("fraud", 0)
    assert "f1 is of class 'fraud', which has the fewest rows; --positive names another" in told
    assert loaded(path, metric="accuracy_f1", positive="legit").spec.positive == "legit"
    assert loaded(path).spec.positive is None
    even = table("text,label", "a number{i},fraud", "b number{i},legit", folder=tmp_path, name="even.csv")
    assert loaded(even, told, metric="f1").spec.positive == "legit"
    assert "f1 is of class 'legit', the second of two with as many rows; --positive names another" in told


# -- names that are numbers


def test_numeric_names_are_matched_by_value_and_never_as_ids(tmp_path: Path) -> None:
    """In any spelling, where exactly one label has the value."""
    path = table("text,label", "a number{i},1.0", "b number{i},2.0", "c number{i},3.0", folder=tmp_path)
    dev = tmp_path / "dev.csv"
    dev.write_text("text,label\na,1\nb,02\nc,3e0\n", encoding="utf-8")
    data = loaded(path, dev=dev)
    assert data.spec.labels == ("1.0", "2.0", "3.0")
    assert data.dev.answers == (0, 1, 2)
    dev.write_text("text,label\na,0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^dev\.csv line 2: the label '0' is unknown"):
        loaded(path, dev=dev)


def test_one_number_in_two_spellings_is_refused(tmp_path: Path) -> None:
    """They would be two classes."""
    path = table("text,label", "a number{i},1", "b number{i},1.0", "c number{i},2", folder=tmp_path)
    with pytest.raises(DataError, match=r"the labels '1' and '1\.0' are the same number; write both the same way"):
        loaded(path)


LEVELS = Task("levels", "classification", ("1.0", "2.0", "3.0", "4.0", "5.0"), "accuracy", ("text",), "label")


def test_a_bundle_reads_the_same_classes_in_other_spellings(tmp_path: Path) -> None:
    """For a file with 1 to 4 and a model of 1.0 to 5.0, no class index shifts."""
    path = tmp_path / "mine.csv"
    path.write_text("text,label\na,1\nb,4\nc,05\n", encoding="utf-8")
    assert read_rows(str(path), LEVELS).answers == (0, 3, 4)
    path.write_text("text,label\na,0\n", encoding="utf-8")
    with pytest.raises(RowProblem, match=r"^mine\.csv line 2: the label '0' is unknown"):
        read_rows(str(path), LEVELS)


def test_a_bundle_reads_separators_decimal_commas_and_lists(tmp_path: Path) -> None:
    """As the workstation read them."""
    path = tmp_path / "mine.csv"
    path.write_text("text,label\na,x;y\nb,\nc,\"['y']\"\n", encoding="utf-8")
    several = Task("t", "multi-label", ("x", "y"), "micro_f1", ("text",), "label", label_separator=";")
    assert read_rows(str(path), several).answers == ((0, 1), (), (1,))
    path.write_text('text,label\na,"0,5"\nb,1.5\n', encoding="utf-8")
    number = Task("t", "regression", (), "pearson", ("text",), "label", decimal_comma=True)
    assert read_rows(str(path), number).answers == (0.5, 1.5)
    with pytest.raises(RowProblem, match="the label '0,5' is no finite number"):
        read_rows(str(path), number._replace(decimal_comma=False))


def test_a_board_reads_a_table_with_the_separator_of_the_study(tmp_path: Path) -> None:
    """Without a header, rows in which two separators fit are read as those of the study were, given or detected."""
    path = table("a text, with {0};x", "a text, with {i};x", "no text, {i};y", folder=tmp_path)
    task = loaded(path, columns=("text", "label"), separator="semicolon").spec.task
    assert task.separator == "semicolon"
    mine = tmp_path / "mine.csv"
    mine.write_text("good, or so;x\nbad, or so;y\n", encoding="utf-8")
    with pytest.raises(RowProblem, match="commas and semicolons divide its first rows"):
        read_rows(str(mine), task._replace(separator=None))
    told: list[str] = []
    rows = read_rows(str(mine), task, report=told.append)
    assert (rows.texts, rows.answers, told) == (
        (("good, or so",), ("bad, or so",)),
        (0, 1),
        ["mine.csv: semicolons between its columns"],
    )
    assert Task.from_dict(task.to_dict()) == task
    assert loaded(table("text;label", "a {i};x", "b {i};y", folder=tmp_path)).spec.task.separator == "semicolon"


def test_a_board_says_that_a_table_has_another_separator(tmp_path: Path) -> None:
    """A file that only another separator fits is read with that one, which one line reports."""
    task = Task("t", "classification", ("x", "y"), "accuracy", ("text",), "label", separator="semicolon")
    mine = tmp_path / "mine.csv"
    mine.write_text("text,label\na; b,x\nc,y\n", encoding="utf-8")
    told: list[str] = []
    assert read_rows(str(mine), task, report=told.append).texts == (("a; b",), ("c",))
    assert told == ["mine.csv: commas between its columns, where the study's rows had semicolons"]
    # a row of the wrong size is measured by the study's separator
    mine.write_text("a;x;more\nb;y\n", encoding="utf-8")
    with pytest.raises(RowProblem, match=r"has 3 columns; a row has 2 .* with one semicolon between"):
        read_rows(str(mine), task._replace(columns=("text", "label")))


def test_a_task_without_a_separator_is_stored_as_before(tmp_path: Path) -> None:
    """Official tasks, JSON and older studies have none, and their records do not change."""
    data = loaded(json_lines([{"text": f"{i}", "label": "ab"[i % 2]} for i in range(20)], tmp_path))
    assert data.spec.task.separator is None
    assert "separator" not in data.spec.to_dict()
    assert "separator" not in data.spec.task.to_dict()


@pytest.mark.parametrize("metric", ["f1", "accuracy_f1"])
def test_f1_is_of_the_positive_class(metric: str) -> None:
    """As scikit-learn's with ``pos_label``; accuracy is unaffected."""
    said, true = [0, 1, 0, 0, 1, 1, 0], [0, 0, 1, 0, 1, 0, 0]
    for positive in (0, 1):
        found = score(metric, said, true, positive=positive)
        assert found.parts["f1"] == pytest.approx(f1_score(true, said, pos_label=positive))
        assert found.parts.get("accuracy", 4 / 7) == pytest.approx(4 / 7)
        on_board = scores.score(metric, scores.evidence(metric, said, true, positive=positive))
        assert on_board.value == pytest.approx(found.value)


def test_a_bundle_without_a_positive_class_uses_the_second() -> None:
    """Bundles of older versions have no such key."""
    task = Task("t", "classification", ("fraud", "legit"), "f1", ("text",), "label")
    new = ("positive", "label_separator", "decimal_comma")
    older = Task.from_dict({key: value for key, value in task.to_dict().items() if key not in new})
    assert (older, older.positive_id) == (task, 1)


def test_the_positive_class_is_part_of_a_study(tmp_path: Path, tiny_bert: Path) -> None:
    """It is recorded with the job; a study that does not record it uses the second class."""
    path = table("text,label", "a number{i},fraud", "b number{i},legit", "c number{i},legit", folder=tmp_path)
    own = own_data(None, {"train": path, "metric": "f1"})
    assert own is not None
    options = SearchSpec(task=own.name, own=own.to_dict(), device="jetson-nano", model=str(tiny_bert))
    store = Store(tmp_path / ".farsearch")
    job = resolve_job(options, store, lambda _: None, "s")
    assert (job.settings.job.positive, job.data.spec.positive) == ("fraud", "fraud")

    older = dataclasses.replace(job.settings, job=dataclasses.replace(job.settings.job, positive=None))
    store.open("s", older, job.meta)
    told: list[str] = []
    again = resolve_job(options, store, told.append, "s")
    assert (again.settings, again.data.spec.positive) == (older, None)
    assert again.data.spec.task.positive_id == 1
    assert "the study 's' is an older one: its F1 is that of class 'legit'" in told
    named = dataclasses.replace(options, own={**own.to_dict(), "positive": "fraud"})
    assert resolve_job(named, store, lambda _: None, "s").settings != older
