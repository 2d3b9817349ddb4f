"""Orchestration of all training: a search with its workers, its baselines, its verification."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farsearch.api.mirror import LiveMirror, open_mirror
from farsearch.api.pool import Pool, worker_environment
from farsearch.api.progress import Notes, SearchProgress, SiblingProgress
from farsearch.baselines import Method, chosen_methods, default_choice
from farsearch.cost.pricer import Pricer
from farsearch.errors import BadInput
from farsearch.far.display import shown, shown_text
from farsearch.formatting import constant_words, human_time
from farsearch.records import Completed, StudySettings, StudySnapshot, Trial, flat
from farsearch.resolve import Job, rejoin_job, resolve_job
from farsearch.runtime.class_weights import balanced_weights
from farsearch.search_spec import SearchSpec
from farsearch.select import Intent, choose
from farsearch.significance import FEWEST_SEEDS
from farsearch.study.baselines import baseline_epochs, first_configs, has_baselines, train_baselines
from farsearch.study.names import check_study_name
from farsearch.study.preview import Preview, check_feasible, preview_search
from farsearch.study.refit import Refit, refit
from farsearch.study.repricing import check_copy, copy_baselines, copy_trials
from farsearch.study.samplers import check_sampler
from farsearch.study.search import Search, Watcher
from farsearch.study.snapshot import snapshot_of
from farsearch.study.store import Store
from farsearch.study.verify import Point, verify
from farsearch.tasks.summary import Tokens
from farsearch.training import Bench
from farsearch.training.host import check_host_memory

if TYPE_CHECKING:
    from rich.console import Console

    from farsearch.api.workspace import Workspace

__all__ = [
    "SEEDS",
    "Here",
    "chosen_points",
    "continue_search",
    "describe_search",
    "join_search",
    "refit_trial",
    "reprice_study",
    "run_search",
    "verify_study",
]

SEEDS = 5
"""Trainings of each verified point: with fewer, only large differences are significant."""


@dataclass(frozen=True)
class Here:
    """Where a study's data, model and device profile are on this host; None for where the search had them."""

    data_dir: Path | None = None
    model: str | None = None
    device: str | None = None


def run_search(workspace: Workspace, spec: SearchSpec) -> StudySnapshot:
    """Train baselines, search from the best of them, and verify, as specified. Errors as ``Workspace.search``."""
    console = workspace.console()
    store, job, name = _prepare(workspace, spec)
    mirror = open_mirror(console, store, workspace.tracking_uri)
    for line in _description(job, name):
        console.print(line)
    methods = chosen_methods(spec.baselines or default_choice(spec.n_trials))
    meta = job.meta if workspace.command is None else {**job.meta, "command": workspace.command}
    if not spec.verify and _is_done(store, name, spec.n_trials, methods):
        study = store.open(name, job.settings, meta)
        store.ask(lambda: study.set_user_attr("n_trials", spec.n_trials))
        snapshot = store.ask(lambda: snapshot_of(study))
        console.print(f"study {name}: {snapshot.finished} of {spec.n_trials} trials are done, nothing is left to train")
        _warn(console, mirror.last(snapshot))
        return snapshot
    console.print(_LOADING)
    _check_memory(job, spec.workers)
    bench = job.bench(store)
    pricer = job.pricer(bench)
    preview = preview_search(job.space, pricer, bench, job.settings.plan, spec.n_trials)
    for line in _preview_lines(preview, methods):
        console.print(line)
    study = store.open(name, job.settings, meta)
    progress = SearchProgress(console, spec.n_trials, job.data.spec.metric, mirror, workspace.callbacks)
    search = Search(study, store, bench, pricer, job.space, spec.sampler, job.settings.plan, progress, spec.racing)
    store.ask(lambda: study.set_user_attr("n_trials", spec.n_trials))
    _check_feasible(workspace, spec, job, bench, pricer, preview)
    if methods:
        _begin_at_baselines(console, search, methods, mirror)
    with progress:
        progress.resumed(store.ask(lambda: snapshot_of(study)))
        here = Here(spec.data_dir, spec.model, spec.device)
        snapshot = _run(search, spec.n_trials, spec.timeout_s, spec.workers, here, workspace, progress)
    if spec.verify and snapshot.front:
        points = chosen_points(snapshot, None, "paper")
        snapshot = _verify(console, search, job, points, SEEDS, None, mirror)
    _warn(console, mirror.last(snapshot))
    return snapshot


