"""Bundles: a chosen configuration with its start weights and its fine-tuned model, as a folder.

::

    far.json            the records, learners, layout, expected cost, provenance, checksums
    start.safetensors   the weights that the FAR phase starts from, in the model's own names
    model/              the fine-tuned model merged back, as transformers saves it, with its tokenizer
"""
