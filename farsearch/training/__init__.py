"""One trial's training: prime, select, reconfigure, run the FAR phase, evaluate, put the model back together.

===============  ====================================================================
phase.py         the FAR phase on a reconfigured model, and the training of any other
intermediate.py  the validation metric in the middle of it
bench.py         model, rows and primings of a job, on which its trials are trained
===============  ====================================================================
"""

from __future__ import annotations

from farsearch.training.bench import Bench, Outcome
from farsearch.training.intermediate import LOOKS, Look, look_rows
from farsearch.training.phase import far_phase

__all__ = ["LOOKS", "Bench", "Look", "Outcome", "far_phase", "look_rows"]
