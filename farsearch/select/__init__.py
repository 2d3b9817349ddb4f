"""Choosing from a study: its Pareto front, and one trial of it by intent, with the reason. Pure.

==============  ===============================================================================
front.py        which trials no other dominates
plans.py        the study as it would be under another step plan
choice.py       one trial by what is wanted of it
explanation.py  why this one, what its neighbours would cost or gain, and whether that is noise
==============  ===============================================================================
"""

from farsearch.select.choice import Choice, Intent, Preference, choose
from farsearch.select.explanation import Paired
from farsearch.select.front import Objectives, objectives, pareto_front
from farsearch.select.plans import under_plan

__all__ = [
    "Choice",
    "Intent",
    "Objectives",
    "Paired",
    "Preference",
    "choose",
    "objectives",
    "pareto_front",
    "under_plan",
]
