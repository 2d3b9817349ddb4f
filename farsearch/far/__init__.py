"""The FAR method, and everything of it that also runs on the board.

Needs torch >= 1.10 and Python >= 3.6 syntax, and imports nothing else of farsearch: a bundle carries a copy of this
folder, so that workstation and board run one FAR step and one loop.

================ ====================================================================
layout.py        which modules of a model are its embeddings, attentions and FFNs
selection.py     scores of the hidden neurons, and the choice of the learners
execution.py     how a step is executed: what its backward pass keeps, in what portions
ffn.py           a feed-forward block whose neurons are part learners, part frozen
ffn_function.py  what it computes, and its gradients
activations.py   value and gradient of the functions between a block's two maps
attention.py     attention that computes its probabilities again
dropout.py       dropout that draws its masks again
norms.py         LayerNorm that is rebuilt from its output
checkpoint.py    a layer that keeps its input alone and runs again
surgery.py       put all of that into a model, freeze the rest, and the inverse
optimizer.py     AdamW and SGD, at the end of a step or in its backward pass
safetensors.py   files of tensors, read and written
savepoint.py     where a phase stands, on disk
features.py      rows of token ids with their targets, and batches of them as tensors
display.py         how messages quote a value of a user
batches.py       which rows go together: those of similar length
schedule.py      learning rates of the steps
loop.py          the training loop, prediction
================ ====================================================================
"""
