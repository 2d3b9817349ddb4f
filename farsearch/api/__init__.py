"""The library behind ``import farsearch`` and behind every command: one object for each thing that users handle.

=============  ==========================================================================
workspace.py   ``Workspace``: where studies are stored, mirrored and reported; starts them
study.py       ``Study``: reads, extends, verifies, exports and mirrors one study
training.py    what trains: a search with its workers, its baselines, its verification
estimate.py    predicted memory and time of a configuration or a whole space
progress.py    progress of a search, as lines on stderr
watch.py       a page that follows a search, served by this process
console.py     the console for that
mirror.py      a study's mirror in MLflow, updated during a search
pool.py        the worker processes of one search
signature.py   functions that take the fields of a record as keyword arguments
=============  ==========================================================================

Nothing is imported here, so that the command line can read ``HOME`` without waiting for torch, Optuna or MLflow.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["HOME"]

HOME = Path(".farsearch")
"""Journal, saved tensors and caches of a working directory."""
