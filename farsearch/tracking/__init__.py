"""An idempotent mirror of a study in MLflow, which can be rebuilt from the study at any time. The only home of mlflow."""

from __future__ import annotations

from farsearch.tracking.content import FRONT_FILTER
from farsearch.tracking.tracker import SyncResult, Tracker, open_tracking, ui_command

__all__ = ["FRONT_FILTER", "SyncResult", "Tracker", "open_tracking", "ui_command"]
