"""Custom data: schema inference, rejected files, and error messages."""

from __future__ import annotations

import gzip
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farsearch.errors import BadInput, DataError, MissingResource, StudyMismatch
from farsearch.resolve import rejoin_job, resolve_job
from farsearch.search_spec import SearchSpec
from farsearch.study.store import Store
from farsearch.tasks import TaskData
from farsearch.tasks.custom import load_own
from farsearch.tasks.description import OwnData, find_own, own_data, own_from_toml
from farsearch.tasks.spec import study_task
from tests.journey import call

ROWS = [(f"text{i} number{i}", ("bad", "good", "good")[i % 3]) for i in range(30)]
GOOD = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
SQUAD = {"question": "what?", "context": "a long answer", "answer": "long"}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a file with this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def loaded(path: Path, told: list[str] | None = None, **given: Any) -> TaskData:
    """Load the task that these options describe."""
    own = own_data(None, {"train": path, **given})
    assert own is not None
    return load_own(own, (told if told is not None else []).append)


def lines(*rows: dict[str, Any]) -> str:
    """Write JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(*cells: str, header: str = "text,label") -> str:
    """Write a CSV file of thirty texts, cycling through these labels."""
    return header + "\n" + "".join(f"text{i} number{i},{cells[i % len(cells)]}\n" for i in range(30))


def test_labels_are_inferred_and_sorted(tmp_path: Path) -> None:
    """Names sort alphabetically, numbers by value, also where they do not begin at 0."""
    assert loaded(written(tmp_path, "a.csv", GOOD)).spec.labels == ("bad", "good")
    assert loaded(written(tmp_path, "b.csv", table("10", "9", "2"))).spec.labels == ("2", "9", "10")
    assert loaded(written(tmp_path, "c.csv", table("B", "a", "é"))).spec.labels == ("B", "a", "é")


def test_ids_keep_their_order(tmp_path: Path) -> None:
    """Labels 0 to k - 1 are the class ids."""
    data = loaded(written(tmp_path, "a.csv", "text,label\n" + "".join(f"t{i} n{i},{i % 11}\n" for i in range(110))))
    assert data.spec.labels == tuple(map(str, range(11)))
    assert {text[0]: answer for text, answer in zip(data.train.texts, data.train.answers, strict=True)} == {
        f"t{i} n{i}": i % 11 for i in range(110) if (f"t{i} n{i}",) in data.train.texts
    }


@pytest.mark.parametrize(
    ("name", "content", "kind", "metric", "labels"),
    [
        ("a.csv", GOOD, "classification", "accuracy", ("bad", "good")),
        ("a.tsv", GOOD.replace(",", "\t"), "classification", "accuracy", ("bad", "good")),
        ("a.csv", table("1", "2.5"), "regression", "pearson_spearman", ()),
        ("a.csv", table("a|b", "b"), "multi-label", "micro_f1", ("a", "b")),
        ("a.jsonl", lines(*({"text": t, "labels": [i % 2] * (i % 3 > 0)} for i, (t, _) in enumerate(ROWS))),
         "multi-label", "micro_f1", ("0", "1")),
        ("a.csv", table("O B-X", "B-A I-A"), "token-classification", "entity_f1", ("O", "B-A", "I-A", "B-X")),
        ("a.jsonl", lines(*({"tokens": t.split(), "tags": ["O", "B-Y" if i % 2 else "O"]}
                            for i, (t, _) in enumerate(ROWS))), "token-classification", "entity_f1", ("O", "B-Y")),
        ("a.jsonl", lines(*({**SQUAD, "context": f"{i} a long answer"} for i in range(30)),
                          {**SQUAD, "context": "nothing", "answer": ""}), "question-answering", "squad", ()),
    ],
)  # fmt: skip
def test_the_task_kind_is_inferred(
    tmp_path: Path, name: str, content: str, kind: str, metric: str, labels: tuple[str, ...]
) -> None:
    """From the labels, with the default metric of the kind and columns by common names."""
    spec = loaded(written(tmp_path, name, content)).spec
    assert (spec.kind, spec.metric, spec.labels) == (kind, metric, labels)


def test_squad_json_is_read(tmp_path: Path) -> None:
    """A ``.json`` file is question answering; unanswerable questions are detected."""
    articles = [
        {"paragraphs": [{"context": f"{i} a long answer", "qas": [
            {"question": "what?", "answers": [{"text": "long", "answer_start": f"{i} a long".index("long")}]},
            {"question": "who?", "answers": [], "is_impossible": True}]}]}
        for i in range(30)
    ]  # fmt: skip
    data = loaded(written(tmp_path, "a.json", json.dumps({"data": articles})))
    assert data.spec.unanswerable
    assert data.train.texts[0][0] == "what?"
    assert not {context for _, context in data.train.texts} & {context for _, context in data.dev.texts}


def test_pairs_have_two_columns(tmp_path: Path) -> None:
    """``--text-column`` is given twice; order matters."""
    path = written(tmp_path, "a.csv", "x,y,z\n" + "".join(f"{i % 2},one{i} a,two{i} b\n" for i in range(30)))
    data = loaded(path, text_columns=("z", "y"), label_column="x")
    assert data.train.texts[0] == ("two0 b", "one0 a")


def test_parquet_is_read_like_the_same_json_lines(tmp_path: Path) -> None:
    """Lists, numbers and texts of a Parquet file give the same task and the same rows."""
    rows = [{"tokens": t.split(), "ner_tags": ["O", "B-Y" if i % 2 else "O"]} for i, (t, _) in enumerate(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    parquet, json_lines = loaded(tmp_path / "a.parquet"), loaded(written(tmp_path, "a.jsonl", lines(*rows)))
    assert parquet.spec.to_dict() == {**json_lines.spec.to_dict(), "title": "rows of a.parquet"}
    assert parquet.fingerprint == json_lines.fingerprint


def test_parquet_errors_give_the_row_number(tmp_path: Path) -> None:
    """Parquet files have no lines."""
    pq.write_table(pa.table({"text": ["a", "b", None], "label": [1, 0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"^a\.parquet row 3: the text is missing"):
        loaded(tmp_path / "a.parquet")


def test_a_fifth_is_held_out_for_validation(tmp_path: Path) -> None:
    """The split is stratified and deterministic, preserves file order, and is reported."""
    told: list[str] = []
    path = written(tmp_path, "a.csv", GOOD)
    data = loaded(path, told)
    assert (len(data.train), len(data.dev)) == (24, 6)
    assert sorted(data.dev.answers) == [0, 0, 1, 1, 1, 1]
    assert [text for (text,) in data.train.texts] == [t for t, _ in ROWS if (t,) in data.train.texts]
    assert loaded(path).fingerprint == data.fingerprint
    assert told[0] == "no --dev: 6 of 30 rows are held out for development"


def test_a_development_file_is_used_whole(tmp_path: Path) -> None:
    """No training row is held out; texts in both files are reported."""
    told: list[str] = []
    dev = written(tmp_path, "b.csv", "label,text\ngood,new one\ngood,text1 number1\n")
    data = loaded(written(tmp_path, "a.csv", GOOD), told, dev=dev)
    assert (len(data.train), data.dev.answers) == (30, (1, 1))
    assert told[0] == "1 text of b.csv is trained on too: its figures will be too good"


def test_labels_unknown_to_training_are_refused(tmp_path: Path) -> None:
    """The error lists the known labels; a class id is not accepted for a name."""
    for label in ("fine", "0"):
        dev = written(tmp_path, "b.csv", f"text,label\nx,good\ny,{label}\n")
        with pytest.raises(DataError, match=rf"^b\.csv line 3: the label '{label}' is unknown: no training row has it"):
            loaded(written(tmp_path, "a.csv", GOOD), dev=dev)


def test_skipped_bad_rows_are_counted(tmp_path: Path) -> None:
    """With ``--skip-bad-rows`` they are left out, and the first three are shown."""
    told: list[str] = []
    bad = 'x\n,good\nempty,\n\nq"q,good\n'
    data = loaded(written(tmp_path, "a.csv", GOOD + bad), told, skip_bad_rows=True)
    assert data.fingerprint == loaded(written(tmp_path, "b.csv", GOOD)).fingerprint
    assert told[0] == "5 rows of a.csv left out (--skip-bad-rows), as:"
    assert len([line for line in told if line.startswith("  a.csv line ")]) == 3


def test_a_toml_file_specifies_the_task(tmp_path: Path) -> None:
    """Paths are relative to its folder, options override it, and the record survives a JSON round trip."""
    (tmp_path / "data").mkdir()
    written(tmp_path / "data", "rows.csv", table("0", "1"))
    path = written(
        tmp_path,
        "mails.toml",
        'train = "data/rows.csv"\nlabels = ["ham", "spam"]\nmetric = "macro_f1"\nlicence = "mine"\ntitle = "Mails"\n',
    )
    own = own_from_toml(path)
    assert own.train == str((tmp_path / "data" / "rows.csv").resolve())
    assert OwnData.from_dict(json.loads(json.dumps(own.to_dict()))) == own
    found = find_own(str(path), {})
    assert found == own
    spec = load_own(own, print).spec
    assert (spec.name, spec.title, spec.labels, spec.metric) == ("mails", "Mails", ("ham", "spam"), "macro_f1")
    other = own_data(str(path), {"metric": "f1", "train": None, "text_columns": (), "skip_bad_rows": False})
    assert other is not None
    assert (other.metric, other.train) == ("f1", own.train)


def test_data_files_may_move_on_another_host(tmp_path: Path) -> None:
    """``--data-dir`` with files of the same names replaces the recorded paths."""
    written(tmp_path, "a.csv", GOOD)
    moved = load_own(OwnData("mine", "/gone/a.csv"), lambda _: None, tmp_path)
    assert moved.fingerprint == loaded(tmp_path / "a.csv").fingerprint


def test_texts_and_labels_in_two_files_need_a_label_for_each(tmp_path: Path) -> None:
    """Labels match by line, in both parts, and may be in another folder."""
    for part in ("train", "dev"):
        written(tmp_path, f"{part}.txt", "".join(f"{part} {text}\n" for text, _ in ROWS))
        written(tmp_path, f"{part}.labels", "".join(f"{label}\n" for _, label in ROWS))
    own = OwnData(
        "mine", "/gone/train.txt", "/gone/dev.txt", train_labels="/x/train.labels", dev_labels="/x/dev.labels"
    )
    data = load_own(own, lambda _: None, tmp_path)
    assert (len(data.train), data.dev.texts[0]) == (30, ("dev text0 number0",))
    written(tmp_path, "dev.labels", "good\nbad\n")
    with pytest.raises(DataError, match=r"^dev\.txt has 30 lines and dev\.labels 2; each text needs its label"):
        load_own(own, lambda _: None, tmp_path)


def test_an_unrecognised_folder_is_refused(tmp_path: Path) -> None:
    """A folder of other files is an error; a class may be called train."""
    (tmp_path / "mails" / "more").mkdir(parents=True)
    written(tmp_path / "mails", "a.csv", GOOD)
    with pytest.raises(MissingResource, match=r"is a folder, and not of Dataset\.save_to_disk .* name the file in it"):
        loaded(tmp_path / "mails")
    for kind in ("train", "bus"):
        (tmp_path / "vehicles" / kind).mkdir(parents=True)
        for i in range(10):
            written(tmp_path / "vehicles" / kind, f"{i}.txt", f"a {kind} of number {i}")
    assert loaded(tmp_path / "vehicles").spec.labels == ("bus", "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trian = 'a.csv'\ntrain = 'a.csv'", "has the unknown key 'trian'; known are name, train"),
        ("name = 'x'", "lacks the key 'train'"),
        ("train = 5", "train is 5; it must be of type str"),
        ("train = 'a.csv'\nkind = 'ner'", "kind is 'ner'; it must be one of 'classification'"),
        ("train = 'a.csv'\nmetric = 'acuracy'", "the metric 'acuracy' is unknown.*did you mean 'accuracy'"),
        ("train = 'a.csv'\nkind = 'regression'\nmetric = 'f1'", "'f1' is not for regression; choose one of pearson,"),
        ("train = 'a.csv'\nlabels = ['a', 'a']", "must be different names"),
        ("train = 'a.csv'\ntext_columns = []", "text_columns is empty"),
        ("train = 'a.csv'\ntext_columns = ['a', 'b', 'c']", "3 text columns are too many"),
        ("train = 'a.csv'\ntext_columns = ['a']\nlabel_column = 'a'", "'a' is named twice"),
        ("train = 'a.csv'\nname = 'sst2'", "'sst2' is that of an official task"),
        ("train = a.csv", "is not TOML"),
        ("train = ''", "train is empty; name a file"),
        ('train = "a\\u0000b"', "can't be the name of a file: embedded null"),
        ("train = 'a.csv'\nname = '../x'", "'../x' of the task is not usable; give one of at most 100 characters"),
        ('train = "a.csv"\nname = "a\\nb"', r"'a\\nb' of the task is not usable"),
        ("train = 'a.csv'\nlabels = ['a', 'b ']", "the label 'b ' has spaces around it"),
        ("train = 'a.csv'\nseparator = ':'", "separator is ':'; it must be one of 'comma', 'tab', 'semicolon', 'pipe'"),
        ("train = 'a.csv'\ncolumns = ['a']", r"the columns a must be different names, at least two"),
        ("train = 'a.csv'\ncolumns = ['a', 'b']\nlabel_column = 'c'", "there is no column 'c' among a, b"),
        ("train = 'a.csv'\nlabel_columns = ['a']", "label_columns are two or more, of 0 and 1"),
        ("train = 'a.csv'\nlabel_columns = ['a', 'b']\nkind = 'regression'", "are for multi-label, and the kind is"),
        ("train = 'a.csv'\nlabel_columns = ['a', 'b']\nlabels = ['x']", "labels are named by label_columns already"),
        ("train = 'a.csv'\ndev_labels = 'b.txt'", "dev_labels needs dev and train_labels; add them"),
        ("train = 'a.csv'\ntrain_labels = 'b.txt'\ndev = 'c.csv'", "train_labels needs dev_labels beside dev; add it"),
        ("train = 'a.csv'\nfile = 'x'", "the key 'file' stands for the file itself"),
    ],
)
def test_invalid_toml_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    """Unknown keys, wrong types and conflicting values give one line with the file's name."""
    with pytest.raises(BadInput, match=rf"^my\.toml.*{message}"):
        own_from_toml(written(tmp_path, "my.toml", content))


