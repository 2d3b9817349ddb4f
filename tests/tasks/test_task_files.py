"""Files of examples: the layout of every official task with its irregularities, and custom files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from farsearch.errors import DataError, MissingResource
from farsearch.tasks import Examples, get_task
from farsearch.tasks.load import load_task, read_examples
from tests.tasks.layouts import GLUE, NAMES, TABLES, examples_of, write_task

SST2 = 'sentence\tlabel\na "quoted film \t1\nit\'s "" dull\t0\n'
COLA = 'gj04\t1\t\tHe said "no.\nbc01\t0\t*\tHim "left" early.\n'


def write(folder: Path, train: str | bytes, dev: str | bytes) -> Path:
    """Write a task folder with these two files."""
    folder.mkdir(parents=True)
    for name, content in (("train.tsv", train), ("dev.tsv", dev)):
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_is_read(tmp_path: Path, name: str) -> None:
    """Texts in file order, class ids as on the hub, scores."""
    data = load_task(name, write_task(tmp_path, name))
    assert data.train == examples_of(name, "train", 48)
    assert data.dev == examples_of(name, "dev", 16)
    assert data.more_dev == ({"mismatched": examples_of(name, "mismatched", 16)} if name == "mnli" else {})


@pytest.mark.parametrize("name", NAMES)
def test_layout_texts_do_not_overlap(tmp_path: Path, name: str) -> None:
    """Validates the fixture: no text repeats or contains another, across all parts."""
    data = load_task(name, write_task(tmp_path, name))
    parts = (data.train, data.dev, *data.more_dev.values())
    texts = [text for part in parts for row in part.texts for text in row]
    assert len(set(texts)) == len(texts)
    assert not [(a, b) for a in texts for b in texts if a != b and a in b]


@pytest.mark.parametrize("name", GLUE)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last_end", [True, False])
def test_encoding_and_line_ends_do_not_matter(
    tmp_path: Path, name: str, bom: bytes, end: bytes, last_end: bool
) -> None:
    """A byte-order mark, CRLF and a missing final newline give the same rows and fingerprint."""
    folder = write_task(tmp_path, name, 9)
    reference = load_task(name, folder).fingerprint
    for path in folder.iterdir():
        plain = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
        path.write_bytes(bom + (plain if last_end else plain[:-1]).replace(b"\n", end))
    assert load_task(name, folder).fingerprint == reference


@pytest.mark.parametrize("name", ["squad", "squad_v2"])
def test_json_encoding_does_not_matter(tmp_path: Path, name: str) -> None:
    """The same for SQuAD, with non-ASCII escapes and newlines between its parts."""
    folder = write_task(tmp_path, name, 9)
    reference = load_task(name, folder).fingerprint
    for path in folder.iterdir():
        text = json.dumps(json.loads(path.read_bytes()), indent=1)
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_task(name, folder).fingerprint == reference


def test_sst2_layout_retains_quotes_and_spaces(tmp_path: Path) -> None:
    """Quotes are text, also unbalanced ones; spaces are preserved, as on the hub."""
    data = load_task("sst2", write(tmp_path / "mine", SST2, SST2))
    assert data.train == Examples((('a "quoted film ',), ('it\'s "" dull',)), (1, 0))
    assert data.source == "files in mine"


def test_cola_layout_has_four_columns_and_no_header(tmp_path: Path) -> None:
    """Column 2 is the label, column 4 the sentence, and the first line is a row."""
    data = load_task("cola", write(tmp_path / "CoLA", COLA, COLA))
    assert data.dev == Examples((('He said "no.',), ('Him "left" early.',)), (1, 0))


def test_missing_value_markers_are_text(tmp_path: Path) -> None:
    """``n/a``, ``null`` and ``None`` are ordinary sentences of MNLI."""
    folder = write_task(tmp_path, "mnli", 9)
    head, row, *rest = (folder / "train.tsv").read_text(encoding="utf-8").splitlines()
    cells = row.split("\t")
    odd = ["\t".join([*cells[:8], text, "NA", *cells[10:]]) for text in ("n/a", "null", "None", "nan")]
    (folder / "train.tsv").write_text("\n".join([head, *odd, *rest]) + "\n", encoding="utf-8")
    texts = load_task("mnli", folder).train.texts
    assert texts[:4] == (("n/a", "NA"), ("null", "NA"), ("None", "NA"), ("nan", "NA"))


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    """Other characters that ``str.splitlines`` splits at stay within their text."""
    text = "one\x0btwo\x85three\u2028four"
    data = load_task("sst2", write(tmp_path / "x", f"sentence\tlabel\n{text}\t1\nb\t0\n", SST2))
    assert data.train.texts[0] == (text,)


@pytest.mark.parametrize("name", [name for name in GLUE if name != "cola"])
def test_columns_are_matched_by_name(tmp_path: Path, name: str) -> None:
    """Reordered or additional columns give the same rows."""
    folder = write_task(tmp_path, name, 9)
    reference = load_task(name, folder).fingerprint
    if name in ("mnli", "qqp"):  # ragged rows depend on the column order
        return
    for path in folder.iterdir():
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        turned = ["\t".join([*reversed(line.split("\t")), "more"]) for line in lines]
        path.write_text("\n".join(turned) + "\n", encoding="utf-8")
    assert load_task(name, folder).fingerprint == reference


def test_mnli_rows_may_lack_annotator_labels(tmp_path: Path) -> None:
    """In a row shorter than the header the last cell is the gold label."""
    folder = write_task(tmp_path, "mnli", 9)
    path = folder / "dev_matched.tsv"
    head, row, *rest = path.read_text(encoding="utf-8").splitlines()
    cells = row.split("\t")
    short = "\t".join([*cells[:10], "neutral", "neutral", "contradiction"])
    shortest = "\t".join([*cells[:10], "contradiction"])
    path.write_text("\n".join([head, short, shortest, *rest]) + "\n", encoding="utf-8")
    assert load_task("mnli", folder).dev.answers[:2] == (2, 2)


def test_broken_rows_of_qqp_are_counted(tmp_path: Path) -> None:
    """Rows split by a line feed, rows around an empty line, and questions without words are left out."""
    folder = write_task(tmp_path, "qqp")
    assert load_task("qqp", folder).source == "files in QQP, 3 broken rows left out"
    with (folder / "dev.tsv").open("a", encoding="utf-8") as file:
        file.write("7\t7\t97\twho is\n\n it\twho was it\t1\n8\t8\t98\t \twho\t0\n")
    data = load_task("qqp", folder)
    assert data.source == "files in QQP, 7 broken rows left out"
    assert data.dev == examples_of("qqp", "dev", 16)


@pytest.mark.parametrize("name", [name for name in GLUE if name not in ("qqp", "mnli")])
def test_other_tasks_refuse_broken_rows(tmp_path: Path, name: str) -> None:
    """Only QQP tolerates a split row; other tasks report its line."""
    folder = write_task(tmp_path, name, 9)
    path = folder / "train.tsv"
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[4] = lines[4].replace("\t", "\n", 1)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"^train\.tsv line 5: .* has 1 column; a row has "):
        load_task(name, folder)


def undivide(folder: Path) -> None:
    """Convert to MRPC as Microsoft distributes it: one file of all rows, and GLUE's ids of the development rows."""
    train, dev = ((folder / f"{part}.tsv").read_text(encoding="utf-8").splitlines() for part in ("train", "dev"))
    # interleave the rows of both parts
    mixed = [line for pair in zip(train[1:], dev[1:], strict=False) for line in pair] + train[len(dev) :]
    renumbered = ["\t".join(["{}", str(i), f"9{i}", *line.split("\t")[3:]]) for i, line in enumerate(mixed)]
    rows = [row.format(line[0]) for row, line in zip(renumbered, mixed, strict=True)]
    ids = [f"{i}\t9{i}" for i, line in enumerate(mixed) if line in dev]
    (folder / "msr_paraphrase_train.txt").write_text("\r\n".join([train[0], *rows]) + "\r\n", encoding="utf-8")
    (folder / "dev_ids.tsv").write_text("\n".join(ids) + "\n", encoding="utf-8")
    for part in ("train", "dev"):
        (folder / f"{part}.tsv").unlink()