def describe_search(workspace: Workspace, spec: SearchSpec) -> Iterator[str]:
    """Describe a search and its duration in lines. Errors as ``Workspace.search``."""
    store, job, name = _prepare(workspace, spec)
    yield from _description(job, name)
    yield _LOADING
    _check_memory(job, spec.workers)
    bench = job.bench(store)
    pricer = job.pricer(bench)
    preview = preview_search(job.space, pricer, bench, job.settings.plan, spec.n_trials)
    yield from _preview_lines(preview, chosen_methods(spec.baselines or default_choice(spec.n_trials)))
    _check_feasible(workspace, spec, job, bench, pricer, preview)


def _check_feasible(
    workspace: Workspace, spec: SearchSpec, job: Job, bench: Bench, pricer: Pricer, preview: Preview
) -> None:
    """Check that a search would find a first trial, before minutes of baselines."""
    if preview.share_feasible == 0:
        others = job.other_pricer(bench, workspace.home)
        check_feasible(job.space, pricer, job.settings.plan, spec.sampler, bench.job.seed, others)


def continue_search(
    workspace: Workspace, name: str, n_trials: int | None, timeout_s: float | None, workers: int, here: Here
) -> StudySnapshot:
    """Train further trials of a study; None for those that it still lacks. Errors as ``Study.resume``."""
    console = workspace.console()
    store = workspace.store(console.print)
    mirror = open_mirror(console, store, workspace.tracking_uri)
    study = store.load(name)
    before = store.ask(lambda: snapshot_of(study))
    total = before.n_trials if n_trials is None else before.finished + n_trials
    with SearchProgress(console, total, before.metric_name, mirror, workspace.callbacks) as progress:
        progress.resumed(before)
        search, job = join_search(store, name, progress, here)
        if n_trials is not None:
            store.open(name, job.settings, job.meta)  # makes it the latest study
        snapshot = _run(search, None if n_trials is None else total, timeout_s, workers, here, workspace, progress)
    _warn(console, mirror.last(snapshot))
    return snapshot


def reprice_study(workspace: Workspace, name: str, copy: str | None, here: Here) -> StudySnapshot:
    """Copy a study to the device of ``here``, without training. Errors as ``Study.reprice``."""
    console = workspace.console()
    store = workspace.store(console.print)
    mirror = open_mirror(console, store, workspace.tracking_uri)
    source = store.load(name)
    recorded = store.ask(lambda: source.user_attrs)
    if "sampler" not in recorded:
        raise BadInput(f"the study {shown(name)} has no trial yet, so there is nothing to price; wait for its run")
    settings = StudySettings.from_dict(recorded["settings"])
    job = rejoin_job(
        name, settings, recorded["meta"], store, console.print,
        data_dir=here.data_dir, model=here.model, device=here.device,
    )  # fmt: skip
    theirs = dataclasses.replace(
        job.settings, device=settings.device, profile=settings.profile, pricing=settings.pricing,
        engine=settings.engine, engine_profile=settings.engine_profile,
    )  # fmt: skip
    store.check_here(source, theirs, job.meta)
    copy = copy or job.default_name
    check_copy(store, name, copy)
    pricer = job.pricer(job.bench(store))
    target = store.open(copy, job.settings, job.meta)
    copy_trials(source, target, store, pricer, settings.plan)
    copy_baselines(source, target, store, pricer)
    snapshot = store.ask(lambda: snapshot_of(target))
    _warn(console, mirror.last(snapshot))
    return snapshot


def verify_study(
    workspace: Workspace, name: str, points: Sequence[Point], seeds: int, samples: int | None, here: Here
) -> StudySnapshot:
    """Train points again with other seeds. Errors as ``Study.verify``.

    Args:
        samples: rows to train on; None for all.
    """
    console = workspace.console()
    store = workspace.store(console.print)
    mirror = open_mirror(console, store, workspace.tracking_uri)
    search, job = join_search(store, name, Notes(console), here)
    snapshot = _verify(console, search, job, points, seeds, samples, mirror)
    _warn(console, mirror.last(snapshot))
    return snapshot


