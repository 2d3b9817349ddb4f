"""The device cost model: what a training step takes on a device, predicted without the device.

================  ====================================================================
operations.py     what an operation is: its kind, its work, what it touches
software.py       what of a device's software a trace must know, and how it follows it
trace.py          one step on fake tensors: allocations and operations
segments.py       what a step is made of: polynomials of length and learners
layer_kinds.py    what kinds of layers there are
traced_model.py   traces of the kinds of layers, composed to any configuration's step
whole_model.py    the trace of any model as it is
shapes.py         shapes of results, computed once
optimizer.py      an optimizer's step of one tensor
plans.py          how a step can be executed
memory.py         the worst moment in memory
timing.py         measured rates, or a roofline
segment_costs.py  what both take of each kind of layer, kept by its number of learners
pricer.py         the price of a job
breakdown.py      one configuration priced in full, and what would make it fit
sweep.py          a whole space priced under every plan
================  ====================================================================
"""
