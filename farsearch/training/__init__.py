"""Train one trial: prime, select, reconfigure, run the FAR phase, evaluate, merge.

===============  ====================================================================
bench.py         model, rows and primings of a job, on which its trials are trained
selection.py     the neurons that learn
phase.py         the FAR phase on a reconfigured model, and the training of any other
intermediate.py  the validation metric in the middle of it
outcome.py       the result
===============  ====================================================================
"""

from __future__ import annotations

from farsearch.training.bench import Bench
from farsearch.training.intermediate import EVALUATION_SHARES, Evaluation, evaluation_rows
from farsearch.training.outcome import Outcome
from farsearch.training.phase import Batching, OnStep, far_phase

__all__ = [
    "EVALUATION_SHARES",
    "Batching",
    "Bench",
    "Evaluation",
    "OnStep",
    "Outcome",
    "evaluation_rows",
    "far_phase",
]