def refit_trial(workspace: Workspace, name: str, here: Here, trial: Trial[Completed]) -> Refit:
    """Train a trial again on the held-out rows too. Errors as ``Study.export``."""
    console = workspace.console()
    store = workspace.store(console.print)
    job, _ = _rejoin(store, name, here, console.print)
    final = job.final()
    rows = final.settings.job.train_samples
    held_out = rows - job.settings.job.train_samples
    console.print(f"training trial {trial.number} again on {rows:,} rows, {held_out:,} of them held out before")
    with SiblingProgress(console, "final model", job.data.spec.metric, open_mirror(console, store, None)) as progress:
        progress.training_started(f"trial {trial.number}", 1, 1, trial.cost)
        return refit(final.bench(store), trial, progress.step, progress.note)


def join_search(
    store: Store, name: str | None, watcher: Watcher, here: Here, note: Callable[[str], None] | None = None
) -> tuple[Search, Job]:
    """Return the search of an existing study on this host, and its job.

    Args:
        note: reports on data and model; None for the watcher's.

    Raises:
        BadInput: when the study does not exist or has not begun.
        StudyMismatch: when data, model or profile are not those of the study.
    """
    study = store.load(name)
    job, recorded = _rejoin(store, study.study_name, here, note or watcher.note)
    _check_memory(job)
    bench = job.bench(store)
    search = Search(
        study, store, bench, job.pricer(bench), job.space, recorded["sampler"], job.settings.plan, watcher,
        recorded["racing"],
    )  # fmt: skip
    return search, job


def _rejoin(
    store: Store, name: str, here: Here, note: Callable[[str], None]
) -> tuple[Job, Mapping[str, Any]]:  # fmt: skip
    """Return the job of an existing study on this host, and what the study records. Errors as ``join_search``."""
    study = store.load(name)
    recorded = store.ask(lambda: study.user_attrs)
    if "sampler" not in recorded:
        raise BadInput(f"the study {shown(name)} has not begun; wait for its farsearch run, or start that again")
    settings = StudySettings.from_dict(recorded["settings"])
    job = rejoin_job(
        name, settings, recorded["meta"], store, note,
        data_dir=here.data_dir, model=here.model, device=here.device,
    )  # fmt: skip
    store.check_here(study, job.settings, job.meta)
    return job, recorded


def chosen_points(snapshot: StudySnapshot, trials: Sequence[int] | None, baselines: str) -> list[Point]:
    """Return trials and baselines of a study to verify.

    Args:
        trials: numbers; None for the knee of the front and its best in metric, memory and time.

    Raises:
        BadInput: for a trial without a result.
        NoFeasibleTrial: when the front is empty.
    """
    intents = (
        [Intent(prefer=prefer) for prefer in ("knee", "accuracy", "memory", "time")]
        if trials is None
        else [Intent(trial=number) for number in trials]
    )
    numbers = dict.fromkeys(choose(snapshot, intent).trial.number for intent in intents)
    known = {trial.number: trial for trial in snapshot.complete if isinstance(trial, Trial)}
    methods = {method.name for method in chosen_methods(baselines)}
    beside = [Point(trial) for trial in snapshot.baselines if trial.baseline.method in methods]
    return [*(Point(known[number]) for number in numbers if number in known), *beside]


def _prepare(workspace: Workspace, spec: SearchSpec) -> tuple[Store, Job, str]:
    """Resolve the job and the study's name. Cheap checks come before reading model and data."""
    check_sampler(spec.sampler)
    chosen_methods(spec.baselines or "none")
    if spec.study is not None:
        check_study_name(spec.study)
    note = workspace.console().print
    store = workspace.store(note)
    job = resolve_job(spec, store, note, spec.study)
    name = spec.study or job.default_name
    store.check(name, job.settings, job.meta)
    return store, job, name


def _check_memory(job: Job, workers: int = 1) -> None:
    """Raise MissingResource where this machine has not the memory to train the model in so many processes."""
    check_host_memory(job.settings.job, job.source, job.data.spec.task, workers)


_LOADING = "loading the model, pricing configurations and timing training steps on this host"


