"""The FAR method, and everything of it that also runs on the board.

Needs torch >= 1.10 and Python >= 3.6 syntax, and imports nothing else of farsearch: a bundle carries a copy of this
folder, so that workstation and board run one FAR step and one loop.

=============  =====================================================================
layout.py      which modules of a model are its embeddings, attentions and FFNs
selection.py   scores of the hidden neurons, and the choice of the learners
ffn.py         a feed-forward block whose neurons are part learners, part frozen
surgery.py     put the split blocks into a model, freeze the rest, and the inverse
batches.py     batches grouped by length, padded to their longest row
loop.py        optimizer, schedule, the training loop, prediction
=============  =====================================================================
"""
