"""Resolution of a search's settings into a job: task, model, data, device profile and space."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from farsearch.calibration.local import engine_profiles, find_profile
from farsearch.cost.plans import check_precision
from farsearch.cost.pricer import Pricer, priming_plan
from farsearch.cost.traced_model import shared_tables
from farsearch.devices import Profile
from farsearch.devices.registry import LOCAL
from farsearch.errors import BadInput, StudyMismatch
from farsearch.far.display import shown
from farsearch.models.config import load_config
from farsearch.models.count import layer_parameters
from farsearch.models.families import layout_of, max_length_of
from farsearch.models.source import ModelSource, resolve_model
from farsearch.models.tokenizer import check_words, load_tokenizer
from farsearch.records import PRICING, Engine, Engines, JobSpec, Priming, StudySettings
from farsearch.search_spec import RECORDED, SearchSpec
from farsearch.study.names import usable_name
from farsearch.study.recorded import Recorded
from farsearch.study.sizes import Size, size_of
from farsearch.study.space import Space, load_space, retired_space
from farsearch.study.store import Store
from farsearch.tasks.constant_answer import constant_answer
from farsearch.tasks.custom import load_own
from farsearch.tasks.description import OwnData, own_data
from farsearch.tasks.encode import default_max_length
from farsearch.tasks.imbalance import check_smoothing, chosen_weights
from farsearch.tasks.load import load_task
from farsearch.tasks.spec import TaskData, get_task
from farsearch.tasks.split import Split, split_examples
from farsearch.tasks.summary import token_counts, understand
from farsearch.training import Bench

__all__ = ["DEFAULT_MODEL", "Job", "rejoin_job", "resolve_job"]

DEFAULT_MODEL = "distilbert-base-uncased"
_EMBEDDED_MODEL = "minilm"
"""Model of the embedded sample, which works without a network."""

_TRAIN_SAMPLES = 4096
_VERSIONED = ("farsearch", "torch", "transformers", "optuna", "mlflow")


@dataclass(frozen=True)
class Job:
    """A resolved job: its data is read and split, nothing is trained yet.

    Attributes:
        engines: profiles by the engines whose plans compete.
        meta: metadata of the study, not part of its fingerprint.
    """

    settings: StudySettings
    source: ModelSource
    data: TaskData
    split: Split
    profile: Profile
    engines: Mapping[Engine, Profile]
    space: Space
    meta: Mapping[str, Any]

    @property
    def default_name(self) -> str:
        """``TASK-MODEL-DEVICE-SPACE``, in characters that a folder's name can have."""
        return _default_name(self.settings.job.task, self.source.name, self.settings.device, self.space.name)

    def final(self) -> Job:
        """Return the job of a final model, which trains on the held-out rows too."""
        rows = self.split.final(len(self.data.train))
        job = dataclasses.replace(self.settings.job, train_samples=len(rows), validation_samples=0)
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, job=job), split=Split(rows, ()))

    def bench(self, store: Store) -> Bench:
        """Load model and data for training."""
        job = self.settings.job
        micro = None
        if self.settings.prime_on == "device":
            micro = priming_plan(job.priming.optimizer, job.batch_size).micro_batch_size
        return Bench(job, self.source, self.data, self.split, store.cache, micro)

    def pricer(self, bench: Bench) -> Pricer:
        """Return the cost model of this job's configurations on its device."""
        return self._pricer(bench, self.engines)

    def other_pricer(self, bench: Bench, home: Path) -> Pricer | None:
        """Return that of the engines that do not compete; None where the device has figures of no other."""
        every = engine_profiles(self.profile, "any", home)
        others = {engine: profile for engine, profile in every.items() if engine not in self.engines}
        return self._pricer(bench, others) if others else None

    def _pricer(self, bench: Bench, engines: Mapping[Engine, Profile]) -> Pricer:
        settings, job = self.settings, self.settings.job
        config, lengths = load_config(self.source), bench.train_rows.lengths
        samples = settings.device_samples
        return Pricer(
            config, bench.head, job.batch_size, job.max_length, self.profile, engines=engines, lengths=lengths,
            seed=job.seed, prime_on_device=settings.prime_on == "device", priming_optimizer=job.priming.optimizer,
            precision=settings.precision, max_memory_mib=settings.max_memory_mib, max_time_s=settings.max_time_s,
            # the model sees a long context as several rows
            device_samples=None if samples is None else round(samples * len(lengths) / job.train_samples),
            watched_rows=bench.watched_rows or None, clips=job.clip_norm is not None,
            tables=shared_tables(config, bench.head), traces=bench.cache / "traces",
        )  # fmt: skip


