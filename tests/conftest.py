"""Settings that every test runs under. Markers and warnings are configured in pyproject.toml."""

from __future__ import annotations

import os

# Before torch is imported anywhere: pytest runs one process a core, so one thread each. One thread also makes the
# order of sums, and with it every figure, the same from run to run.
os.environ["OMP_NUM_THREADS"] = "1"
# Tests need nothing but the install: whatever would ask a network fails at once. A test of the unreachable hub starts
# a process with an environment of its own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Pictures are written, never shown.
os.environ["MPLBACKEND"] = "agg"
