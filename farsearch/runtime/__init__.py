"""The portable runtime: fine-tune a bundle on a board or a workstation; read, encode and score the rows of a task.

``train.py`` of a bundle calls ``main`` here. A bundle carries a copy of this package beside one of ``far``, so the
syntax is that of Python 3.6 and no other part of farsearch is imported. The modules here need neither torch nor
transformers; training is left to an engine, ``torch_engine`` or ``onnx_engine``.

================== ============================================================
bundle_files.py    the files of a bundle, validated before any is used
schema.py          strict validation of far.json
program_file.py    the program of a compiled engine, and its strict validation
config.py          checks of a model's config.json
tokenizer_file.py  checks of a tokenizer.json
tokenizer_proof.py token ids that a bundle's tokenizer must give
task.py            a task and its rows
near_names.py      the most similar of known names
row_errors.py      errors in rows, as one line
decoding.py        a file's bytes as text
tables.py          tables, and detection of their separator
json_rows.py       rows as JSON objects
conll.py           sentences as CoNLL's files have them
records.py         records from all of these formats
targets.py         the true answer of a row, from its cells
rows.py            a file of rows of a task
squad.py           SQuAD's files
class_weights.py   weights of the classes in the loss
encoding.py        rows as token ids with targets, and logits as predictions
scores.py          metrics, in plain Python
spans.py           exact match and F1 of answers, for scores.py
entities.py        entities of a tag sequence, for scores.py
imports.py         packages that transformers need not import
memory.py          memory of the machine and the process, micro-batches that fit
job.py             options, result and folders of a run
best_state.py      the best state of a phase by its validation metric, and early stopping
recorder.py        losses and times of the steps, and savepoints when they are due
saving.py          the files beside the weights of a newly trained model
run.py             a whole run of any engine: read, train, evaluate, save
measurement.py     measured figures of a run, as a file for the workstation
main.py            the command line
torch_engine       the engine of torch and transformers
onnx_engine        the engine of compiled graphs, with numpy, onnxruntime and tokenizers
================== ============================================================
"""
