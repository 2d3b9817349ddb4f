"""A training step compiled into graphs that an inference engine runs: traced from the torch step, lowered to ONNX.

============  =================================================================
operation.py  operations of a trace, with sizes that depend on the batch
trace.py      the step of a reconfigured model as functional operations
rewrite.py    less saved for the backward pass, dropout's masks as inputs
narrow.py     what follows the last attention for the head's token alone
program.py    the operations cut into calls of small graphs
portions.py   which calls can be made in portions of the rows
builder.py    names, constants and sizes of one graph
operators/    each operator as ONNX nodes
compiler.py   all of it: the folder that runtime/onnx_engine runs
memory.py     memory of a compiled step, from its graphs and their order
configured.py a configuration of a model, compiled with random weights
price.py      the predicted cost of a configuration with this engine
============  =================================================================
"""
