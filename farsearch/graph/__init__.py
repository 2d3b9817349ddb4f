"""A training step as one graph that an inference engine runs: traced from the torch step, lowered to ONNX.

============  ==============================================================
trace.py      the step of a reconfigured model as a functional aten graph
builder.py    names, constants, and shapes with a symbolic length
operators.py  each aten operator as ONNX nodes
lowering.py   the graph as an ONNX model with weights in external files
============  ==============================================================
"""