def resolve_job(options: SearchSpec, store: Store, progress: Callable[[str], None], study: str | None = None) -> Job:
    """Read data, model configuration, space and profile.

    Args:
        study: name of the study; None for the default name. For an existing study, model and data are read at its
            commits of the hub.

    Raises:
        BadInput: for a value that breaks a rule.
        MissingResource: for data or a model that can't be read.
        StudyMismatch: when the study's commits no longer exist.
    """
    options = _with_own_data(options)
    space = load_space(options.space).with_fixed(_fixed(options))

    def recorded(source: ModelSource, task: str, device: str) -> Recorded | None:
        name = study or _default_name(task, source.name, device, space.name)
        if name not in store.names():
            return None
        about = store.load(name).user_attrs
        settings = StudySettings.from_dict(about["settings"])
        return Recorded.of(name, settings, about["meta"], settings.engine)

    return _resolve(options, space, store, progress, recorded)


def _with_own_data(options: SearchSpec) -> SearchSpec:
    """Return the settings with the user's own task described in full; unchanged for an official task."""
    if options.own is not None and "name" in options.own:
        return options
    described = own_data(options.task, options.own or {})
    return options if described is None else dataclasses.replace(options, task=described.name, own=described.to_dict())


def _task(options: SearchSpec) -> str:
    assert options.task is not None  # after `_with_own_data`
    return options.task


def _default_name(task: str, model: str, device: str, space: str) -> str:
    return usable_name(f"{task}-{model}-{device}-{space}")


def rejoin_job(
    study: str,
    settings: StudySettings,
    meta: Mapping[str, Any],
    store: Store,
    progress: Callable[[str], None],
    *,
    data_dir: Path | None = None,
    model: str | None = None,
    device: str | None = None,
) -> Job:
    """Resolve the job of a study with this host's data, model and profile. ``Store.check_here`` compares them.

    Args:
        study: its name.
        settings, meta: recorded in it.
        data_dir, model, device: where they are on this host; None for where the study's first host had them.

    Raises:
        StudyMismatch: when the study does not record its options.
        BadInput, MissingResource: as ``resolve_job``.
    """
    known = meta.get("options")
    if not isinstance(known, Mapping) or not known.keys() <= set(RECORDED):
        raise StudyMismatch(
            f"the study {shown(study)} was made by another version, which did not record all that a worker needs; "
            "repeat its farsearch run, which adds them"
        )
    folder = known["data_dir"] if data_dir is None else data_dir
    options = SearchSpec(
        **{
            **known,
            "data_dir": None if folder is None else Path(folder),
            "model": model or known["model"],
            "device": device or known["device"],
            # defaults by the size of the model, as resolved on the first host
            "batch_size": settings.job.batch_size,
            "max_length": settings.job.max_length,
        }
    )
    # from the study's settings: the space's file may have changed, or be on another host
    space = Space.from_settings(settings.space)

    def recorded(_source: ModelSource, _task: str, device: str) -> Recorded:
        return Recorded.of(study, settings, meta, settings.engine if device == settings.device else None)

    return _resolve(options, space, store, progress, recorded)


