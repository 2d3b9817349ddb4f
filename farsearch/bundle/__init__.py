"""Bundles: a chosen configuration with everything that a board needs to run it, as a folder or a ``.zip`` of it.

::

    far.json            the records, what the FAR phase needs, expected cost, provenance, checksums
    start.safetensors   the weights that the FAR phase starts from, in the model's own names
    model/              the fine-tuned model merged back, as transformers saves it, with its tokenizer
    far/, runtime/      copies of the packages that run it
    train.py            its command
    README.md           the model card

=========  =============================================================
write.py   all of its files, from the artifacts of a trial
phase.py   the part of far.json for the FAR phase
delta.py   differences from a public checkpoint
card.py    the model card
onnx.py    the fine-tuned model for other runtimes                (onnx)
folder.py  atomic creation of the folder, and the .zip
read.py    validation, and the FAR phase on a user's own rows
=========  =============================================================
"""
