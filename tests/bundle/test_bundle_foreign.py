"""Untrusted content beside and inside a bundle: modules, archives, names."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from farsearch.bundle.card import card_of
from farsearch.formatting import markdown_code, markdown_text
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from tests.bundle.mutations import signed
from tests.journey import call, prepare, run_arguments
from tests.tiny import make_bert

EVIL = "import pathlib; pathlib.Path(__file__).with_name('ran').write_text('x')\n"


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(bundle, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.mark.parametrize(
    "name", ["transformers.py", "numpy.py", "torch/__init__.py", "sitecustomize.py", "json.cpython-311-x86_64.so",
             "far/more.py", "evil.pth", "model/modeling_evil.py"],
)  # fmt: skip
def test_unlisted_modules_are_refused_and_never_run(copied: Path, tmp_path: Path, name: str) -> None:
    """By ``finetune`` and by ``train.py``, which refuses them before it imports anything else."""
    (copied / name).parent.mkdir(exist_ok=True)
    (copied / name).write_text(EVIL)
    (tmp_path / "mine.tsv").write_text("sentence\tlabel\ngood\t1\n")
    done = call(tmp_path, "finetune", copied, "--train", "mine.tsv", "--out", "tuned")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"has {name}, which far.json does not list; remove it" in done.err
    if name in ("transformers.py", "torch/__init__.py"):
        ran = subprocess.run(
            [sys.executable, "train.py", "--train", "../mine.tsv", "--out", "../tuned"], cwd=copied,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert ran.returncode == 2
        assert name in ran.stderr
        assert ran.stderr.count("\n") == 1
    assert not list(copied.rglob("ran"))


def test_unchecked_bytecode_is_not_run(copied: Path) -> None:
    """Python would import a .pyc file whose header disables the check against its source."""
    import importlib._bootstrap_external as external
    import importlib.util
    from typing import cast

    source = copied / "far" / "display.py"
    code = compile(EVIL, str(source), "exec")
    cache = Path(importlib.util.cache_from_source(str(source)))
    cache.parent.mkdir()
    to_pyc = cast("Any", external)._code_to_hash_pyc
    cache.write_bytes(to_pyc(code, importlib.util.source_hash(source.read_bytes()), False))
    ran = subprocess.run(
        [sys.executable, "train.py", "--train", "nosuch.tsv", "--out", "../tuned"], cwd=copied, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    # the module formats this message
    assert ran.returncode == 5, ran.stderr
    assert "nosuch.tsv" in ran.stderr
    assert not list(copied.rglob("ran"))


def test_user_files_beside_train_py_are_allowed(copied: Path, tmp_path: Path) -> None:
    """Data files and previous outputs may be in the bundle's folder."""
    (copied / "mine.tsv").write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    (copied / "tuned").mkdir()
    (copied / "tuned" / "config.json").write_text("{}")
    assert call(tmp_path, "finetune", copied, "--train", copied / "mine.tsv", "--out", "tuned").code == 0


@pytest.mark.slow
def test_checkpoint_code_is_not_exported(tmp_path: Path) -> None:
    """The library implements the type itself; the code that it would copy along is left out."""
    model = make_bert(tmp_path / "model")
    for name, code in (
        ("config.json", {"AutoModel": "e.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["e.T", None]}),
    ):
        values = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**values, "auto_map": code}))
    folder = prepare(tmp_path / "study")
    for arguments in (run_arguments(model, 1, baselines="none"), ["export", "--trial", "0", "--out", "bundle"]):
        done = call(folder, *arguments)
        assert done.code == 0, done.err
    assert not any("auto_map" in path.read_text() for path in (folder / "bundle" / "model").glob("*.json"))
    done = call(folder, "finetune", "bundle", "--train", "data/dev.tsv", "--out", "tuned")
    assert done.code == 0, done.err


