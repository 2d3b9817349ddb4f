"""Fine-tuning by compiled graphs, with numpy, onnxruntime >= 1.10 and tokenizers only: no torch on the board.

============ ================================================================
weights.py   weights mapped from their file, and the merged model
program.py   the graphs of a program, run in order
optimizer.py AdamW and SGD, in place
============ ================================================================
"""
