"""One study: its trials and front, one trial by intent, and everything that is made of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from farsearch.api.results import Exported, Report, Synced
from farsearch.api.signature import takes_fields
from farsearch.errors import BadInput
from farsearch.formatting import mean_frozen
from farsearch.records import AnyTrial, BaselineTrial, Completed, CompleteTrial, StudySnapshot, Trial, flat
from farsearch.select import Choice, Intent

if TYPE_CHECKING:
    from farsearch.api.workspace import Workspace
    from farsearch.bundle.write import Written
    from farsearch.report.display import DisplayedFigure
    from farsearch.significance import Verdict
    from farsearch.tracking.registry import Registered

__all__ = ["Exported", "Report", "Study", "Synced"]


class Study:
    """A study, as ``search`` and ``open_study`` return it.

    Attributes:
        workspace: where the study is stored, mirrored and reported.
    """

    def __init__(self, snapshot: StudySnapshot, workspace: Workspace) -> None:
        self.workspace = workspace
        self.snapshot = snapshot

    def __repr__(self) -> str:
        counts = f"{len(self.snapshot.complete)} complete trials, {len(self.front)} on the front"
        return f"<Study {self.name}: {counts}>"

    @property
    def snapshot(self) -> StudySnapshot:
        """The study as of the last read or training, with the errors of its trials' differences."""
        return self._snapshot

    @snapshot.setter
    def snapshot(self, snapshot: StudySnapshot) -> None:
        from farsearch.api.mirror import with_predictions

        self._snapshot = with_predictions(snapshot, self.workspace.store())

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.snapshot.name

    @property
    def trials(self) -> list[AnyTrial]:
        """All trials by number, those that were stopped or failed too."""
        return list(self.snapshot.trials)

    @property
    def front(self) -> list[Trial[Completed]]:
        """The trials on the Pareto front, from the least memory to the most."""
        return list(self.snapshot.front)

    @property
    def baselines(self) -> list[BaselineTrial[Completed]]:
        """The best training of each baseline."""
        return list(self.snapshot.baselines)

    @property
    def won(self) -> tuple[str, ...]:
        """What was won against full fine-tuning and LoRA, in sentences."""
        from farsearch.select import won

        return won(self.snapshot)

    @property
    def verdicts(self) -> list[Verdict]:
        """Results of ``verify``, one for each point."""
        from farsearch.significance import verdicts

        return verdicts(self.snapshot)

    def refresh(self) -> Study:
        """Read the study again, and return it."""
        self.snapshot = self.workspace.open_study(self.name).snapshot
        return self

    def trials_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each trial, by number.

        Columns are the scalar fields of ``FlatTrial`` and ``FarConfig``, ``mean_frozen`` (the mean share of frozen
        neurons) and ``plan``; memory is in MiB, time in seconds.
        """
        import pandas

        rows = [_row(trial) for trial in self.snapshot.trials]
        return pandas.DataFrame(rows).set_index("number") if rows else pandas.DataFrame()

    def plot_front(self) -> DisplayedFigure:
        """Draw the metric against peak memory, coloured by time on the device; notebooks show the figure."""
        from farsearch.report import front_figure

        return front_figure(self.snapshot)

    def save_front(self, path: Path | str) -> Path:
        """Write the picture of ``plot_front`` as a PNG file of 1200 × 750 pixels, and return its path.

        Raises:
            BadInput: for another suffix than ``.png``.
        """
        from farsearch.files import check_new_file
        from farsearch.report import save_front_png

        path = Path(path)
        check_new_file(path, ".png")
        save_front_png(self.snapshot, path)
        return path

    @takes_fields(Intent)
    def choose(self, intent: Intent) -> Choice:
        """Choose one complete trial: the knee of the front, or by intent, bounds or number.

        Differences are tested on the trials' paired predictions where those are stored. Arguments are the fields of
        ``Intent``.

        Raises:
            BadInput: for a trial without a result, or contradictory arguments.
            NoFeasibleTrial: when the front is empty, or no trial on it is within the bounds.
        """
        from farsearch.api.mirror import remote_tensors, with_predictions
        from farsearch.select import choose

        snapshot, store = self.snapshot, self.workspace.store()
        remote = remote_tensors(store, snapshot, self.workspace.tracking_uri, self.workspace.console().print)
        if remote is not None:
            snapshot = with_predictions(snapshot, store, remote.bring_predictions)
        return choose(snapshot, intent)

    def export(
        self,
        choice: Choice | int,
        out: Path | str,
        *,
        delta: bool = False,
        onnx: bool = False,
        engine: Literal["torch", "onnx"] | None = None,
        register: str | None = None,
        alias: str = "deployed",
        refit: bool = False,
        data_dir: Path | None = None,
    ) -> Exported:
        """Write a trial as a bundle: start weights, learners, and the fine-tuned model. Only ``refit`` trains.

        Args:
            choice: of ``choose``, or the number of a complete trial.
            out: folder to write, new or empty, or a ``.zip`` file.
            delta: write only the difference to the public checkpoint.
            onnx: also write the fine-tuned model as ONNX, compared with torch.
            engine: that trains on the board, ``torch`` or ``onnx`` (without torch); None for that of the trial's plan.
            register: name of a model in MLflow's registry to add the bundle's model to.
            alias: of the registered version.
            refit: first train the trial again on the study's validation rows too; its development set stays unseen.
            data_dir: where a refit finds the study's data on this host; None for where the search had them.

        Raises:
            BadInput: for contradictory arguments, or when ``out`` exists.
            MissingResource: when the trial's tensors, the model or the data are missing.
            StudyMismatch: when a refit finds other data.
        """
        from farsearch.api.mirror import remote_tensors
        from farsearch.api.training import Here, refit_trial
        from farsearch.bundle.write import write_bundle
        from farsearch.tracking.registry import check_names

        if register is not None:
            if delta:
                raise BadInput("`delta` leaves the model away and `register` needs it; give one of them")
            check_names(register, alias)
        if data_dir is not None and not refit:
            raise BadInput("`data_dir` is read by `refit` alone; give both, or leave it out")
        if isinstance(choice, int):
            choice = self.choose(trial=choice)
        workspace, store, out = self.workspace, self.workspace.store(), Path(out)
        trial = choice.trial
        remote = remote_tensors(store, self.snapshot, workspace.tracking_uri, workspace.console().print)
        if remote is not None and not refit:
            remote.bring_trial(trial.number)
        final = partial(refit_trial, workspace, self.name, Here(data_dir))
        written = write_bundle(
            self.snapshot, trial, store.folder(self.name), out, choice.reason, home=workspace.home, delta=delta,
            onnx=onnx, engine=engine, refit=final if refit else None,
        )  # fmt: skip
        registered = None if register is None else self._register(trial, written, register, alias)
        return Exported(written, registered)

    def _register(self, trial: CompleteTrial, bundle: Written, name: str, alias: str) -> Registered:
        from farsearch.bundle.folder import opened_folder
        from farsearch.tracking.registry import register_model

        uri = self.workspace.tracking_uri
        if uri is None:
            raise BadInput("`register` needs MLflow's registry; give the workspace a `tracking_uri`")
        with opened_folder(bundle.path) as folder:
            return register_model(uri, self.snapshot, trial, folder / "model", name, alias, bundle.refit)

    def report(self, out: Path | str | None = None, *, figures: Path | str | None = None) -> Report:
        """Write the study as one self-contained HTML page, and return the paths.

        Args:
            out: the page; None for ``report-STUDY.html``.
            figures: folder that its pictures are written to, as PNG; None for the page alone.
        """
        from farsearch.files import check_new_file, write_bytes, write_text
        from farsearch.report import make_report

        # the name of an auxiliary study has a slash
        page = Path(out or f"report-{re.sub(r'[^A-Za-z0-9._+-]', '-', self.name)}.html")
        check_new_file(page, ".html")
        made = make_report(self.snapshot)
        pictures = {} if figures is None else {Path(figures) / name: data for name, data in made.figures.items()}
        for path in pictures:
            check_new_file(path, ".png")
        write_text(page, made.html)
        for path, data in pictures.items():
            write_bytes(path, data)
        return Report(page, tuple(pictures))

    def watch(self, *, host: str = "127.0.0.1", port: int = 5080, ready: Callable[[str], None] = print) -> None:
        """Serve a page that follows the search: what is trained, the time left, and the report, until interrupted.

        Args:
            host: address to listen on; any other than this machine's own lets others read the study.
            port: to listen on.
            ready: receives the page's address.

        Raises:
            MissingResource: when the port is in use.
        """
        from farsearch.api.watch import WatchServer

        with WatchServer(self.workspace, self.name, host, port) as server:
            ready(server.url)
            server.serve_forever()

    def resume(
        self,
        n_trials: int | None = None,
        *,
        timeout_s: float | None = None,
        workers: int = 1,
        data_dir: Path | None = None,
        model: str | None = None,
        device: str | None = None,
    ) -> Study:
        """Train further trials, and return the study.

        Args:
            n_trials: further trials; None for those that the study still lacks, as a further worker of a search.
            timeout_s: seconds after which no trial is started.
            workers: processes that train at once.
            data_dir, model, device: where data, model and profile are on this host; None for where the search had them.

        Raises:
            StudyMismatch: when data, model or profile are not those of the study.
            BadInput, NoFeasibleTrial, MissingResource, KeyboardInterrupt: as ``Workspace.search``.
        """
        from farsearch.api.training import Here, continue_search

        here = Here(data_dir, model, device)
        self.snapshot = continue_search(self.workspace, self.name, n_trials, timeout_s, workers, here)
        return self

    def reprice(
        self,
        device: str,
        *,
        name: str | None = None,
        data_dir: Path | None = None,
        model: str | None = None,
    ) -> Study:
        """Copy the study to another device: the same trainings at that device's costs. Nothing is trained.

        Trials keep their numbers and saved tensors, baselines are copied, verifications are not. The copy can be
        searched further. A call that was interrupted is continued.

        Args:
            device: its profile.
            name: of the copy; None for the default name of a search on that device.
            data_dir, model: as in ``resume``.

        Raises:
            BadInput: when a study of that name exists, or this one has not begun.
            StudyMismatch, MissingResource: as ``resume``.
        """
        from farsearch.api.training import Here, reprice_study

        return Study(reprice_study(self.workspace, self.name, name, Here(data_dir, model, device)), self.workspace)

    def verify(
        self,
        trials: Sequence[int] | None = None,
        *,
        seeds: int = 5,
        train_samples: int | Literal["all"] = "all",
        baselines: str = "paper",
        data_dir: Path | None = None,
        model: str | None = None,
        device: str | None = None,
    ) -> list[Verdict]:
        """Train points of the front again with other seeds, score them on the development set, and return the results.

        Trainings that are already stored are not repeated.

        Args:
            trials: numbers; None for the knee and the best in metric, memory and time.
            seeds: trainings of each point.
            train_samples: rows to train on, drawn by each seed.
            baselines: which of the study's baselines to train again too.
            data_dir, model, device: as in ``resume``.

        Raises:
            BadInput: for a trial without a result, or more rows than there are.
            StudyMismatch, NoFeasibleTrial, MissingResource, KeyboardInterrupt: as ``resume``.
        """
        from farsearch.api.training import Here, chosen_points, verify_study

        points = chosen_points(self.snapshot, trials, baselines)
        samples = None if train_samples == "all" else train_samples
        here = Here(data_dir, model, device)
        self.snapshot = verify_study(self.workspace, self.name, points, seeds, samples, here)
        return self.verdicts

    def with_auxiliary(self) -> list[StudySnapshot]:
        """Read the study again, and its baselines and verifications as studies of their own."""
        from farsearch.api.mirror import with_predictions
        from farsearch.study.names import AUXILIARY_KINDS
        from farsearch.study.read_only import ReadingStore, reading
        from farsearch.study.snapshot import snapshot_of

        with reading():
            store = ReadingStore(self.workspace.home, self.workspace.storage)
            auxiliary = [store.auxiliary(self.name, kind) for kind in AUXILIARY_KINDS]
            snapshots = [snapshot_of(study) for study in (store.load(self.name), *auxiliary) if study is not None]
        return [with_predictions(snapshot, self.workspace.store()) for snapshot in snapshots]

    def sync(self) -> list[Synced]:
        """Make MLflow show the study and its auxiliary studies as they are; upload their tensors to a server.

        Raises:
            BadInput: when the workspace has no ``tracking_uri``.
            MissingResource: when MLflow does not answer.
        """
        from farsearch.addresses import is_server
        from farsearch.study.store import storage_errors
        from farsearch.tracking import open_tracking

        uri = self.workspace.tracking_uri
        if uri is None:
            raise BadInput("`tracking_uri` is not given; give the workspace MLflow's address, sqlite:///mlflow.db")
        snapshots = self.with_auxiliary()
        tracker, store, synced = open_tracking(uri), self.workspace.store(), []
        for snapshot in snapshots:
            runs, tensors = tracker.sync(snapshot, report=True), None
            if is_server(uri):
                with storage_errors(store.where), store.mirror_lock(snapshot.name, wait=True):
                    tensors = tracker.upload_tensors(snapshot, store.folder(snapshot.name))
            synced.append(Synced(snapshot.name, runs, tensors))
        return synced


def _row(trial: AnyTrial) -> dict[str, Any]:
    """Return the scalar fields of a trial and of its configuration."""
    stored = flat(trial)
    config = {} if stored.config is None else {**stored.config.to_dict(), "mean_frozen": mean_frozen(stored.config)}
    plan = None if stored.plan is None else stored.plan.title
    values = {**stored.to_dict(), **config, "plan": plan}
    return {name: value for name, value in values.items() if isinstance(value, (str, int, float, type(None)))}