def _resolve(
    options: SearchSpec,
    space: Space,
    store: Store,
    progress: Callable[[str], None],
    recorded_of: Callable[[ModelSource, str, str], Recorded | None],
) -> Job:
    """Read data, model configuration and profile.

    Cheap checks come before downloads and the calibration of this machine.

    Args:
        recorded_of: (model, task, device) to the identities recorded in their study; None without a study.
    """
    data = _own_rows(options, progress)
    name = options.model or (_EMBEDDED_MODEL if options.task == "reviews" else DEFAULT_MODEL)
    source = resolve_model(name, options.allow_pickle, options.revision, progress)
    shipped = None if options.device == LOCAL else find_profile(options.device, store.home, progress)
    recorded = recorded_of(source, _task(options), LOCAL if shipped is None else shipped.name)
    if recorded is not None and data is not None:
        data = recorded.task(data, options.own or {}, progress)
    if recorded is not None and options.revision is None and not source.local:
        source = dataclasses.replace(source, revision=recorded.model(source))
    with nullcontext() if recorded is None or options.revision is not None else recorded.errors():
        return _read(options, space, store, progress, data, name, source, shipped, recorded)


def _read(
    options: SearchSpec,
    space: Space,
    store: Store,
    progress: Callable[[str], None],
    data: TaskData | None,
    name: str,
    source: ModelSource,
    shipped: Profile | None,
    recorded: Recorded | None,
) -> Job:
    config = load_config(source)
    layers, size = len(layout_of(config).layers), size_of(layer_parameters(config))
    space = space.for_model(layers, size)
    if recorded is not None and (before := retired_space(options.space)) is not None:
        space = recorded.begun_with(space, before.with_fixed(_fixed(options)).for_model(layers, size), progress)
    space.distributions(layers)
    data = data or _official_data(options, recorded, progress)
    check_smoothing(options.label_smoothing, data)
    split = _split(data, options)
    tokenizer = load_tokenizer(source, data.spec.kind)
    check_words(tokenizer, data.train.texts, source.name)
    max_length = _max_length(options, source, tokenizer, data, size)
    profile = shipped or find_profile(options.device, store.home, progress)
    job = JobSpec(
        task=data.spec.name,
        data=data.fingerprint,
        model=source.name,
        weights=_weights(source, recorded),
        train_samples=len(split.train),
        validation_samples=len(split.validation),
        batch_size=options.batch_size or size.batch_size,
        max_length=max_length,
        priming=_priming(options),
        positive=data.spec.positive,
        class_weights=chosen_weights(options.class_weights, recorded.class_weights if recorded else None, data),
        **options.given(JobSpec),
    )
    engine = options.engine or ("torch" if options.precision != "float32" else _usual_engine(profile, recorded))
    engines = engine_profiles(profile, engine, store.home)
    check_precision(options.precision, profile, layout_of(config), engines)
    if engine == "onnx" and options.prime_on == "device":
        raise BadInput("`prime_on` is 'device' and `engine` 'onnx': priming needs torch; give one of them")
    tokens = token_counts(tokenizer, data.train, data.spec.kind, max_length)
    settings = StudySettings(
        job=job,
        device=profile.name,
        profile=profile.digest_in(options.precision),
        space=space.to_dict(),
        pricing=PRICING,
        engine="torch" if tuple(engines) == ("torch",) else engine,
        engine_profile=engines["onnx"].digest if "onnx" in engines else None,
        **options.given(StudySettings),
    )
    understood = dataclasses.replace(understand(data), tokens=tokens)
    about = {"understood": understood.to_dict(), "constant_answer": _constant_answers(data, split)}
    meta = {**_meta(name, source, data, profile, engines, options), **about}
    return Job(settings, source, data, split, profile, engines, space, meta)


def _usual_engine(profile: Profile, recorded: Recorded | None) -> Engines:
    """Return the study's choice of engines; of a new study any on a device that torch's process fills by half.

    Elsewhere torch alone: to price compiled steps too takes the first study of a model a minute or two.
    """
    if recorded is not None and recorded.engine is not None:
        return recorded.engine
    return "any" if 2 * profile.process_mib.high > profile.available_mib[0] else "torch"


