"""Fine-tuning by compiled graphs, with numpy, onnxruntime >= 1.10 and tokenizers only: no torch on the board.

============ ================================================================
weights.py   weights mapped from their file, and the merged model
program.py   the graphs of a program, run in order
buffers.py   memory for their values, and portions of the rows
optimizer.py AdamW and SGD, in place
batches.py   batches of rows as arrays
dropout.py   masks that are the same on every machine
phase.py     the FAR phase, resumable after a power cut
savepoint.py its state on disk
tokenizer.py the tokenizer
run.py       engine and model of a run
============ ================================================================
"""