def test_conflicting_options_are_refused() -> None:
    """An official task has its own data; a custom task needs a file."""
    with pytest.raises(BadInput, match="--train is for your own data, and --task sst2 is not"):
        own_data("sst2", {"train": Path("a.csv")})
    with pytest.raises(BadInput, match="there is no task; add --task NAME, or --train FILE"):
        own_data(None, {"metric": "f1"})
    assert own_data("sst2", {"train": None, "text_columns": (), "skip_bad_rows": False}) is None


def test_unreadable_files_exit_with_5(tmp_path: Path) -> None:
    """A missing file and a folder are missing inputs, as in every other command."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(MissingResource, match=path.name):
            loaded(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_irregular_files_are_refused_without_blocking(tmp_path: Path) -> None:
    """A pipe without a writer, circular links and an invalid file name exit with 5 immediately."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    long = "x" * 300 + ".csv"
    for name, said in (("pipe.csv", "is a pipe or a device"), ("circle.csv", "can't be read"), (long, "too long")):
        done = call(tmp_path, "run", "--device", "jetson-nano", "--train", name, "--dry-run")
        assert (done.code, done.err.count("\n")) == (5, 1), done.err
        assert said in done.err


def test_options_that_contradict_the_data_are_refused(tmp_path: Path) -> None:
    """A binary metric for three classes, labels of numbers, columns of a fixed format."""
    three = written(tmp_path, "three.csv", table("a", "b", "c"))
    for metric in ("f1", "accuracy_f1"):
        with pytest.raises(
            DataError, match=f"the metric '{metric}' is of two classes, and there are 3; choose macro_f1"
        ):
            loaded(three, metric=metric)
        assert loaded(written(tmp_path, "two.csv", GOOD), metric=metric).spec.metric == metric
    with pytest.raises(DataError, match="labels are names of classes, and the kind is regression; leave them out"):
        loaded(written(tmp_path, "numbers.csv", table("1", "2.5")), labels=("a", "b"))
    with pytest.raises(DataError, match=r"squad.json is SQuAD's JSON, whose columns are question, context and answers"):
        loaded(written(tmp_path, "squad.json", '{"data": [{"paragraphs": []}]}'), label_column="other")