def _description(job: Job, name: str) -> Iterator[str]:
    spec, settings = job.settings.job, job.settings
    yield (
        f"study {name}: {spec.task} ({job.data.source}), {spec.model}, {spec.train_samples} training and "
        f"{spec.validation_samples} validation rows, batch {spec.batch_size}, at most {spec.max_length} tokens"
    )
    yield Tokens.from_dict(job.meta["understood"]["tokens"]).text
    yield constant_words(job.data.spec.metric, job.meta)
    if spec.class_weights != "none":
        yield _weights_line(job)
    low, high = job.profile.available_mib
    yield (
        f"device {settings.device}: {job.profile.title}; {low:.0f} to {high:.0f} MiB for the process "
        f"({job.profile.basis} figures)"
    )


def _weights_line(job: Job) -> str:
    """The weights of the rarest and the commonest class."""
    labels, rows = job.data.spec.labels, job.data.train.take(job.split.train).answers
    by_weight = sorted(zip(balanced_weights(rows, len(labels)), map(shown_text, labels), strict=True))
    (low, common), (high, rare) = by_weight[0], by_weight[-1]
    return f"class weights: balanced, {low:.2f} for {common} to {high:.2f} for {rare} (--class-weights none: all equal)"


def _preview_lines(preview: Preview, methods: Sequence[Method]) -> Iterator[str]:
    yield from preview.lines()
    if count := sum(len(method.learning_rates) for method in methods):
        seconds = human_time(count * preview.trial_seconds)
        yield f"before them {count} trainings of baselines, about {seconds}; none where the cache has them"


def _is_done(store: Store, name: str, n_trials: int, methods: Sequence[Method]) -> bool:
    """Return whether a search has nothing left to train, so that no model need be loaded."""
    if name not in store.names():
        return False
    study = store.load(name)
    snapshot = store.ask(lambda: snapshot_of(study))
    running = any(flat(trial).state == "running" for trial in snapshot.trials)  # perhaps of a dead worker
    return not running and snapshot.finished >= n_trials and has_baselines(store, study, methods)


def _run(
    search: Search, n_trials: int | None, timeout_s: float | None, workers: int, here: Here, workspace: Workspace,
    progress: SearchProgress,
) -> StudySnapshot:  # fmt: skip
    """Search in this process, or in several that this one starts and monitors."""
    if workers == 1:
        return search.run(n_trials, timeout_s)
    if n_trials is not None:
        search.prepare(n_trials)
    options = {
        "--data-dir": here.data_dir,
        "--model": here.model,
        "--device": here.device,
        "--heartbeat": workspace.heartbeat_s,
    }
    given = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    environment = worker_environment(workers, search.store.url)
    arguments = [search.study.study_name, *given]
    Pool(workers, arguments, environment, progress, search.snapshot, search.store.ask).run(timeout_s)
    return search.store.ask(search.snapshot)


def _begin_at_baselines(console: Console, search: Search, methods: Sequence[Method], mirror: LiveMirror) -> None:
    """Train the baselines that the front is compared with, and let the search begin at those that it can train."""
    titles = ", ".join(method.title for method in methods)
    console.print(
        f"baselines ({titles}): epochs {baseline_epochs(search.space):g}, each at three learning rates of its own, and "
        "more where none learns; the best are the first trials (--baselines none leaves them out)"
    )
    with SiblingProgress(console, "baselines", search.bench.data.spec.metric, mirror) as progress:
        search.begin_at(first_configs(train_baselines(search, methods, progress)))


def _verify(
    console: Console, search: Search, job: Job, points: Sequence[Point], seeds: int, samples: int | None,
    mirror: LiveMirror,
) -> StudySnapshot:  # fmt: skip
    rows = len(job.data.train) if samples is None else samples
    titles = ", ".join(point.title for point in points)
    console.print(f"verifying {titles}: {seeds} seed{'s' * (seeds != 1)} each, on {rows:,} rows")
    if seeds < FEWEST_SEEDS:
        console.print(
            f"that is too few to distinguish an advantage from noise; {FEWEST_SEEDS} seeds are the least for a verdict"
        )
    with SiblingProgress(console, "verification", job.data.spec.metric, mirror) as progress:
        return verify(search, points, seeds, samples, job.pricer, progress)


def _warn(console: Console, warning: str | None) -> None:
    if warning is not None:
        console.print(warning)
