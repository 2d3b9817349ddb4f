"""What trials saved, as artifacts of an MLflow server: there a team's other hosts find what one host has trained.

::

    run of a trial    tensors/trained.safetensors, learners.json, logits.safetensors
    run of the study  primings/SHA256.safetensors     a primed start that several trials need, once

The tag ``farsearch.tensors`` of a trial's run is the manifest: size and SHA-256 of each file. It is written when all of
them are there. Names are fixed, and what a server lists is never taken for the name of a file here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from farsearch.files import write_json
from farsearch.json_records import Record
from farsearch.records import StudySnapshot, TrialRecord
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
    "KeptFile",
    "Manifest",
    "TensorsResult",
    "file_of",
    "find_held",
    "priming_name",
    "status_of",
    "upload_tensors",
]

TENSORS, PRIMINGS = "tensors", "primings"
"""Folders among the artifacts of a trial's run and of the study's."""

_SCHEMA = 1
_UNFINISHED = "uploading"
"""Stands in the place of the manifest until all files are there, so that what a kill left is found."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_PRIMING = re.compile(rf"{PRIMINGS}/([0-9a-f]{{64}})\.safetensors")


@dataclass(frozen=True)
class KeptFile(Record):
    """A file as it was uploaded; its size is in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest(Record):
    """What an MLflow server keeps of one trial.

    Attributes:
        metric: of the trial that they are of, which another study's of the same name hardly has.
        files: by name, those of ``kept.FILES``.
        priming: the primed start, None where there was no priming.
        priming_run: id of the run that has it.
    """

    schema_version: int
    metric: float
    files: Mapping[str, KeptFile]
    priming: KeptFile | None = None
    priming_run: str | None = None

    @property
    def kept(self) -> Sequence[KeptFile]:
        """All files."""
        return [*self.files.values(), *([] if self.priming is None else [self.priming])]

    @property
    def mib(self) -> float:
        """Size of all files."""
        return sum(file.size for file in self.kept) / 2**20


@dataclass(frozen=True)
class HeldTensors:
    """A run that has tensors; its manifest is None where they were not uploaded to the end, or it is not ours."""

    number: int
    run: Run
    manifest: Manifest | None


@dataclass(frozen=True)
class TensorsResult:
    """Trials by what was done with their tensors on the server; ``held`` counts those that it had already."""

    uploaded: int = 0
    held: int = 0
    removed: int = 0


def file_of(path: Path) -> KeptFile:
    """A file's size and SHA-256."""
    return KeptFile(file_digest(str(path)), path.stat().st_size)


def priming_name(priming: KeptFile) -> str:
    """A priming's name wherever it came from a server: hosts prime alike, but not always to the last bit."""
    return f"{priming.sha256}.safetensors"


def find_held(client: MlflowClient, experiment_id: str, study: str, view: int) -> list[HeldTensors]:
    """The runs of a study's trials that have tensors, by one search."""
    runs = find_tagged(client, experiment_id, study, TAG_TENSORS, view)
    numbered = [(run.data.tags.get(TAG_TRIAL, ""), run) for run in runs]
    return [
        HeldTensors(int(number), run, _read_manifest(run.data.tags[TAG_TENSORS]))
        for number, run in numbered
        if number.isdecimal()
    ]


def _read_manifest(text: str) -> Manifest | None:
    try:
        found = Manifest.from_dict(json.loads(text))
    except ValueError:  # no JSON, or another record
        return None
    digests = all(_SHA256.fullmatch(file.sha256) and file.size >= 0 for file in found.kept)
    primed = (found.priming is None) == (found.priming_run is None)
    run = found.priming_run is None or _RUN_ID.fullmatch(found.priming_run)
    ours = found.schema_version == _SCHEMA and set(found.files) == set(FILES)
    return found if ours and digests and primed and run else None


def status_of(error: BaseException) -> int | None:
    """The code of HTTP that a server refused something with; None where it was none that answered."""
    code = getattr(getattr(error, "response", None), "status_code", None)
    return code if isinstance(code, int) else None


