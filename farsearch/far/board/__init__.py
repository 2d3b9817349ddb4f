"""What runs a bundle, on a board and on a workstation alike: ``train.py`` of a bundle is this package's ``main``.

Needs what far needs, and transformers >= 4.18.

============ ==================================================================
opened.py    a bundle's files, checked before anything of them is used
validate.py  strict checks of what far.json specifies
config.py    checks of a model's config.json
tokenizer.py checks of a tokenizer.json
task.py      what a task is, and its rows
near_names.py the name that a user may have meant
problems.py  what is wrong with a row, in one line
content.py   the text of a file, unpacked and decoded
tables.py    tables, and the separator that is found in them
objects.py   rows as JSON objects
sentences.py words with tags, as CoNLL has them
records.py   records out of all of these, read strictly
answers.py   what is true of a row, out of its cells
rows.py      a user's file of rows of a task
squad.py     SQuAD's files, read strictly
encode.py    rows as token ids with targets, and back from logits to answers
tokens.py    the tokenizer, and the proof that it is the one of the workstation
model.py     the model with its start weights, and how a trained one is saved
memory.py    what this machine has, and the micro-batch that fits
phase.py     the FAR phase, which goes on after a power cut
scores.py    metrics
spans.py     how well a text answers a question
entities.py  the entities that tags of words name
measured.py  what a run took, as a file that goes back to the workstation
run.py       all of it, one after another
main.py      the command line
============ ==================================================================
"""
