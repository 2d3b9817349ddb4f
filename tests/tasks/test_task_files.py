"""Files of examples: both GLUE layouts, and each way in which a row can break them."""

from __future__ import annotations

from pathlib import Path

import pytest

from farsearch.errors import DataError, MissingResource
from farsearch.tasks import Examples, get_task
from farsearch.tasks.load import load_task, read_examples

SST2 = 'sentence\tlabel\na "quoted film \t1\nit\'s "" dull\t0\n'
COLA = 'gj04\t1\t\tHe said "no.\nbc01\t0\t*\tHim "left" early.\n'


def write(folder: Path, train: str | bytes, dev: str | bytes) -> Path:
    """A task folder with these two files."""
    folder.mkdir(parents=True)
    for name, content in (("train.tsv", train), ("dev.tsv", dev)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_sst2_layout_keeps_quotes_and_spaces(tmp_path: Path) -> None:
    """Quotes are text, also unbalanced ones, and a text keeps its spaces, as on the hub."""
    data = load_task("sst2", write(tmp_path / "mine", SST2, SST2))
    assert data.train == Examples(('a "quoted film ', 'it\'s "" dull'), (1, 0))
    assert data.source == "files in mine"


def test_cola_layout_has_four_columns_and_no_header(tmp_path: Path) -> None:
    """The sentence is the fourth column of CoLA, its label the second, and the first line is a row."""
    data = load_task("cola", write(tmp_path / "CoLA", COLA, COLA))
    assert data.dev == Examples(('He said "no.', 'Him "left" early.'), (1, 0))


@pytest.mark.parametrize("name", ["sst2", "cola"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last_end", [True, False])
def test_encoding_and_line_ends_do_not_matter(tmp_path: Path, name: str, bom: bytes, end: str, last_end: bool) -> None:
    """A byte order mark, CRLF and a missing last line end give the same rows, so the same fingerprint."""
    plain = {"sst2": SST2, "cola": COLA}[name]
    varied = bom + (plain if last_end else plain[:-1]).replace("\n", end).encode()
    reference = load_task(name, write(tmp_path / "plain", plain, plain))
    assert load_task(name, write(tmp_path / "varied", varied, varied)).fingerprint == reference.fingerprint


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    """Characters that Python's splitlines takes for line ends stay within their text."""
    text = "one\x0btwo\x85three\u2028four"
    data = load_task("sst2", write(tmp_path / "x", f"sentence\tlabel\n{text}\t1\nb\t0\n", SST2))
    assert data.train.texts[0] == text


@pytest.mark.parametrize(
    ("name", "train", "message"),
    [
        ("sst2", "a film\t1\n", "train.tsv line 1: the header is 'a film\\t1'"),
        ("sst2", "", "train.tsv line 1: the header is nothing"),
        ("sst2", "sentence\tlabel\n", "train.tsv has no rows"),
        ("sst2", "sentence\tlabel\na\t1\nb\n", "train.tsv line 3: 'b' has 1 column; a row has 2"),
        ("sst2", "sentence\tlabel\na\tb\t1\n", "train.tsv line 2: 'a\\tb\\t1' has 3 columns; a row has 2"),
        ("sst2", "sentence\tlabel\na\t1\n\nb\t0\n", "train.tsv line 3: the line is empty"),
        ("sst2", "sentence\tlabel\na\t1\n \t0\n", "train.tsv line 3: the sentence is empty"),
        ("sst2", "sentence\tlabel\na\t2\n", "line 2: the label '2' is unknown; labels of sst2 are 0 (negative), 1 (po"),
        ("sst2", "sentence\tlabel\na\t-1\n", "line 2: the label '-1' is unknown"),
        ("sst2", "sentence\tlabel\na\t²\n", "line 2: the label '²' is unknown"),
        ("sst2", "sentence\tlabel\na\tgood\n", "line 2: the label 'good' is unknown"),
        ("sst2", "sentence\tlabel\r\na\t1\r\nb\t\r\n", "line 3: the label '' is unknown"),
        ("sst2", b"sentence\tlabel\na\t1\nb\xe9\t0\n", "train.tsv line 3: byte 0xe9 is not UTF-8"),
        ("sst2", "sentence\tlabel\na\t1\nb\t1\n", "train.tsv has no row of class 'negative'"),
        ("sst2", COLA, "train.tsv line 1: the header is 'gj04"),
        ("cola", "gj04\t1\t\ta\ngj04\t1\ta\n", "train.tsv line 2: 'gj04\\t1\\ta' has 3 columns; a row has 4"),
        ("cola", "gj04\t1\t\ta\ngj04\tyes\t\tb\n", "line 2: the label 'yes' is unknown"),
        ("cola", "gj04\t1\t\t\n", "train.tsv line 1: the sentence is empty"),
        ("cola", SST2, "train.tsv line 1: 'sentence\\tlabel' has 2 columns; a row has 4"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, name: str, train: str | bytes, message: str) -> None:
    """Each break of the format gives one line with the file's name, the line's number and what is wrong."""
    good = {"sst2": SST2, "cola": COLA}[name]
    folder = write(tmp_path / "mine", train, good)
    with pytest.raises(DataError) as caught:
        load_task(name, folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_malformed_row_of_the_development_file_is_named(tmp_path: Path) -> None:
    """The message tells which of the two files it means."""
    with pytest.raises(DataError, match=r"^dev\.tsv line 2: the label '7'"):
        load_task("sst2", write(tmp_path / "mine", SST2, "sentence\tlabel\na\t7\n"))


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    """A message stays one readable line whatever the file holds."""
    with pytest.raises(DataError) as caught:
        load_task("sst2", write(tmp_path / "mine", "word " * 10_000, SST2))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["sst2", "cola"])
def test_a_user_file_may_have_the_header_and_label_names(tmp_path: Path, name: str) -> None:
    """One file of the user's takes ``sentence<TAB>label`` for every task, with class ids or names of classes."""
    spec = get_task(name)
    path = tmp_path / "mine.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + f"sentence\tlabel\r\nx\t{spec.labels[1]}\r\ny\t0\r\n".encode())
    assert read_examples(path, spec) == Examples(("x", "y"), (1, 0))


def test_a_user_file_may_have_the_layout_of_its_task(tmp_path: Path) -> None:
    """A CoLA file is read as such where it has no header."""
    path = tmp_path / "mine.tsv"
    path.write_text(COLA, encoding="utf-8")
    assert read_examples(path, get_task("cola")).labels == (1, 0)


def test_labels_of_another_task_are_refused(tmp_path: Path) -> None:
    """A label that the task does not know is named with its line and the known ones."""
    path = tmp_path / "mine.tsv"
    path.write_text("sentence\tlabel\nx\tpositive\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"mine\.tsv line 2: the label 'positive'.*0 \(unacceptable\), 1 \(acceptable\)"
    ):
        read_examples(path, get_task("cola"))


def test_a_user_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, and a folder in its place, give one line with the path."""
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(MissingResource, match=path.name):
            read_examples(path, get_task("sst2"))
