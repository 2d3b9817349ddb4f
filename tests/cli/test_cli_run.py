"""``farsearch run``: output, refused input, and exit codes."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from farsearch.api.console import make_console
from farsearch.api.mirror import open_mirror
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from farsearch.tracking import open_tracking
from tests.journey import call, prepare, run_arguments


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared working directory without a study."""
    made = prepare(tmp_path_factory.mktemp("refused"))
    bad = shutil.copytree(made / "data", made / "bad")
    lines = (bad / "train.tsv").read_text().splitlines()
    lines[4] = "no label here"
    (bad / "train.tsv").write_text("\n".join(lines) + "\n")
    other = shutil.copytree(made / "data", made / "labels")
    with (other / "dev.tsv").open("a") as file:
        file.write("fine\thappy\n")
    (shutil.copytree(made / "data", made / "half") / "dev.tsv").unlink()
    (made / "empty").mkdir()
    (made / "gpt").mkdir()
    (made / "gpt" / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2}))
    (made / "typo.yaml").write_text((made / "tiny.yaml").read_text().replace("learning_rate:", "learning_rat:"))
    return made


REFUSED: list[tuple[dict[str, Any], tuple[str, ...], int, tuple[str, ...]]] = [
    ({"device": "jetson-nono"}, (), 2, ("'jetson-nono'", "did you mean 'jetson-nano'?")),
    ({"device": "mine.toml"}, (), 2, ("mine.toml",)),
    ({"task": "sst3"}, (), 2, ("'sst3'", "did you mean 'sst2'?")),
    ({"model": "./nosuch"}, (), 2, ("'./nosuch' does not exist", "pass a folder")),
    ({"model": "empty"}, (), 2, ("'empty'", "no config.json")),
    ({"model": "gpt"}, (), 2, ("'gpt2' is not supported", "bert, camembert, deberta-v2, distilbert")),
    ({"space": "defualt"}, (), 2, ("'defualt'", "did you mean 'default'?")),
    ({"space": "typo.yaml"}, (), 2, ("'typo.yaml'", "'learning_rat'", "did you mean 'learning_rate'?")),
    ({"space": "nosuch.yaml"}, (), 2, ("'nosuch.yaml'", "check the path")),
    ({"data_dir": "bad"}, (), 2, ("train.tsv line 5", "1 column", "a row has 2 (sentence, label)")),
    ({"data_dir": "labels"}, (), 2, ("dev.tsv line 122", "'happy'", "0 (negative), 1 (positive)")),
    ({}, ("--set", "learning_rat=1"), 2, ("--set learning_rat=1", "did you mean 'learning_rate'?")),
    ({}, ("--set", "learning_rate"), 2, ("'learning_rate'", "key=value", "for example learning_rate=1e-4")),
    ({}, ("--set", "learning_rate=fast"), 2, ("'fast'", "neither a number nor true or false")),
    ({}, ("--set", "learning_rate=-1"), 2, ("--set: learning_rate", "-1", "above 0")),
    ({}, ("--set", "epochs=inf"), 2, ("--set: epochs", "inf", "finite number")),
    ({}, ("--set", "epochs=1", "--set", "epochs=2"), 2, ("--set epochs=2", "twice")),
    ({}, ("--set", "frozen_bottom_layers=9"), 2, ("frozen_bottom_layers is 9", "the model has 2 layers")),
    ({"epochs": 1}, ("--set", "epochs=2"), 2, ("--epochs 1.0 and --set epochs=2", "give one of them")),
    ({"train_samples": 0}, (), 2, ("'--train-samples'", "'0' is not a number of rows", "give 1 or more, or all")),
    ({"train_samples": "some"}, (), 2, ("'--train-samples'", "'some'", "or all")),
    ({"train_samples": 1}, (), 2, ("1 training samples", "at least 2")),
    ({"train_samples": 5000}, (), 2, ("5000 training samples", "480 rows", "ask for fewer")),
    ({"sampler": "tqe"}, (), 2, ("'tqe'", "one of known-cost, tpe, nsga2, gp, random")),
    ({"study": "../tiny"}, (), 2, ("'../tiny'", "use letters, digits")),
    ({"workers": 0}, (), 2, ("'--workers'", "0 is not in the range")),
    ({"n_trials": 0}, (), 2, ("'--n-trials'", "0 is not in the range")),
    ({"epochs": 0}, (), 2, ("'--epochs'", "'0' is not a number above 0")),
    ({"epochs": "nan"}, (), 2, ("'--epochs'", "'nan' is not a number above 0")),
    ({"max_memory": "inf"}, (), 2, ("'--max-memory'", "'inf' is not a number above 0")),
    ({"max_time": -3}, (), 2, ("'--max-time'", "'-3' is not a number above 0")),
    ({"max_length": 3}, (), 2, ("'--max-length'", "3 is not in the range")),
    ({"max_length": 4000}, (), 2, ("--max-length is 4000", "at most 128 tokens")),
    ({"batch_size": "many"}, (), 2, ("'--batch-size'", "'many' is not a valid integer")),
    ({"prime_on": "moon"}, (), 2, ("'--prime-on'", "'moon'", "'host', 'device'")),
    ({"tracking_uri": "nonsense"}, (), 2, ("'nonsense'", "sqlite:///FILE")),
    ({"storage": "nonsense"}, (), 2, ("--storage nonsense", "postgresql://")),
    ({"data_dir": "nosuch"}, (), 5, ("'nosuch' does not exist", "train.tsv and dev.tsv")),
    ({"data_dir": "half"}, (), 5, ("no dev.tsv in the folder 'half'",)),
    ({"data_dir": None}, (), 5, ("HF_HUB_OFFLINE", "--data-dir")),
    ({"model": "prajjwal1/bert-tiny"}, (), 5, ("'prajjwal1/bert-tiny'", "HF_HUB_OFFLINE", "--model FOLDER")),
    ({"model": "bert-base-uncased"}, (), 5, ("'bert-base-uncased'", "HF_HUB_OFFLINE", "--model FOLDER")),
]