def upload_tensors(connection: Connection, snapshot: StudySnapshot, study_folder: Path) -> TensorsResult:
    """Upload what this host has and the server lacks, and remove there what has left the front by more than noise.

    To be called after a sync, by one process at a time: trials without a run wait for the next one.

    Raises:
        MissingResource: where the server does not answer. The next call goes on from there.
    """
    name, uploaded, removed = snapshot.name, 0, 0
    with connection.writing() as client:
        experiment = client.get_experiment_by_name(family(name))
        parents = find_parents(client, experiment.experiment_id, name) if experiment is not None else []
        if experiment is None or not parents:
            return TensorsResult()
        up = _Upload(connection, client, experiment.experiment_id, parents[0], name)
        held = find_held(client, up.experiment, name, ViewType.ACTIVE_ONLY)
        complete = {trial.number: trial for trial in snapshot.trials if trial.state == "complete"}
        near = near_front(complete.values())
        there = {one.number for one in held if one.manifest and _is_of(one.manifest, complete.get(one.number))}
        for trial in complete.values():
            if trial.number not in there and (trial_folder(study_folder, trial.number) / TRAINED).is_file():
                uploaded += near(trial) and up.trial(trial, study_folder)
        for one in held:
            # a trial that this snapshot does not know as complete may be so in the next one
            if one.number in complete and not near(complete[one.number]):
                up.remove(one.run)
                removed += 1
        if removed:
            up.remove_primings()
    return TensorsResult(uploaded, len(there), removed)


def _is_of(manifest: Manifest, trial: TrialRecord | None) -> bool:
    return trial is None or manifest.metric == trial.metric


@dataclass
class _Upload:
    """One upload to the runs of one study; ``parent`` is the study's own."""

    connection: Connection
    client: MlflowClient
    experiment: str
    parent: Run
    study: str

    def trial(self, trial: TrialRecord, study_folder: Path) -> bool:
        """Upload one trial's files, if this host has them all and the trial has a run."""
        files = trial_files(study_folder, trial)
        runs = find_trial(self.client, self.experiment, self.study, trial.number) if files else []
        if files is None or not runs:
            return False
        run_id = runs[0].info.run_id
        self.client.set_tag(run_id, TAG_TENSORS, _UNFINISHED)
        try:
            manifest = self._files(files, trial, runs[0])
        except FileNotFoundError:  # a worker of this host swept it away meanwhile
            self.remove(runs[0])
            return False
        self.client.set_tag(run_id, TAG_TENSORS, json.dumps(manifest.to_dict(), sort_keys=True))
        return True

    def _files(self, files: TrialFiles, trial: TrialRecord, run: Run) -> Manifest:
        assert trial.metric is not None
        priming = None if files.priming is None else file_of(files.priming)
        with TemporaryDirectory(prefix="farsearch-") as scratch:
            # an artifact takes the name of the file that it is made from
            folder = Path(scratch)
            for name in (TRAINED, LOGITS):
                os.symlink((files.folder / name).absolute(), folder / name)
            write_json(folder / LEARNERS, {**files.notes, "primed": None if priming is None else priming_name(priming)})
            if files.priming is not None and priming is not None and not self._has(priming):
                os.symlink(files.priming.absolute(), folder / priming_name(priming))
                self._artifacts(self.parent).log_artifact(str(folder / priming_name(priming)), PRIMINGS)
            kept = {name: file_of(folder / name) for name in FILES}
            for name in FILES:
                self._artifacts(run).log_artifact(str(folder / name), TENSORS)
        manifest = Manifest(_SCHEMA, trial.metric, kept)
        return manifest if priming is None else replace(manifest, priming=priming, priming_run=self.parent.info.run_id)

    def _artifacts(self, run: Run) -> ArtifactRepository:
        return self.connection.artifacts_of(run)

    def _primings(self) -> Mapping[str, int | None]:
        """Bytes of the primings of the study's run, by path."""
        return {file.path: file.file_size for file in self._artifacts(self.parent).list_artifacts(PRIMINGS)}

    def _has(self, priming: KeptFile) -> bool:
        return self._primings().get(f"{PRIMINGS}/{priming_name(priming)}") == priming.size

    def remove(self, run: Run) -> None:
        """Remove a trial's tensors."""
        self._delete(run, TENSORS)
        self.client.delete_tag(run.info.run_id, TAG_TENSORS)

    def remove_primings(self) -> None:
        """Remove what no trial needs any more, one of a deleted run neither: its tensors can still be had."""
        held = find_held(self.client, self.experiment, self.study, ViewType.ALL)
        needed = {one.manifest.priming.sha256 for one in held if one.manifest and one.manifest.priming}
        for path in self._primings():
            found = _PRIMING.fullmatch(path)
            if found is not None and found[1] not in needed:
                self._delete(self.parent, path)

    def _delete(self, run: Run, path: str) -> None:
        try:
            self._artifacts(run).delete_artifacts(path)
        except (NotImplementedError, MlflowException):
            pass  # not every store of artifacts can: what is not needed stays there
        except OSError as error:
            if status_of(error) is None:
                raise
