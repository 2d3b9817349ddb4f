"""An idempotent mirror of a study in MLflow, which can be rebuilt at any time. The only home of mlflow."""

from __future__ import annotations

from farsearch.tracking.connection import UI_ENVIRONMENT, is_there, ui_command
from farsearch.tracking.content import FRONT_FILTER
from farsearch.tracking.tracker import SyncResult, Tracker, open_tracking

__all__ = ["FRONT_FILTER", "UI_ENVIRONMENT", "SyncResult", "Tracker", "is_there", "open_tracking", "ui_command"]