@pytest.mark.parametrize(
    ("options", "more", "code", "fragments"), REFUSED, ids=[f"{r[0] or ' '.join(r[1])}"[:50] for r in REFUSED]
)
def test_invalid_input_is_refused_in_one_line(
    folder: Path, tiny_bert: Path, options: dict[str, Any], more: tuple[str, ...], code: int, fragments: tuple[str, ...]
) -> None:
    """The line has value, rule and suggestion; no study is created."""
    done = call(folder, *run_arguments(tiny_bert, 3, **{"study": None, **options}), *more)
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("farsearch: ")
    assert "Traceback" not in done.err
    for fragment in fragments:
        assert fragment in done.err
    assert not (folder / ".farsearch" / "studies.journal").exists()


@pytest.mark.slow
def test_a_board_that_only_the_engine_without_torch_fits_is_searched(tmp_path: Path, tiny_bert: Path) -> None:
    """The trial records the plan with its engine; the study keeps its choice of engines."""
    folder = prepare(tmp_path)
    command = run_arguments(tiny_bert, 1, device="raspberry-pi-zero-2-w")
    assert call(folder, *command).code == 0
    shown = call(folder, "show", "--trial", 0, "--json")
    assert shown.json["trial"]["plan"]["engine"] == "onnx"
    refused = call(folder, *command, "--engine", "torch")
    assert refused.code == 4
    assert "engine" in refused.err


def test_a_dry_run_prints_the_preview_and_writes_nothing(tmp_path: Path, tiny_bert: Path) -> None:
    folder = prepare(tmp_path)
    done = call(folder, *run_arguments(tiny_bert, 7), "--dry-run")
    assert (done.code, done.out) == (0, "")
    study, tokens, constant, device, loading, space, host, last = done.err.splitlines()
    assert study.startswith("study tiny: sst2 (files in data), tiny-bert, 320 training and ")
    assert re.fullmatch(r"[0-9.]+ % of rows cut at 16 tokens, 0\.0 % unknown tokens", tokens)
    assert re.match(r"a constant answer \(\w+\) scores [0-9.]+ % on the validation rows, 50.0 % on the dev", constant)
    assert device.startswith("device jetson-nano: ")
    assert loading.startswith("loading the model, ")
    assert space.startswith("space: 50 combinations times a continuous learning_rate; 100% of 200 random ones fit: ")
    assert re.match(r"this host: about .* for 7 trials of at most ", host)
    assert last == "dry run: nothing was trained"
    assert sorted(path.name for path in folder.iterdir() if path.name != ".farsearch") == ["data", "tiny.yaml"]
    assert not list((folder / ".farsearch").glob("*.journal"))


def test_a_dry_run_of_a_search_that_fits_nothing_ends_as_the_search_would(tmp_path: Path, tiny_bert: Path) -> None:
    done = call(prepare(tmp_path), *run_arguments(tiny_bert, 7, max_memory=5), "--dry-run")
    assert done.code == 3
    *_, space, _, last = done.err.splitlines()
    assert "0% of 200 random ones fit" in space
    assert last.startswith("farsearch: none of 200 proposals can be trained (refused for: max-memory 200)")
    assert "allow --max-memory " in last


def test_a_misspelt_device_is_refused_before_model_and_data(tmp_path: Path) -> None:
    done = call(tmp_path, "run", "--device", "jetson-nanno", "--task", "sst2", "--model", "nosuch/a/b")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "did you mean 'jetson-nano'" in done.err