def zipped(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("entries", "method", "named"),
    [
        ({"b/far.json": b"\0" * 50_000_000}, zipfile.ZIP_DEFLATED, "50,000,000 bytes"),
        ({"../far.json": b"x"}, zipfile.ZIP_STORED, "'../far.json', which is outside"),
        ({"b/" + "x" * 5000: b"x"}, zipfile.ZIP_STORED, "which is outside"),
        ({"b/far.json": b"x" * 1000}, zipfile.ZIP_LZMA, "packed in another way"),
        ({f"b/{i}": b"" for i in range(10_001)}, zipfile.ZIP_STORED, "10,001 files"),
        ({}, zipfile.ZIP_STORED, "is no bundle"),
    ],
    ids=["zeros", "outside", "a long name", "lzma", "many", "empty"],
)
def test_archives_are_bounded_before_extraction(
    tmp_path: Path, entries: dict[str, bytes], method: int, named: str
) -> None:
    """One line, exit code 2, and nothing is written."""
    zipped(tmp_path / "b.zip", entries, method)
    (tmp_path / "mine.tsv").write_text("sentence\tlabel\ngood\t1\n")
    done = call(tmp_path, "finetune", "b.zip", "--train", "mine.tsv", "--out", "tuned")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert named in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"b.zip", "mine.tsv"}


def test_a_repacked_archive_is_accepted(copied: Path, tmp_path: Path) -> None:
    """With compression, for example."""
    files = {f"b/{path.relative_to(copied).as_posix()}": path.read_bytes() for path in copied.rglob("*.*")}
    zipped(tmp_path / "b.zip", files)
    (tmp_path / "mine.tsv").write_text("sentence\tlabel\ngood\t1\nbad\t0\n")
    done = call(tmp_path, "finetune", "b.zip", "--train", "mine.tsv", "--out", "tuned")
    assert done.code == 0, done.err


def test_file_names_are_escaped_for_the_terminal(copied: Path, tmp_path: Path) -> None:
    """A listed file has an escape sequence in its name."""
    (copied / "far" / "\x1b[31mx.py").write_text("")
    done = call(tmp_path, "finetune", copied, "--train", "mine.tsv", "--out", "tuned")
    assert done.code == 2
    assert "\x1b" not in done.err
    assert r"\x1b[31mx.py" in done.err


HOSTILE = ["a: b", "---", "<script>alert(1)</script>", "x\n---\nlicense: mit", "a|b", "`code`", "[x](http://y)", "*b*"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_card_escapes_names(finished_study: Path, name: str) -> None:
    """Names of models, labels and columns can alter neither front matter nor text."""
    snapshot = snapshot_of(Store(finished_study / ".farsearch").load("tiny"))
    job = dataclasses.replace(snapshot.settings.job, model=name)
    settings = dataclasses.replace(snapshot.settings, job=job)
    from farsearch.tasks.spec import get_task

    spec = dataclasses.replace(get_task("sst2"), labels=(name, "other"), texts=(name,), title=name, licence=name)
    meta = {**snapshot.meta, "task": spec.to_dict(), "data_source": name}
    changed = dataclasses.replace(snapshot, settings=settings, meta=meta)
    trial = changed.front[0]
    card = card_of(changed, trial, None, name, {})
    front, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front) == {
        "base_model": name, "license": "unknown", "pipeline_tag": spec.pipeline,
        "tags": ["farsearch", "freeze-and-reconfigure"],
    }  # fmt: skip
    outside = re.sub("(`+)(?!`).*?[^`]\\1(?!`)", "", body)
    assert "<script" not in outside
    assert "\n---" not in outside
    assert re.search(r"(?<!\\)\]\(", outside) is None
    assert card.count("\n## ") == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bert_uncased_L-2", "bert_uncased_L-2"), ("a|b", r"a\|b"), ("<b>&", "&lt;b&gt;&amp;"),
        ("*x* `y`", r"\*x\* \`y\`"),
        ("- x", r"\- x"), ("_x_", r"\_x\_"), ("x\ny", r"x\\ny"),
    ],
)  # fmt: skip
def test_markdown_text(text: str, expected: str) -> None:
    """Exactly the characters with a meaning in markdown are escaped."""
    assert markdown_text(text) == expected


def test_markdown_code() -> None:
    """It is quoted by more backticks than the name has."""
    assert markdown_code("a_b") == "`a_b`"
    assert markdown_code("a``b") == "``` a``b ```"


def test_tensor_names_are_checked_when_a_bundle_is_assembled(copied: Path, tmp_path: Path) -> None:
    """Also where nothing is trained: otherwise an empty model would be saved."""
    data: dict[str, Any] = json.loads((copied / "far.json").read_text())
    data["phase"]["weights"]["names"] = []
    (copied / "far.json").write_text(json.dumps(data))
    signed(copied)
    ran = subprocess.run(
        [sys.executable, str(copied / "train.py"), "--tuned", "--out", "tuned"], cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "weights.names lacks" in ran.stderr
    assert not (tmp_path / "tuned").exists()
