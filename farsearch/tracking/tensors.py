"""Tensors of trials as artifacts of an MLflow server, from where other hosts of a team fetch them.

::

    run of a trial    tensors/trained.safetensors, learners.json, logits.safetensors
    run of the study  primings/SHA256.safetensors     a primed start that several trials need, once

The tag ``farsearch.tensors`` of a trial's run is the manifest: size and SHA-256 of each file, written after all files.
Names are fixed; a server's listing never names a local file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from farsearch.files import link_or_copy, write_json
from farsearch.json_records import Record
from farsearch.records import CompleteTrial, StudySnapshot
from farsearch.runtime.bundle_files import file_digest
from farsearch.study.predictions import trial_folder
from farsearch.study.retention import FILES, LEARNERS, LOGITS, TRAINED, TrialFiles, near_front, trial_files
from farsearch.tracking.connection import Connection
from farsearch.tracking.content import TAG_TENSORS, TAG_TRIAL, family
from farsearch.tracking.runs import find_parents, find_tagged, find_trial

__all__ = [
    "PRIMINGS",
    "TENSORS",
    "HeldTensors",
    "Manifest",
    "TensorsResult",
    "UploadedFile",
    "file_of",
    "find_held",
    "priming_name",
    "status_of",
    "upload_tensors",
]

TENSORS, PRIMINGS = "tensors", "primings"
"""Artifact folders of a trial's run and of the study's run."""

_SCHEMA = 1
_UNFINISHED = "uploading"
"""Replaces the manifest during an upload, so that the remains of a killed one are found."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_PRIMING = re.compile(rf"{PRIMINGS}/([0-9a-f]{{64}})\.safetensors")


@dataclass(frozen=True)
class UploadedFile(Record):
    """An uploaded file; its size is in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest(Record):
    """Uploaded files of one trial.

    Attributes:
        metric: of the trial; distinguishes another study of the same name.
        files: by name, those of ``retention.FILES``.
        priming: the primed start, None without priming.
        priming_run: id of the run that has it.
    """

    schema_version: int
    metric: float
    files: Mapping[str, UploadedFile]
    priming: UploadedFile | None = None
    priming_run: str | None = None

    @property
    def all_files(self) -> Sequence[UploadedFile]:
        """All files with the primed start."""
        return [*self.files.values(), *([] if self.priming is None else [self.priming])]

    @property
    def mib(self) -> float:
        """Total size."""
        return sum(file.size for file in self.all_files) / 2**20


@dataclass(frozen=True)
class HeldTensors:
    """A run with tensors; the manifest is None for an incomplete upload or an invalid tag."""

    number: int
    run: Run
    manifest: Manifest | None


@dataclass(frozen=True)
class TensorsResult:
    """Numbers of trials by the outcome of an upload; ``held`` were on the server already."""

    uploaded: int = 0
    held: int = 0
    removed: int = 0


def file_of(path: Path) -> UploadedFile:
    """Return a file's size and SHA-256."""
    return UploadedFile(file_digest(str(path)), path.stat().st_size)


def priming_name(priming: UploadedFile) -> str:
    """Return the file name of an uploaded priming, by content: primings of two hosts may differ in the last bits."""
    return f"{priming.sha256}.safetensors"


def find_held(client: MlflowClient, experiment_id: str, study: str, view: int) -> list[HeldTensors]:
    """Return the runs of a study's trials that have tensors, by one search."""
    runs = find_tagged(client, experiment_id, study, TAG_TENSORS, view)
    numbered = [(run.data.tags.get(TAG_TRIAL, ""), run) for run in runs]
    return [
        HeldTensors(int(number), run, _read_manifest(run.data.tags[TAG_TENSORS]))
        for number, run in numbered
        if number.isdecimal()
    ]


