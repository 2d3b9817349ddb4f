"""The FAR method, as far as it also runs on the board.

The package requires torch >= 1.10 and Python >= 3.6, and imports nothing else of farsearch: a bundle contains a copy of
this folder, so workstation and board run the same FAR step and training loop.

================ ====================================================================
layout.py        which modules of a model are its embeddings, attentions and FFNs
selection.py     scores of hidden neurons and heads, and the selection of the learners
execution.py     how a step is executed: tensors saved for the backward pass, portions
ffn.py           a feed-forward block whose neurons are part learners, part frozen
ffn_function.py  the function of such a block, and its gradients
activations.py   value and gradient of the functions between a block's two maps
split_linear.py  a linear map of an attention whose heads are part learners, part frozen
merged_state.py  state dicts of split modules
attention.py     attention that recomputes its probabilities
dropout.py       dropout that redraws its masks
half.py          layers executed in 16 bits
norms.py         LayerNorm that rebuilds its input from its output
checkpoint.py    a layer that saves only its input and runs again
surgery.py       reconfigure a model with these, freeze the rest, and the inverse
optimizer.py     AdamW and SGD, at the end of a step or in its backward pass
tensor_file.py   the safetensors format, without torch
safetensors.py   read and write such files with torch
savepoint.py     the state of a phase on disk
features.py      rows of token ids with their targets, and batches of them as tensors
display.py       values in messages, bounded in length
loss.py          mean loss of a batch, with weights of the classes
batches.py       batches of rows of similar length
schedule.py      learning rates of the steps
loop.py          training loop, prediction
================ ====================================================================
"""
