"""Settings of a search, their resolution into a job, and the preview."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from farsearch.cli import cli
from farsearch.cost.traced_model import shared_tables
from farsearch.errors import BadInput, MissingResource
from farsearch.models.config import load_config
from farsearch.models.heads import Head
from farsearch.records import FarConfig, JobSpec, Priming, StudySettings
from farsearch.resolve import Job, resolve_job
from farsearch.search_spec import FLAGS, RECORDED, SearchSpec
from farsearch.study.preview import Preview, preview_search
from farsearch.study.samplers import SAMPLERS
from farsearch.study.sizes import size_of
from farsearch.study.space import retired_space
from farsearch.study.store import Store
from tests.journey import chdir, prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with task and space. Tests do not write to it."""
    return prepare(tmp_path_factory.mktemp("job"))


def resolve(folder: Path, tiny: Path, **changes: Any) -> Job:
    """Resolve the tiny job, with changed settings."""
    said: list[str] = []
    values: dict[str, Any] = {
        "task": "sst2",
        "device": "jetson-nano",
        "model": str(tiny),
        "space": "tiny.yaml",
        "data_dir": folder / "data",
        **changes,
    }
    with chdir(folder):
        job = resolve_job(SearchSpec(**values), Store(folder / ".farsearch"), said.append)
    assert said == []
    return job


def test_a_job_resolves_rows_lengths_and_identities(folder: Path, tiny_bert: Path) -> None:
    """Without writing a file."""
    job = resolve(folder, tiny_bert)
    spec = job.settings.job
    assert (spec.task, spec.model, spec.seed) == ("sst2", "tiny-bert", 0)
    assert spec.train_samples + spec.validation_samples <= 480
    assert spec.validation_samples == len(job.split.validation) > 0
    assert (spec.max_length % 8, spec.max_length <= 128) == (0, True)
    assert re.fullmatch("[0-9a-f]{64}", spec.data)
    assert re.fullmatch("[0-9a-f]{64}", spec.weights)
    assert job.settings.space["fixed"]["epochs"] == 3.0
    assert job.default_name == "sst2-tiny-bert-jetson-nano-tiny"
    assert not (folder / ".farsearch").exists()


def test_recorded_names_are_pinned() -> None:
    """Stored studies are compared by these names; a renamed one would make them incompatible."""
    assert set(RECORDED) == {
        "task", "device", "model", "space", "data_dir", "train_samples", "epochs", "batch_size", "max_length", "seed",
        "fixed", "max_memory_mib", "max_time_s", "device_samples", "prime_on", "plan", "allow_pickle", "revision",
        "keep_head", "own", "engine", "class_weights", "patience", "label_smoothing", "clip_norm",
        "precision",
    }  # fmt: skip
    spec = SearchSpec(device="jetson-nano", seed=3, plan="memory", max_time_s=9.0, keep_head=True)
    assert spec.given(JobSpec) == {
        "keep_head": True, "patience": None, "label_smoothing": None, "clip_norm": None, "seed": 3,
    }  # fmt: skip
    assert spec.given(StudySettings) == {
        "max_memory_mib": None, "max_time_s": 9.0, "device_samples": None, "prime_on": "host", "plan": "memory",
        "precision": "float32",
    }  # fmt: skip


def test_the_command_line_has_an_option_for_each_setting() -> None:
    """With the same default, so that ``run`` and ``search`` agree."""
    options = {option.name: option for option in cli.commands["run"].params}
    for field in dataclasses.fields(SearchSpec):
        if field.name == "own":  # several options
            continue
        option = options[field.name]
        assert FLAGS[field.name] in option.opts
        assert option.required == (field.name == "device")
        if field.name not in ("device", "fixed"):
            assert option.default == field.default or not isinstance(field.default, (int, str))


