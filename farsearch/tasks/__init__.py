"""Tasks: what they are, their rows, the split, their token ids and their metrics.

=============== =================================================================================
data.py         what a task is, and its rows
layouts.py      how the files of official tasks look
official.py     the official tasks: their files, where they come from, how large they are
spec.py         the tasks that farsearch knows, by name
load.py         the rows of a task from a folder, the package or the hub
files.py        files of examples, read strictly
from_hub.py     the rows of a task from the hub or its cache                           (datasets)
description.py  a task of the user's own, as a TOML file or options describe it
custom.py          its rows, kind and labels
custom_files.py    its files as records
arrow.py        Parquet and folders of save_to_disk                           (pyarrow, datasets)
folders.py      folders of files: parts of a data set, and a folder of texts for each class
headless.py     tables whose first line is no header
columns.py      which of its columns hold texts and label
schema.py        what its labels say: the kind, and their names
summary.py   what was understood of the rows, in three lines
constant_answer.py     what the best constant answer scores
overlap.py      which texts are parts of one another
split.py        training sample and validation rows of which none tells about another
encode.py       texts as token ids
metrics.py      metrics with standard errors, and differences of two models'
evaluate_metrics.py    the metrics as evaluate has them                             (datasets, evaluate)
standard_errors.py        standard errors of metrics and of their differences                       (numpy)
weighted.py     metrics of samples of rows, and of all rows but one                       (numpy)
correlations.py those of numbers                                                          (numpy)
reviews/        the embedded sample
=============== =================================================================================
"""

from farsearch.tasks.spec import TASKS, Examples, TaskData, TaskSpec, get_task

__all__ = ["TASKS", "Examples", "TaskData", "TaskSpec", "get_task"]
