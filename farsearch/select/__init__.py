"""Choose from a study: its Pareto front, and one trial by intent, with the reason. Pure functions.

==============  ===================================================================
front.py        the trials that no other dominates
plans.py        the study under another step plan
choice.py       one trial by intent
explanation.py  the reason for a choice, and the comparison with its neighbours
won.py          what was won against full fine-tuning and LoRA
==============  ===================================================================
"""

from farsearch.select.choice import Choice, Intent, Preference, choose
from farsearch.select.front import Objectives, costs_of, objectives, pareto_front
from farsearch.select.plans import under_plan
from farsearch.select.won import won

__all__ = [
    "Choice",
    "Intent",
    "Objectives",
    "Preference",
    "choose",
    "costs_of",
    "objectives",
    "pareto_front",
    "under_plan",
    "won",
]
