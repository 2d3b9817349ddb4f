"""Tasks: their definitions, rows, split, token ids and metrics.

=================== ============================================================
data.py             a task, and its rows
layouts.py          layouts of the official tasks' files
official.py         the official tasks: files, sources, sizes
spec.py             the known tasks by name
load.py             the rows of a task from a folder, the package or the hub
files.py            files of examples, read strictly
from_hub.py         rows from the hub or its cache                    (datasets)
description.py      a task of a user's own data, from options or a TOML file
custom.py           its rows
custom_spec.py      its kind, labels, metric and positive class
custom_checks.py    checks of its rows
custom_files.py     its files as records
arrow.py            Parquet and folders of save_to_disk      (pyarrow, datasets)
folders.py          folders: parts of a data set, or texts of each class
headless.py         tables without a header
columns.py          inference of the columns of texts and label
schema.py           inference of the kind and the labels
summary.py          a summary of the rows in three lines
constant_answer.py  the metric of the best constant answer
overlap.py          texts that contain one another
strata.py           strata of rows, and stratified orders
validation_draw.py  the draw of validation rows
split.py            training sample and validation rows without text overlap
encode.py           texts as token ids
metrics.py          metrics with standard errors
evaluate_metrics.py the metrics as evaluate.Metric          (datasets, evaluate)
standard_errors.py  standard errors of metrics and of differences        (numpy)
weighted.py         metrics of samples, and of all rows but one          (numpy)
correlations.py     correlations of samples, and of all rows but one     (numpy)
reviews/            the embedded sample
=================== ============================================================
"""

from farsearch.tasks.spec import TASKS, Examples, TaskData, TaskSpec, get_task

__all__ = ["TASKS", "Examples", "TaskData", "TaskSpec", "get_task"]
