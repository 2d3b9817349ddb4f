"""``farsearch verify`` and ``run --verify`` on real small studies: trainings, output, records, and their display."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from pathlib import Path

import pytest
from mlflow import MlflowClient

from farsearch.tracking import open_tracking
from tests.journey import Done, call, chdir, prepare, read_study, run_arguments, watch

ROWS = 480


def lines_of(done: Done) -> list[str]:
    """Return the line of each training that ended."""
    return [line for line in done.err.splitlines() if line.startswith("[")]


@pytest.fixture(scope="module")
def front(finished_study: Path) -> list[int]:
    """Numbers of the trials on the front."""
    return [trial["number"] for trial in call(finished_study, "pareto", "--json").json["trials"]]


@pytest.fixture(scope="module")
def verified(finished_study: Path, front: list[int], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A copy of the finished study, with three trials verified with two seeds each."""
    folder = Path(shutil.copytree(finished_study, tmp_path_factory.mktemp("verified") / "copy"))
    done = call(folder, "verify", "--trials", ",".join(map(str, range(3))), "--seeds", 2, "--json")
    assert done.code == 0, done.err
    return folder, done


def test_each_training_has_a_line_and_json_has_all_scores(verified: tuple[Path, Done]) -> None:
    """Progress goes to stderr; the figures on stdout follow from the scores."""
    folder, done = verified
    assert f"verifying trial 0, trial 1, trial 2: 2 seeds each, on {ROWS} rows" in done.err
    assert "3 seeds are the least for a verdict" in " ".join(done.err.split())
    heads = [line.split("  ")[0] for line in lines_of(done)]
    wanted = [f"trial {trial}, seed {seed}" for seed in (1, 2) for trial in (0, 1, 2)]
    assert heads == [f"[{i}/6] {title}" for i, title in enumerate(wanted, 1)]
    data = done.json
    assert (data["schema_version"], data["study"]) == (1, "tiny")
    assert sorted(entry["trial"] for entry in data["verified"]) == [0, 1, 2]
    searched = {trial["number"]: trial["metric"] for trial in call(folder, "trials", "--json").json["trials"]}
    for entry in data["verified"]:
        scores = list(entry["scores"].values())
        assert list(entry["scores"]) == ["1", "2"]
        assert entry["mean"] == pytest.approx(statistics.fmean(scores))
        assert (entry["deviation"], entry["not_better_than"], entry["interval"]) == (None, None, None)
        assert (entry["train_samples"], entry["failed"]) == (ROWS, 0)
        assert entry["searched"] == searched[entry["trial"]]
    assert -1 <= data["rank_agreement"]["kendall_tau"] <= 1
    assert data["rank_agreement"]["trials"] == 3


def test_repeating_the_command_trains_nothing_and_prints_a_table(verified: tuple[Path, Done]) -> None:
    """Two seeds have no deviation, and only the cheapest trial has a verdict."""
    folder, first = verified
    done = call(folder, "verify", "tiny", "--trials", "0,1,2", "--seeds", 2)
    assert (done.code, lines_of(done)) == (0, [])
    head, columns, _, *rows, agreement = done.out.splitlines()
    assert head.startswith(
        "tiny: verified with other seeds, memory and time estimated for jetson-nano; ± is one standard"
    )
    assert re.split(r"\s{2,}", columns.strip()) == [
        "point", "development set", "seeds", "search's", "memory", "time", "advantage",
    ]  # fmt: skip
    for entry in first.json["verified"]:
        (row,) = [row for row in rows if row.strip().startswith(entry["title"])]
        assert f"{100 * entry['mean']:.1f} %" in row
        assert row.rstrip().endswith("nothing costs less" if entry["judged"] else "too few seeds to tell")
    assert agreement.startswith("Kendall's tau of search (320 rows, one seed) and verification (480 rows) over 3 tri")


