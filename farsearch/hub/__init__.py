"""Files of a model hub, at one commit, checked against their hashes. The only home of huggingface_hub.

===========  =================================================================================
client.py    the HTTP client: how long the hub is waited for, and whether it answers
problems.py  why the hub gave nothing, in one line
fetch.py     files of a repository: resolved to a commit, downloaded, verified, from the cache
===========  =================================================================================
"""

from farsearch.hub.client import hub_problem
from farsearch.hub.fetch import Repository, Snapshot, UnknownRevision, fetch

__all__ = ["Repository", "Snapshot", "UnknownRevision", "fetch", "hub_problem"]