def _read_manifest(text: str) -> Manifest | None:
    try:
        manifest = Manifest.from_dict(json.loads(text))
    except ValueError:  # no JSON, or another record
        return None
    digests = all(_SHA256.fullmatch(file.sha256) and file.size >= 0 for file in manifest.all_files)
    primed = (manifest.priming is None) == (manifest.priming_run is None)
    run = manifest.priming_run is None or _RUN_ID.fullmatch(manifest.priming_run)
    ours = manifest.schema_version == _SCHEMA and set(manifest.files) == set(FILES)
    return manifest if ours and digests and primed and run else None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error; None if there was no answer."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def upload_tensors(connection: Connection, snapshot: StudySnapshot, study_folder: Path) -> TensorsResult:
    """Upload tensors that the server lacks, and delete those of trials that left the front by more than noise.

    Call it after a sync, in one process at a time: trials without a run are left for the next call.

    Raises:
        MissingResource: if the server does not answer. The next call resumes.
    """
    name, uploaded, removed = snapshot.name, 0, 0
    with connection.writing() as client:
        experiment = client.get_experiment_by_name(family(name))
        parents = find_parents(client, experiment.experiment_id, name) if experiment is not None else []
        if experiment is None or not parents:
            return TensorsResult()
        up = _Upload(connection, client, experiment.experiment_id, parents[0], name)
        held = find_held(client, up.experiment, name, ViewType.ACTIVE_ONLY)
        complete = {trial.number: trial for trial in snapshot.complete}
        near = near_front(complete.values())
        present = {one.number for one in held if one.manifest and _is_of(one.manifest, complete.get(one.number))}
        for trial in complete.values():
            if trial.number not in present and (trial_folder(study_folder, trial.number) / TRAINED).is_file():
                uploaded += near(trial) and up.trial(trial, study_folder)
        for one in held:
            # a trial that is not complete in this snapshot may be in the next one
            if one.number in complete and not near(complete[one.number]):
                up.remove(one.run)
                removed += 1
        if removed:
            up.remove_primings()
    return TensorsResult(uploaded, len(present), removed)


def _is_of(manifest: Manifest, trial: CompleteTrial | None) -> bool:
    return trial is None or manifest.metric == trial.outcome.metric


@dataclass
class _Upload:
    """One upload to the runs of one study; ``parent`` is the study's run."""

    connection: Connection
    client: MlflowClient
    experiment: str
    parent: Run
    study: str

    def trial(self, trial: CompleteTrial, study_folder: Path) -> bool:
        """Upload one trial's files, if this host has all of them and the trial has a run."""
        files = trial_files(study_folder, trial)
        runs = find_trial(self.client, self.experiment, self.study, trial.number) if files else []
        if files is None or not runs:
            return False
        run_id = runs[0].info.run_id
        self.client.set_tag(run_id, TAG_TENSORS, _UNFINISHED)
        try:
            manifest = self._files(files, trial, runs[0])
        except FileNotFoundError:  # a worker of this host deleted it meanwhile
            self.remove(runs[0])
            return False
        self.client.set_tag(run_id, TAG_TENSORS, json.dumps(manifest.to_dict(), sort_keys=True))
        return True

    def _files(self, files: TrialFiles, trial: CompleteTrial, run: Run) -> Manifest:
        priming = None if files.priming is None else file_of(files.priming)
        with TemporaryDirectory(prefix="farsearch-") as scratch:
            # an artifact has the name of its source file
            folder = Path(scratch)
            for name in (TRAINED, LOGITS):
                link_or_copy(files.folder / name, folder / name)
            write_json(folder / LEARNERS, {**files.notes, "primed": None if priming is None else priming_name(priming)})
            if files.priming is not None and priming is not None and not self._has(priming):
                link_or_copy(files.priming, folder / priming_name(priming))
                self._artifacts(self.parent).log_artifact(str(folder / priming_name(priming)), PRIMINGS)
            uploaded = {name: file_of(folder / name) for name in FILES}
            for name in FILES:
                self._artifacts(run).log_artifact(str(folder / name), TENSORS)
        manifest = Manifest(_SCHEMA, trial.outcome.metric, uploaded)
        return manifest if priming is None else replace(manifest, priming=priming, priming_run=self.parent.info.run_id)

    def _artifacts(self, run: Run) -> ArtifactRepository:
        return self.connection.artifacts_of(run)

    def _primings(self) -> Mapping[str, int | None]:
        """Return the sizes in bytes of the primings of the study's run, by path."""
        return {file.path: file.file_size for file in self._artifacts(self.parent).list_artifacts(PRIMINGS)}

    def _has(self, priming: UploadedFile) -> bool:
        return self._primings().get(f"{PRIMINGS}/{priming_name(priming)}") == priming.size

    def remove(self, run: Run) -> None:
        """Delete a trial's tensors."""
        self._delete(run, TENSORS)
        self.client.delete_tag(run.info.run_id, TAG_TENSORS)

    def remove_primings(self) -> None:
        """Delete primings that no trial needs, including trials of deleted runs, whose tensors can still be fetched."""
        held = find_held(self.client, self.experiment, self.study, ViewType.ALL)
        needed = {one.manifest.priming.sha256 for one in held if one.manifest and one.manifest.priming}
        for path in self._primings():
            match = _PRIMING.fullmatch(path)
            if match is not None and match[1] not in needed:
                self._delete(self.parent, path)

    def _delete(self, run: Run, path: str) -> None:
        try:
            self._artifacts(run).delete_artifacts(path)
        except (NotImplementedError, MlflowException):
            pass  # not every artifact store can delete
        except OSError as error:
            if status_of(error) is None:
                raise