def _constant_answers(data: TaskData, split: Split) -> dict[str, Any]:
    """Return the scores of a constant answer on the validation and the development rows."""
    parts = {"validation": data.train.take(split.validation).answers, "dev": data.dev.answers}
    return {name: constant_answer(data.spec.task, answers).to_dict() for name, answers in parts.items() if answers}


def _weights(source: ModelSource, recorded: Recorded | None) -> str:
    """Return the identity of the weights; that of the study where it was made before commits were recorded."""
    by_branch = f"{source.location}@main"
    return by_branch if recorded is not None and recorded.weights == by_branch else source.digest()


def _own_rows(options: SearchSpec, progress: Callable[[str], None]) -> TaskData | None:
    """Read the rows of the user's own task; return None for an official task."""
    if options.own is None:
        get_task(_task(options))
        return None
    return load_own(OwnData.from_dict(options.own), progress, options.data_dir)


def _official_data(options: SearchSpec, recorded: Recorded | None, progress: Callable[[str], None]) -> TaskData:
    """Read the rows of an official task, at the study's commit."""
    if recorded is None:
        return load_task(_task(options), options.data_dir, None, progress)
    # also where `revision` names another commit of the model
    with recorded.errors():
        return load_task(_task(options), options.data_dir, recorded.data, progress)


def _max_length(options: SearchSpec, source: ModelSource, tokenizer: Any, data: TaskData, size: Size) -> int:
    """Return the given maximum, or the tokens of the longest text up to the size's default; within the model's."""
    limit = max_length_of(load_config(source))
    if options.max_length is None:
        return default_max_length(tokenizer, data.train, data.spec.task, min(limit, size.max_length))
    if options.max_length > limit:
        raise BadInput(f"`max_length` is {options.max_length}; {source.name} takes at most {limit} tokens")
    return options.max_length


def _fixed(options: SearchSpec) -> dict[str, Any]:
    fixed = dict(options.fixed)
    if options.epochs is not None:
        if "epochs" in fixed:
            raise BadInput(f"`epochs` {options.epochs} and `fixed` epochs={fixed['epochs']}: give one of them")
        fixed["epochs"] = options.epochs
    return fixed


def _split(data: TaskData, options: SearchSpec) -> Split:
    samples = None if options.train_samples == "all" else options.train_samples
    if options.train_samples is None and len(data.train) > _TRAIN_SAMPLES:
        samples = _TRAIN_SAMPLES
    return split_examples(data.train, samples, options.seed, kind=data.spec.kind)


def _priming(options: SearchSpec) -> Priming:
    if options.prime_on == "device":
        # AdamW's two state tensors for every parameter do not fit a small device
        return Priming(optimizer="sgd", learning_rate=1e-2)
    return Priming()


def _meta(
    name: str, source: ModelSource, data: TaskData, profile: Profile, engines: Mapping[Engine, Profile],
    options: SearchSpec,
) -> dict[str, Any]:  # fmt: skip
    """Return metadata for reports, and the options with which another host joins. Not part of the fingerprint."""
    # a folder by its absolute path, a known model by its short name on any machine
    model = source.location if Path(name).expanduser().is_dir() else name
    data_dir = None if options.data_dir is None else str(options.data_dir.expanduser().resolve())
    file = options.device.endswith(".toml")
    budget_mib = max(each.budget_mib for each in engines.values())
    return {
        "metric": data.spec.metric,
        "budget_mib": min(budget_mib, options.max_memory_mib or budget_mib),
        "model": model,
        "data_source": data.source,
        "data_commit": data.commit,
        "data_files": {part: {"name": name, "rows": rows} for part, (name, rows) in data.files.items()},
        "data_dir": data_dir,
        "labels": list(data.spec.labels),
        "task": data.spec.to_dict(),
        "device_title": profile.title,
        "profile_basis": profile.basis,
        "host": platform.processor() or platform.machine(),
        "versions": {package: metadata.version(package) for package in _VERSIONED},
        "options": {
            **options.recorded(),
            "model": model,
            "data_dir": data_dir,
            "device": str(Path(options.device).resolve()) if file else options.device,
            "fixed": dict(options.fixed),
        },
    }
