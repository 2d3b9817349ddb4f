"""Tasks: what they are, their rows, the split, their token ids and their metrics.

===========  ================================================================================
spec.py      the tasks that farsearch knows, and the records of their rows
load.py      the rows of a task from a folder, the package or the hub
files.py     files of examples, read strictly
from_hub.py  the rows of a task from the hub or its cache                          (datasets)
split.py     training sample and validation rows of which none tells about another
encode.py    texts as token ids
metrics.py   accuracy and Matthews correlation with standard errors      (datasets, evaluate)
noise.py     standard errors of metrics and of their differences                      (numpy)
reviews/     the embedded sample
===========  ================================================================================
"""

from farsearch.tasks.spec import TASKS, Examples, TaskData, TaskSpec, get_task

__all__ = ["TASKS", "Examples", "TaskData", "TaskSpec", "get_task"]