def test_pareto_and_show_print_the_verification(verified: tuple[Path, Done]) -> None:
    """The trials of the search are unchanged."""
    folder, done = verified
    out = call(folder, "pareto").out
    assert out.index("Pareto front") < out.index("verified with other seeds") < out.index("Kendall's tau")
    entry = next(entry for entry in done.json["verified"] if entry["trial"] == 0)
    shown = call(folder, "show", "--trial", 0).out
    value = f"{100 * entry['mean']:.1f} %"
    assert f"{value} (2 seeds, each on 480 rows)" in re.sub(r"\s+", " ", shown)
    assert call(folder, "show", "--trial", 0, "--json").json["verified"] == entry
    assert call(folder, "show", "--trial", 3, "--json").json["verified"] is None
    assert len(call(folder, "trials", "--json").json["trials"]) == 9
    assert [study["name"] for study in call(folder, "studies", "list", "--json").json["studies"]] == ["tiny"]


def test_verifications_are_an_auxiliary_study(verified: tuple[Path, Done]) -> None:
    """Each training is a trial with its own rows and seed."""
    folder, _ = verified
    assert len(call(folder, "trials", "tiny/verified", "--json").json["trials"]) == 6
    shown = re.sub(r"\s+", " ", call(folder, "show", "tiny/verified", "--trial", 4).out)
    assert "trained again trial 1" in shown
    assert "on the development set, trained on 480 rows with seed 2" in shown
    assert "validation rows" not in shown


def test_verifications_are_mirrored_with_the_development_metric_only(verified: tuple[Path, Done]) -> None:
    """A parent run NAME/verified in the study's experiment, and a run per training."""
    folder, done = verified
    with chdir(folder):
        tracker = open_tracking("sqlite:///mlflow.db")
        held = tracker.trials("tiny/verified")
        assert tracker.differences(read_study(folder, name="tiny/verified")) == []
        assert tracker.differences(read_study(folder)) == []
        client = MlflowClient(tracking_uri=tracker.uri)
        experiment = client.get_experiment_by_name("tiny")
        assert experiment is not None
        names = [run.info.run_name for run in client.search_runs([experiment.experiment_id])]
    assert len(held) == 6
    scores = {(e["trial"], seed): score for e in done.json["verified"] for seed, score in e["scores"].items()}
    for values in held.values():
        params, metrics = values["params"], values["metrics"]
        assert metrics["dev_accuracy"] == scores[int(params["trial"]), params["seed"]]
        assert not [name for name in metrics if name.startswith("validation")]
        assert params["train_samples"] == "480"
    said = {name.split(" · ")[-1] for name in names}
    assert {"tiny/verified", "trial 000 again, seed 1", "trial 002 again, seed 2"} <= said
    parent = next(r for r in client.search_runs([experiment.experiment_id]) if r.info.run_name == "tiny/verified")
    assert parent.info.status == "FINISHED"


def test_the_report_has_a_section_on_the_verification(verified: tuple[Path, Done]) -> None:
    """The rank agreement is shown with the front."""
    folder, _ = verified
    assert call(folder, "report", "--out", "r.html", "--figures", "pictures").code == 0
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert 'id="verified"' in page
    assert "nothing costs less" in page
    front = page.split('<section id="pareto">')[1].split("</p>")[0]
    assert "tau of search (320 rows, one seed) and verification (480 rows) over 3 trials" in front
    assert (folder / "pictures" / "verified.png").is_file()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--trials", "77"], 2, "77"),
        (["--trials", "1,x"], 2, "'1,x' is not a list of trial numbers, for example 3,7"),
        (["--trials", ""], 2, "'' is not a list of trial numbers"),
        (["--seeds", "0"], 2, "--seeds"),
        (["--train-samples", "481", "--trials", "0"], 2, "481 training samples are more than the 480 rows"),
        (["--baselines", "some"], 2, "'some'"),
        (["--model", "/nowhere/model", "--trials", "0"], 2, "/nowhere/model"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_options_are_refused(finished_study: Path, words: list[str], code: int, told: str) -> None:
    """Nothing is trained."""
    done = call(finished_study, "verify", "tiny", *words)
    assert told in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert done.code == code
    assert read_study(finished_study).verified == ()


def test_an_unknown_study_is_refused(finished_study: Path, tmp_path: Path) -> None:
    done = call(finished_study, "verify", "tinny")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "did you mean 'tiny'" in done.err
    assert call(tmp_path, "verify").code == 2


def test_the_default_trials_are_those_that_show_chooses(finished_study: Path, front: list[int], tmp_path: Path) -> None:
    """The knee and the best in each objective, all on the front."""
    folder = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    done = call(folder, "verify", "--seeds", 1, "--train-samples", 16, "--json")
    assert done.code == 0, done.err
    numbers = {entry["trial"] for entry in done.json["verified"]}
    assert 1 <= len(numbers) <= 4
    assert numbers <= set(front)
    shown = {
        call(folder, "show", "--prefer", prefer, "--json").json["trial"]["number"]
        for prefer in ("knee", "accuracy", "memory", "time")
    }
    assert numbers == shown


@pytest.mark.slow
def test_an_interrupted_verification_can_be_resumed(finished_study: Path, tmp_path: Path) -> None:
    """A real process and a real signal: the same command trains only the rest."""
    import signal

    folder = Path(shutil.copytree(finished_study, tmp_path / "copy"))
    words = ["verify", "tiny", "--trials", "0", "--seeds", "40"]
    with watch(folder, *words) as watched:
        watched.until("[2/40]")
        done = watched.end(signal.SIGINT)
    assert done.code == 130
    assert "finished trainings are stored. To resume:" in done.err
    assert " ".join(words) in done.err
    kept = len(read_study(folder).verified)
    assert 2 <= kept < 40
    again = call(folder, "verify", "tiny", "--trials", "0", "--seeds", kept + 1)
    assert again.code == 0
    assert len(lines_of(again)) == 1


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, tiny_distilbert: Path) -> tuple[Path, Done]:
    """``run --baselines paper --verify``: a search of three trials with baselines and verification."""
    folder = prepare(tmp_path_factory.mktemp("searched"))
    words = run_arguments(tiny_distilbert, 3, train_samples=48, epochs=1, baselines="paper")
    done = call(folder, *words, "--verify")
    assert done.code == 0, done.err
    return folder, done