def test_mrpc_may_be_undivided(tmp_path: Path) -> None:
    """Without train.tsv, Microsoft's file is divided by the ids of GLUE's development rows."""
    folder = write_task(tmp_path, "mrpc")
    undivide(folder)
    for given in (folder, tmp_path):
        data = load_task("mrpc", given)
        assert data.train == examples_of("mrpc", "train", 48)
        assert data.dev == examples_of("mrpc", "dev", 16)
        assert data.source == "files in MRPC"


def test_undivided_mrpc_needs_matching_ids(tmp_path: Path) -> None:
    """Unknown ids and a missing file of ids are reported."""
    folder = write_task(tmp_path, "mrpc")
    undivide(folder)
    with (folder / "dev_ids.tsv").open("a", encoding="utf-8") as file:
        file.write("77\t78\n")
    with pytest.raises(
        DataError, match=r"^dev_ids\.tsv line 17: no row of msr_paraphrase_train\.txt has the ids 77 and"
    ):
        load_task("mrpc", folder)
    (folder / "dev_ids.tsv").unlink()
    with pytest.raises(MissingResource, match=r"no dev_ids\.tsv in the folder .* needs train\.tsv and dev\.tsv"):
        load_task("mrpc", folder)


@pytest.mark.parametrize("name", NAMES)
def test_an_official_file_can_be_a_user_file(tmp_path: Path, name: str) -> None:
    """Under any name with the same suffix."""
    folder = write_task(tmp_path, name)
    path = folder / ("train-v2.0.json" if name == "squad_v2" else "train-v1.1.json" if name == "squad" else "train.tsv")
    renamed = path.rename(path.with_stem("mine"))
    assert read_examples(renamed, get_task(name)) == examples_of(name, "train", 48)


@pytest.mark.parametrize("name", list(TABLES))
def test_a_user_file_may_have_the_columns_of_the_hub(tmp_path: Path, name: str) -> None:
    """With class ids or class names."""
    spec, expected = get_task(name), examples_of(name, "dev", 16)
    lines = ["\t".join([*spec.texts, spec.label])]
    for i, (texts, answer) in enumerate(zip(expected.texts, expected.answers, strict=True)):
        lines.append("\t".join([*texts, spec.labels[answer] if spec.labels and i % 2 else str(answer)]))
    path = tmp_path / "mine.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert read_examples(path, spec) == expected


def test_labels_of_another_task_are_refused(tmp_path: Path) -> None:
    """The error has the line and the known labels."""
    path = tmp_path / "mine.tsv"
    path.write_text("sentence\tlabel\nx\tpositive\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"mine\.tsv line 2: the label 'positive'.*0 \(unacceptable\), 1 \(acceptable\)"
    ):
        read_examples(path, get_task("cola"))


def test_a_missing_user_file_is_reported(tmp_path: Path) -> None:
    """A missing file, and a folder instead of a file, give one line with the path."""
    for path in (tmp_path / "none.tsv", tmp_path):
        for name in ("sst2", "squad"):
            with pytest.raises(MissingResource, match=path.name):
                read_examples(path, get_task(name))
