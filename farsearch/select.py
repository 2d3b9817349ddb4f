"""Placeholder while the module is written."""
from __future__ import annotations
from collections.abc import Iterable
from farsearch.records import TrialRecord
def pareto_front(trials: Iterable[TrialRecord]) -> set[int]:
    ok=[t for t in trials if t.state=="complete" and t.feasible]
    v={t.number:(-(t.metric or 0),t.peak_memory_mib or 0,t.wall_time_s or 0) for t in ok}
    return {n for n,a in v.items() if not any(all(x<=y for x,y in zip(b,a)) and b!=a for b in v.values())}
