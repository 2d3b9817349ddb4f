"""Bundles: a chosen configuration with all that a board needs to run it, as a folder or a ``.zip`` of it.

::

    far.json            the records, what the FAR phase needs, expected cost, provenance, checksums
    start.safetensors   the weights that the FAR phase starts from, in the model's own names
    model/              the fine-tuned model merged back, as transformers saves it, with its tokenizer
    far/                the code that runs it, unchanged
    train.py            its command
    README.md           the model card

=========  =============================================================
write.py   all of it, from what a trial kept
phase.py   what far.json says to whoever runs the FAR phase
delta.py   only what differs from a public checkpoint
card.py    the model card
onnx.py    the fine-tuned model for other runtimes                (onnx)
folder.py  whole or absent, and the .zip
read.py    checks, and the FAR phase on a user's own rows
=========  =============================================================
"""
