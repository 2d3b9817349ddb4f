"""Fine-tuning by torch and transformers >= 4.18.

============ ================================================================
tokenizer.py the tokenizer
model.py     the model with its start weights, and how a trained one is saved
device.py    the device that trains
memory.py    memory on the GPU and beside a model's tensors
precision.py whether this device has the precision of a step plan
phase.py     the FAR phase, resumable after a power cut
run.py       engine and model of a run
============ ================================================================
"""
