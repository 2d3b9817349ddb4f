"""Results of a study's exports, reports and synchronizations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from farsearch.bundle.write import Written
    from farsearch.tracking.registry import Registered
    from farsearch.tracking.tensors import TensorsResult
    from farsearch.tracking.tracker import SyncResult

__all__ = ["Exported", "Report", "Synced"]


@dataclass(frozen=True)
class Exported:
    """A written bundle, and the version of the registry's model where it was registered."""

    bundle: Written
    registered: Registered | None = None


@dataclass(frozen=True)
class Report:
    """Files of a report."""

    page: Path
    figures: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Synced:
    """Changes by a synchronization with MLflow.

    Attributes:
        study: name of the study or auxiliary study.
        tensors: None where MLflow is no server.
    """

    study: str
    runs: SyncResult
    tensors: TensorsResult | None = None