def test_a_search_ends_with_the_front_and_the_next_commands(tmp_path: Path, tiny_distilbert: Path) -> None:
    """On the embedded sample: a line per trial on stderr, the front on stdout, a picture, and commands that work."""
    arguments = run_arguments(
        tiny_distilbert, 3, task="reviews", data_dir=None, space="uniform", study=None, train_samples=64
    )
    done = call(tmp_path, *arguments)
    assert done.code == 0, done.err
    name = "reviews-tiny-distilbert-jetson-nano-uniform"
    assert done.out.startswith(f"{name}: Pareto front of 3 trained trials")
    lines = done.err.splitlines()
    trials = [line for line in lines if re.match(r"\[\d/3\] trial \d  ", line)]
    assert [line[:5] for line in trials] == ["[1/3]", "[2/3]", "[3/3]"]
    assert all("MiB" in line and "on the device" in line for line in trials)
    picture = next(line.partition("picture: ")[2] for line in lines if line.startswith("picture: "))
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    program, *_ = lines[lines.index("next:") + 1].partition(" pareto ")
    last = lines[lines.index("next:") + 1 :]
    commands = [line.removeprefix(f"{program} ").split() for line in last if line.startswith(f"{program} ")]
    assert [command[0] for command in commands] == ["pareto", "ui", "export"]
    assert last[3:] == call(tmp_path, "status", "--json").json["won"]
    assert call(tmp_path, *commands[0]).code == 0
    assert call(tmp_path, *commands[2]).code == 0
    assert (tmp_path / "bundle" / "far.json").is_file()
    assert "\x1b" not in done.err + done.out
    study = snapshot_of(Store(tmp_path / ".farsearch").load())
    assert study.meta["command"].endswith("run --device jetson-nano --task reviews " + " ".join(arguments[5:]))


def test_other_settings_under_the_same_name_are_refused(finished_study: Path, tiny_bert: Path) -> None:
    """Exit code 4; the line lists the differences."""
    before = call(finished_study, "trials", "--json").out
    done = call(finished_study, *run_arguments(tiny_bert, 12, seed=3, batch_size=8))
    assert (done.code, done.out) == (4, "")
    assert done.err.count("\n") == 1
    for fragment in ("'tiny' exists with other settings", "job.batch_size: 8, 16", "job.seed: 3, 0", "--study"):
        assert fragment in done.err
    assert call(finished_study, "trials", "--json").out == before
    assert call(finished_study, *run_arguments(tiny_bert, 12, seed=3), "--dry-run").code == 4


def test_a_finished_search_ends_at_once(finished_study: Path, tiny_bert: Path) -> None:
    """No model is loaded and nothing is priced; the front is printed as before."""
    done = call(finished_study, *run_arguments(tiny_bert, 9))
    assert done.code == 0, done.err
    assert done.out.startswith("tiny: Pareto front of 9 trained trials")
    assert "loading the model" not in done.err


@pytest.mark.slow
def test_an_infeasible_bound_is_refused_with_one_that_fits(tmp_path: Path, tiny_bert: Path) -> None:
    """Exit code 3; a search with the suggested bound succeeds."""
    folder = prepare(tmp_path)
    done = call(folder, *run_arguments(tiny_bert, 2, max_memory=5))
    assert done.code == 3
    last = done.err.splitlines()[-1]
    assert last.startswith("farsearch: none of 200 proposals can be trained (refused for: max-memory 200)")
    assert "0% of 200 random ones fit" in done.err
    option, value = last.split("allow ")[1].split()
    assert option == "--max-memory"
    fits = ("--set", "frozen_fraction=1", "--set", "frozen_embeddings=true", "--set", "frozen_bottom_layers=1")
    again = call(folder, *run_arguments(tiny_bert, 1, max_memory=value, study="other"), *fits)
    assert again.code == 0, again.err


def test_a_lost_mirror_gives_a_warning(finished_study: Path, tmp_path: Path) -> None:
    store = Store(finished_study / ".farsearch")
    study = snapshot_of(store.load("tiny"))
    mirror = open_mirror(make_console(stderr=True), store, f"sqlite:///{tmp_path}/mlflow.db")
    assert mirror(study) is None
    (tmp_path / "mlflow.db").write_bytes(b"this is no database " * 1000)
    for warning in (mirror(study), mirror.last(study)):
        assert warning is not None
        assert "mlflow.db" in warning
        assert warning.endswith("the search goes on, farsearch sync catches up")
        assert "\n" not in warning


def test_one_worker_mirrors_at_a_time(finished_study: Path, tmp_path: Path) -> None:
    """Others skip the mirror during the search and wait for it at the end, so that it is complete."""
    store = Store(finished_study / ".farsearch")
    study = snapshot_of(store.load("tiny"))
    mirror = open_mirror(make_console(stderr=True), store, f"sqlite:///{tmp_path}/mlflow.db")
    tracker = open_tracking(f"sqlite:///{tmp_path}/mlflow.db")
    last = threading.Thread(target=mirror.last, args=(study,))
    with store.mirror_lock("tiny", wait=True):
        assert mirror(study) is None
        last.start()
        last.join(0.5)
        assert last.is_alive()
        assert tracker.trials("tiny") == {}
    last.join()
    assert tracker.differences(study) == []


def test_secrets_of_the_command_are_not_stored(tmp_path: Path, tiny_bert: Path) -> None:
    folder = prepare(tmp_path)
    call(folder, *run_arguments(tiny_bert, 1, storage=f"sqlite:///{tmp_path}/s.db?password=http://me:secret@host"))
    for path in folder.rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes(), path