def test_the_fingerprint_depends_on_contents_and_not_on_paths(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    settings = resolve(folder, tiny_bert).settings
    shutil.copytree(folder / "data", tmp_path / "data")
    shutil.copytree(tiny_bert, tmp_path / "tiny-bert")
    moved = resolve(folder, tmp_path / "tiny-bert", data_dir=tmp_path / "data").settings
    assert moved.fingerprint() == settings.fingerprint()
    with (tmp_path / "data" / "train.tsv").open("a") as file:
        file.write("one more film\t1\n")
    changed = resolve(folder, tiny_bert, data_dir=tmp_path / "data").settings
    assert any("job.data" in line for line in settings.differences(changed))


def test_the_default_name_is_a_valid_name(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """A model folder may have blanks in its name."""
    odd = tmp_path / "my model (2)"
    shutil.copytree(tiny_bert, odd)
    assert resolve(folder, odd).default_name == "sst2-my-model--2--jetson-nano-tiny"


def test_the_model_is_recorded_by_its_absolute_path(folder: Path, tiny_bert: Path) -> None:
    """An export may start in another working directory."""
    shutil.copytree(tiny_bert, folder / "here", dirs_exist_ok=True)
    assert resolve(folder, Path("here")).meta["model"] == str((folder / "here").resolve())


def test_a_value_given_twice_is_refused(folder: Path, tiny_bert: Path) -> None:
    """``epochs`` and ``fixed`` epochs are the same parameter."""
    with pytest.raises(BadInput, match=r"`epochs` 2\.0 and `fixed` epochs=1"):
        resolve(folder, tiny_bert, epochs=2.0, fixed={"epochs": 1})
    assert resolve(folder, tiny_bert, epochs=2.0).space.fixed["epochs"] == 2.0


def test_batch_size_and_rates_default_to_the_size_of_the_model(folder: Path, tiny_bert: Path) -> None:
    """The settings record the resolved value, the options None."""
    tiny = size_of(0)
    job = resolve(folder, tiny_bert, space="default")
    assert job.settings.job.batch_size == tiny.batch_size == 8
    rate = job.settings.space["search"]["learning_rate"]
    assert rate == {"low": tiny.learning_rate.low, "high": tiny.learning_rate.high, "log": True}
    assert job.meta["options"]["batch_size"] is None
    assert resolve(folder, tiny_bert, batch_size=3).settings.job.batch_size == 3


def test_a_length_above_the_limit_of_the_model_is_refused(folder: Path, tiny_bert: Path) -> None:
    with pytest.raises(BadInput, match=r"`max_length` is 129; .* at most 128 tokens"):
        resolve(folder, tiny_bert, max_length=129)
    assert resolve(folder, tiny_bert, max_length=128).settings.job.max_length == 128


def test_priming_on_the_device_uses_sgd_and_is_priced(folder: Path, tiny_bert: Path) -> None:
    """AdamW's state for every parameter would not fit a small device."""
    host, device = (resolve(folder, tiny_bert, prime_on=where, batch_size=16) for where in ("host", "device"))
    assert host.settings.job.priming == Priming()
    assert device.settings.job.priming.optimizer == "sgd"
    bench = device.bench(Store(folder / "none"))
    assert bench.primings.micro_batch_size == 4
    primed = FarConfig((0.5, 0.5), 1e-3, 3.0, priming_epochs=0.5)
    times = [job.pricer(bench).price(primed).time for job in (host, device)]
    assert "priming" not in times[0]
    assert times[1]["priming"] > 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task": "sst3"}, BadInput, "did you mean 'sst2'"),
        ({"model": "./nosuch"}, BadInput, "the model folder './nosuch' does not exist"),
        ({"data_dir": Path("nosuch")}, MissingResource, "the data folder 'nosuch' does not exist"),
        ({"fixed": {"frozen_bottom_layers": 7}}, BadInput, "the model has 2 layers"),
        ({"train_samples": 10_000}, BadInput, "more than the 480 rows"),
    ],
)
def test_settings_are_checked_before_calibration(
    folder: Path, tiny_bert: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The calibration for ``--device local`` takes a minute."""
    with pytest.raises(error, match=re.escape(message)):
        resolve(folder, tiny_bert, **{"device": "local", **changes})


def test_an_unknown_device_is_refused_before_data_are_loaded(folder: Path, tiny_bert: Path) -> None:
    with pytest.raises(BadInput, match=r"unknown device 'jetson-nono'; did you mean 'jetson-nano'"):
        resolve(folder, Path("no/such-model"), device="jetson-nono", data_dir=Path("nosuch"))


def test_a_peak_at_the_default_budget_fits_at_its_upper_end(folder: Path, tiny_bert: Path) -> None:
    """The upper end of a peak at the budget equals the lower end of the available memory."""
    job = resolve(folder, tiny_bert)
    profile, process = job.profile, job.profile.process_mib
    tensors = job.meta["budget_mib"] - process.value
    assert tensors * (1 + profile.held_share) + process.high == pytest.approx(profile.available_mib[0])
    assert resolve(folder, tiny_bert, max_memory_mib=500.0).meta["budget_mib"] == 500.0


def test_a_model_is_traced_once_per_process(folder: Path, tiny_bert: Path) -> None:
    """Jobs with other devices and bounds share its tables."""
    jobs = [resolve(folder, tiny_bert, device=device) for device in ("jetson-nano", "raspberry-pi-4")]
    first, second = (shared_tables(load_config(job.source), Head()) for job in jobs)
    assert first is second
    assert shared_tables(load_config(jobs[0].source), Head(outputs=3)) is not first


def test_the_preview_has_size_share_and_time(folder: Path, tiny_bert: Path) -> None:
    job = resolve(folder, tiny_bert, train_samples=64, max_length=16)
    bench = job.bench(Store(folder / "none"))
    pricer = job.pricer(bench)
    seen = preview_search(job.space, pricer, bench, "balanced", 8)
    assert seen.combinations == 2 * 5**2
    assert seen.continuous == ("learning_rate",)
    assert seen.share_feasible == 1.0
    assert seen.memory_mib[0] <= seen.memory_mib[1]
    assert seen.time_s[0] < seen.time_s[1]
    assert 0 < seen.priming_seconds < seen.trial_seconds < 60
    settings = dataclasses.replace(job.settings, max_time_s=sum(seen.time_s) / 2)
    pricer = dataclasses.replace(job, settings=settings).pricer(bench)
    assert 0 < preview_search(job.space, pricer, bench, "balanced", 8).share_feasible < 1


def test_the_preview_has_readable_figures() -> None:
    """Hours give a hint on how to shorten the search."""
    seen = Preview(840, ("learning_rate",), 0.345, (900.0, 1400.0), (30.0, 90.0), 200.0, 60.0, 30)
    space, host, hint = seen.lines()
    assert space == (
        "space: 840 combinations times a continuous learning_rate; 34% of 200 random ones fit: "
        "900 to 1,400 MiB, 30 s to 90 s on the device"
    )
    assert host == "this host: about 101.0 min for 30 trials of at most 3.3 min, 60 s of it for priming"
    assert "--train-samples" in hint
    assert len(dataclasses.replace(seen, n_trials=2).lines()) == 2
    assert dataclasses.replace(seen, combinations=1, continuous=()).lines()[0].startswith("space: 1 combination; ")
    assert "3.4e+08 combinations" in dataclasses.replace(seen, combinations=343_064_484).lines()[0]


def test_help_names_every_sampler() -> None:
    (setting,) = [each for each in dataclasses.fields(SearchSpec) if each.name == "sampler"]
    assert setting.metadata["help"].rstrip(".").replace(" or ", ", ").split(", ") == list(SAMPLERS)


@pytest.mark.parametrize("fixed", [{}, {"priming_epochs": 0.1}])
def test_study_of_an_earlier_default_space_continues_with_it(
    folder: Path, tiny_bert: Path, tmp_path: Path, fixed: dict[str, Any]
) -> None:
    """The same command finds the space that the study was begun with; a new study gets the new one."""
    store = Store(tmp_path)
    new = resolve(folder, tiny_bert, space="default", fixed=fixed)
    before = retired_space("default")
    assert before is not None
    begun = before.with_fixed(fixed).for_model(2, size_of(0))
    store.open("old", dataclasses.replace(new.settings, space=begun.to_dict()), new.meta)
    notes: list[str] = []
    spec = SearchSpec(
        task="sst2", device="jetson-nano", model=str(tiny_bert), data_dir=folder / "data", space="default", fixed=fixed
    )
    job = resolve_job(spec, store, notes.append, "old")
    assert job.space.search == begun.search
    assert any("older" in note for note in notes)
    store.check("old", job.settings, job.meta)
    assert resolve_job(spec, store, notes.append, "new").space.search == new.space.search
    other = dataclasses.replace(spec, fixed={"learning_rate": 1e-4})
    assert resolve_job(other, store, notes.append, "old").space.search != begun.search