@pytest.mark.slow
def test_run_verifies_at_its_end(searched: tuple[Path, Done]) -> None:
    """Five seeds of each chosen trial and of the study's baselines; the table follows the front."""
    folder, done = searched
    assert done.out.index("Pareto front") < done.out.index("verified with other seeds")
    data = call(folder, "verify", "--json").json
    titles = [entry["title"] for entry in data["verified"]]
    assert set(titles[-3:]) == {"full fine-tuning", "FAR r=10 %", "BitFit"}
    assert all(title.startswith("trial ") for title in titles[:-3])
    assert all(len(entry["scores"]) == 5 for entry in data["verified"])
    baselines = call(folder, "pareto", "--json").json["baselines"]
    metrics = {entry["title"]: entry["searched"] for entry in data["verified"]}
    assert [metrics[row["baseline"]["title"]] for row in baselines] == [row["metric"] for row in baselines]
    with chdir(folder):
        tracker = open_tracking("sqlite:///mlflow.db")
        assert tracker.differences(read_study(folder, name="tiny/verified")) == []


@pytest.mark.slow
def test_baselines_none_trains_no_baseline(searched: tuple[Path, Done]) -> None:
    """Earlier verifications of baselines remain in the table."""
    folder, _ = searched
    done = call(folder, "verify", "--trials", "0", "--seeds", 6, "--baselines", "none", "--json")
    assert all(", seed 6" in line or "trial 0" in line for line in lines_of(done))
    assert not [line for line in lines_of(done) if "BitFit" in line]
    assert "BitFit" in json.dumps(done.json)


@pytest.mark.slow
def test_sync_restores_the_mirror_with_all_auxiliary_studies(searched: tuple[Path, Done], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(searched[0], tmp_path / "copy"))
    (folder / "mlflow.db").unlink()
    done = call(folder, "sync")
    assert done.code == 0
    assert [line.split(" in ")[0] for line in done.out.splitlines()] == [
        "study tiny", "study tiny/baselines", "study tiny/verified",
    ]  # fmt: skip
    with chdir(folder):
        assert open_tracking("sqlite:///mlflow.db").differences(read_study(folder, name="tiny/verified")) == []


@pytest.mark.slow
def test_deleting_a_study_deletes_its_verifications(searched: tuple[Path, Done], tmp_path: Path) -> None:
    """A new study of the same name does not get them."""
    folder = Path(shutil.copytree(searched[0], tmp_path / "copy"))
    assert call(folder, "studies", "delete", "tiny", "--yes").code == 0
    assert call(folder, "trials", "tiny/verified").code == 2
