"""Files of a model hub at one commit, verified by their hashes; only this package imports huggingface_hub.

===========  =================================================================================
client.py    the HTTP client, its time limits, and whether the hub answers
problems.py  errors as one line with a suggestion
fetch.py     files of a repository: resolved to a commit, downloaded, verified, from the cache
===========  =================================================================================
"""

from farsearch.hub.client import hub_problem
from farsearch.hub.fetch import Repository, Snapshot, UnknownRevision, fetch

__all__ = ["Repository", "Snapshot", "UnknownRevision", "fetch", "hub_problem"]