def test_answer_positions_are_optional(tmp_path: Path) -> None:
    """Also for answers as objects: without a start, the first occurrence in the context is used."""
    rows = ({"question": "who?", "context": f"{i} then Ann came", "answers": {"text": "Ann"}} for i in range(30))
    data = loaded(written(tmp_path, "a.jsonl", lines(*rows)))
    assert data.train.answers[0] == (("Ann", data.train.texts[0][1].index("Ann")),)


def test_decimals_of_parquet_are_numbers(tmp_path: Path) -> None:
    """For instance prices exported from a database."""
    prices = pa.array([Decimal(i) / 4 for i in range(30)], pa.decimal128(10, 2))
    pq.write_table(pa.table({"text": [text for text, _ in ROWS], "label": prices}), tmp_path / "a.parquet")
    assert loaded(tmp_path / "a.parquet").spec.kind == "regression"


def test_an_invalid_study_name_is_reported_before_reading_data(tmp_path: Path) -> None:
    done = call(tmp_path, "run", "--device", "jetson-nano", "--train", "none.csv", "--study", "a/b")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the study name 'a/b' is not usable" in done.err


def test_splitting_a_text_of_one_repeated_word_is_fast(tmp_path: Path) -> None:
    """The containment search stops at the end of a text: 300,000 words take as long as any others."""
    rows = "".join(f"{text},{label}\n" for text, label in ROWS)
    data = loaded(written(tmp_path, "a.csv", f"text,label\n{rows}{'w ' * 300_000},bad\n"))
    assert len(data.train) + len(data.dev) == 31


