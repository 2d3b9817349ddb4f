"""Fine-tuning by torch and transformers >= 4.18: the one engine so far.

============ ================================================================
tokenizer.py the tokenizer, and the proof that it is the one of the workstation
model.py     the model with its start weights, and how a trained one is saved
memory.py    memory on the GPU and beside a model's tensors
phase.py     the FAR phase, resumable after a power cut
run.py       a whole run: read, train, evaluate, save
============ ================================================================
"""