HEAD = "text,label\na b,x\n"
PACKED = gzip.compress(HEAD.encode(), mtime=0)
JSON_HEAD = '{"text": "a b", "label": "x"}\n'
MALFORMED: list[tuple[str, str | bytes, str, str]] = [
    ("a.csv", "", "a.csv line 1: the file is empty", "give it a header"),
    ("a.csv", " \n\n", "a.csv line 1: the file is empty", "give it a header"),
    ("a.jsonl", "", "a.jsonl line 1: the file is empty", "give it rows"),
    ("a.csv", HEAD + "b c,x \n", "a.csv line 3: the label 'x ' has spaces around it", "remove them"),
    ("a.csv", HEAD + "b c,e\u0301\n", "a.csv line 3: the label 'e\u0301' is not in Unicode's composed form", "use NFC"),
    ("a.csv", HEAD + "b c,x\u200b\n", "a.csv line 3: the label 'x\\u200b' holds a character that", "(U+200B); remove"),
    ("a.jsonl", JSON_HEAD + '{"text": "b c", "label": "x\\ny"}\n', "a.jsonl line 2: the label 'x\\ny' holds", "remove"),
    ("a.jsonl", JSON_HEAD + '{"text": "b c", "label": "\\ud800"}\n', "a.jsonl line 2: the label", "(U+D800); remove"),
    ("a.jsonl", JSON_HEAD * 20 + '{"text": "b", "label": {"a": 1}}\n', "a.jsonl line 21: the label {'a'", "same way"),
    ("a.csv", table("1.5", "2") + "a b,1e300\n", "a.csv line 32: the label '1e300' is not from -3e38 to", "scale"),
    ("a.json", "[" * 100_000, "a.json line 1: it is no JSON of rows: it is nested too deep", "correct it"),
    ("a.csv", "text,label\n", "a.csv has no rows", "give it at least"),
    ("a.csv", "txt,label\na,b\n", "a.csv line 1: there is no column 'text' among txt, label (did you", "--text-column"),
    ("a.csv", "text,lable\na,b\n", "a.csv line 1: there is no column 'label'", "(did you mean 'lable'?); name one"),
    ("a.csv", "a, text;label\na, a;b\n", "a.csv line 1: commas and semicolons divide its first rows", "--separator c"),
    ("a.csv", "nice one,1\nbad one,0\n", "a.csv line 1: 'nice one, 1' is a row and no", "--columns text,label"),
    ("a.txt", "a film\nit\n", "a.txt line 1: 'a film' is one column: there are no commas, tabs", "--train-labels"),
    ("a.csv", "tokens,tags\na b,PER X\nc,X\n", "a.csv line 2: the tag 'PER' is unknown", "(IOB2)"),
    ("a.tsv", "7\tx\tgood\ta b c\n8\tx\tbad\td e f\n9\tx\tbad\tg h i\n", "a.tsv line 1: '7, x, good, a b c' is a row",
     "--columns column1,column2,label,text"),
    ("a.csv", "1,1,a fine film\n", "a.csv line 1: the header has '1' twice", "--columns label,column2,text"),
    ("a.csv", "text,label,text\na,b,c\n", "a.csv line 1: the header has 'text' twice", "name each column once"),
    ("a.csv", 'text,"label\na,b\n', "a.csv line 1: the header can't be read: a quote is opened", "close it"),
    ("a.csv", b"text,label\xff\na,b\n", "a.csv line 1: the header can't be read: byte 0xff", "UTF-8"),
    ("a.csv", HEAD.encode("utf-16"), "a.csv line 1: the file is UTF-16", "save it as UTF-8"),
    ("a.csv", HEAD.replace("\n", "\r"), "a.csv line 1: its lines end in CR alone", "save it with LF"),
    ("a.csv", HEAD.encode() + b"caf\xe9,x\n", "a.csv line 3: byte 0xe9 is not UTF-8", "save the file as UTF-8"),
    ("a.csv", HEAD + "a\0b,x\n", "a.csv line 3: there is a NUL byte", "remove it"),
    ("a.csv", HEAD + "\nb,y\n", "a.csv line 3: the line is empty", "remove it"),
    ("a.csv", HEAD + "b\n", "a.csv line 3: 'b' has 1 column; a row has 2", "add what is missing"),
    ("a.csv", HEAD + "b,c,y\n", "a.csv line 3: 'b,c,y' has 3 columns", "put a text with commas in quotes"),
    ("a.csv", HEAD + 'b "c" d,y\n', "a.csv line 3: a quote is within a cell", "double those within"),
    ("a.csv", HEAD + '"b" c,y\n', "a.csv line 3: a quote is within a cell", "put the whole cell in quotes"),
    ("a.csv", HEAD + '"b,y\nc,x\n', "a.csv line 3: a quote is opened and not closed", "close it"),
    ("a.csv", HEAD + '"b\nc",y\nd\n', "a.csv line 5: 'd' has 1 column", "add what is missing"),
    ("a.csv", HEAD + ",y\n", "a.csv line 3: the text is empty", "add it, or remove the line"),
    ("a.csv", HEAD + '"  ",y\n', "a.csv line 3: the text is empty", "add it, or remove the line"),
    ("a.csv", HEAD + "b,\n", "a.csv line 3: the label is empty", "add it, or remove the row"),
    ("a.csv", HEAD + "x" * 1_000_001 + ",y\n", "a.csv line 3: the text has 1,000,001 characters", "cut it"),
    ("a.csv", GOOD.replace("good", "1").replace("bad", "0") + "b,nan\n", "a.csv line 32: the label 'nan'", "add the"),
    ("a.csv", table("1.5", "2") + "b,x\n", "a.csv line 32: the label 'x' is no finite number", "write it as 3.5"),
    ("a.csv", table("1.5", "2") + "b,inf\n", "a.csv line 32: the label 'inf' is no finite number", "write it as 3.5"),
    ("a.csv", GOOD + "x,rare\n", "a.csv: class 'rare' has 1 row; it needs 3", "add rows of it"),
    ("a.csv", table("good"), "a.csv: all 30 rows are of class 'good'", "give rows of at least 2"),
    ("a.csv", "text,label\n" + "".join(f"t{i},{i}\n" for i in range(30)), "a.csv: 30 different labels", "--kind"),
    ("a.csv", table("B-X O", "O B-X") + "b,O O\n", "a.csv line 32: 2 tags for 1 words", "give each word one"),
    ("a.csv", table("B-X O", "O B-X") + "b c,O NOUN\n", "a.csv line 32: the tag 'NOUN' is unknown", "(IOB2)"),
    ("a.csv", table("O O"), "a.csv: label is the same in all 30 rows", "add rows with other values"),
    ("a.csv", table("a|b", "b") + "x,a|a\n", "a.csv line 32: the label 'a' is repeated", "name each once"),
    ("a.tsv", "text\tlabel\na\tx\nb y\n", "a.tsv line 3: 'b y' has 1 column", "make tabs within the text spaces"),
    ("a.tsv", "text\tlabel\na\tx\nb\tc\ty\n", "a.tsv line 3: 'b\\tc\\ty' has 3 columns", "make tabs"),
    ("a.jsonl", "version https://git-lfs.github.com/spec/v1\n", "a.jsonl line 1: the file is a Git LFS", "lfs pull"),
    ("a.csv", PACKED, "a.csv line 1: the file is packed by gzip", "rename it to a.csv.gz"),
    ("a.csv.gz", PACKED[:20], "a.csv.gz line 1: it can't be unpacked by gzip", "copy it again"),
    ("a.csv", b"PK\3\4", "a.csv line 1: the file is a zip archive", "save it as CSV"),
    ("a.csv", HEAD.encode("utf-16-le"), "a.csv line 1: the file is UTF-16", "iconv -f UTF-16LE -t UTF-8 a.csv > utf8-"),
    ("a.conll", "Ann B-PER\nleft\n", "a.conll line 1: line 2, 'left', has 1 column", "a line has 2, with spaces"),
    ("a.jsonl", JSON_HEAD + "{\n", "a.jsonl line 2: '{' is not JSON: Expecting property name", "each line is one"),
    ("a.jsonl", JSON_HEAD + "[1]\n", "a.jsonl line 2: '[1]' is no object", "each line is one"),
    ("a.jsonl", JSON_HEAD + "[" * 5000 + "\n", "a.jsonl line 2: '[[[", "each line is one"),
    ("a.jsonl", JSON_HEAD + "\n" + JSON_HEAD, "a.jsonl line 2: the line is empty", "remove it"),
    ("a.jsonl", JSON_HEAD + '{"text": "b"}\n', "a.jsonl line 2: there is no column 'label' among text", "add it"),
    ("a.jsonl", JSON_HEAD + '{"text": 5, "label": "x"}\n', "a.jsonl line 2: the text is 5", "must be a text"),
    ("a.jsonl", JSON_HEAD + '{"text": "b", "label": null}\n', "a.jsonl line 2: the label is missing", "add it"),
    ("a.jsonl", JSON_HEAD + '{"text": "b", "label": 1}\n', "a.jsonl line 2: the label 1 is no text", "the same way"),
    ("a.jsonl", JSON_HEAD + '{"text": "b", "text": "c"}\n', "a.jsonl line 2: ", "the key 'text' is repeated"),
    ("a.jsonl", JSON_HEAD + '{"text": "\\ud800", "label": "y"}\n', "a.jsonl line 2: the text holds half", "remove"),
    ("a.jsonl", JSON_HEAD + '{"text": "b\\u0000", "label": "y"}\n', "a.jsonl line 2: the text holds a NUL", "remove"),
    ("a.jsonl", lines(SQUAD, {**SQUAD, "answer": "short"}), "a.jsonl line 2: the answer 'short' is", "part of it"),
    ("a.jsonl", lines({**SQUAD, "answer_start": 1}), "a.jsonl line 1: the context has ' lon' at", "correct answer_s"),
    ("a.json", "{", "a.json line 1: it is not JSON", "correct it there"),
    ("a.json", '{"text": "a b", "label": "x"}', "a.json line 1: rows are under none of its keys, text, label", "list"),
    ("a.json", "[[1]]", "a.json row 1: [1] is no object", "each row is one"),
    ("a.json", '{"data": []}', "a.json has no rows", "give it at least two"),
    ("a.json", '{"data": [{"paragraphs": []}]}', "a.json has no questions", "give it at least one"),
    ("a.xlsx", HEAD, "a.xlsx: the ending .xlsx", "save it as one of .tsv"),
    ("a", HEAD, "a: a name without ending", "save it as one of .tsv"),
    ("a.parquet", HEAD, "a.parquet can't be read as Parquet", "save it again"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said", "fix"), MALFORMED)
def test_a_malformed_file_exits_with_2(tmp_path: Path, name: str, content: str | bytes, said: str, fix: str) -> None:
    """``run`` reports file, line, reason and fix in one line, before it resolves a model."""
    written(tmp_path, name, content)
    done = call(tmp_path, "run", "--device", "jetson-nano", "--train", name, "--dry-run")
    assert done.code == 2
    assert done.err.startswith(f"farsearch: {said}"), done.err
    assert fix in done.err
    assert done.err.count("\n") == 1


def test_another_host_joins_a_study_of_custom_data(tmp_path: Path, tiny_bert: Path) -> None:
    """The study's JSON record defines the same job, with the files in another folder."""
    for folder in ("first", "other"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder, "pairs.csv", table("0.5", "2", "1.25"))
    own = own_data(None, {"train": tmp_path / "first" / "pairs.csv"})
    assert own is not None
    options = SearchSpec(task=own.name, own=own.to_dict(), device="jetson-nano", model=str(tiny_bert))
    job = resolve_job(options, Store(tmp_path / ".farsearch"), lambda _: None)
    meta = json.loads(json.dumps(dict(job.meta)))
    assert study_task(meta, "pairs") == job.data.spec
    (tmp_path / "first" / "pairs.csv").unlink()
    again = rejoin_job("a study", job.settings, meta, Store(tmp_path / ".farsearch"), lambda _: None,
                       data_dir=tmp_path / "other")  # fmt: skip
    assert again.settings == job.settings
    assert again.split == job.split


def test_tasks_show_prints_a_complete_run_command(tmp_path: Path) -> None:
    """For files without a header, the command includes every option that was specified."""
    for name in ("a.csv", "b.csv"):
        written(tmp_path, name, "".join(f"{name} {text},{label}\n" for text, label in ROWS))
    shown = call(tmp_path, "tasks", "show", "a.csv", "--dev", "b.csv", "--columns", "text,label")
    assert shown.out.endswith("--device jetson-nano --train a.csv --dev b.csv --columns text,label\n"), shown.err


def test_changed_rows_are_reported(tmp_path: Path, tiny_bert: Path) -> None:
    """The error for an existing study names the changed file and how to make a new study."""
    store = Store(tmp_path / ".farsearch")
    dev = written(tmp_path, "later.csv", table("good", "bad", "bad"))

    def resolved(content: str) -> Any:
        own = own_data(None, {"train": written(tmp_path, "mails.csv", content), "dev": dev})
        assert own is not None
        options = SearchSpec(task=own.name, own=own.to_dict(), device="jetson-nano", model=str(tiny_bert))
        return resolve_job(options, store, lambda _: None)

    job = resolved(GOOD)
    store.open("mine", job.settings, job.meta)
    again = resolved(GOOD)
    store.check("mine", again.settings, again.meta)
    changed = resolved(GOOD + "one more text,good\n")
    with pytest.raises(StudyMismatch, match=r"the rows of mails\.csv have changed; .* another name: `study` mine-2$"):
        store.check("mine", changed.settings, changed.meta)


def test_any_file_name_gives_a_study_name(tmp_path: Path, tiny_bert: Path) -> None:
    """Also one without any character that is valid in a folder name."""
    own = own_data(None, {"train": written(tmp_path, "отзывы.csv", GOOD)})
    assert own is not None
    options = SearchSpec(task=own.name, own=own.to_dict(), device="jetson-nano", model=str(tiny_bert))
    job = resolve_job(options, Store(tmp_path / ".farsearch"), lambda _: None)
    assert job.settings.job.task == "отзывы"
    Store(tmp_path / ".farsearch").check(job.default_name, job.settings)


def test_tasks_show_accepts_a_toml_file(tmp_path: Path) -> None:
    """The inferred schema is printed."""
    written(tmp_path, "mails.toml", 'train = "mails.csv"\ntext_columns = ["body"]\nlabel_column = "folder"\n')
    written(tmp_path, "mails.csv", table("bills", "friends", header="body,folder"))
    assert call(tmp_path, "tasks", "show", "mails.toml").out.endswith("--device jetson-nano --task mails.toml\n")
    shown = call(tmp_path, "tasks", "show", "mails.toml", "--json")
    assert shown.json["task"]["labels"] == ["bills", "friends"]
