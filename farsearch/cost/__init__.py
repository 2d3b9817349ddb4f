"""The device cost model: memory and time of a training step on a device, predicted without the device.

================  ====================================================================
operations.py     one operation: its kind, its work, the bytes that it reads and writes
shapes.py         shapes of results on meta tensors, cached
software.py       the device's software as far as a trace depends on it, and its emulation
recorder.py       the record of a traced step: allocations and operations by segment
trace.py          the trace of one training step on meta tensors
segments.py       segments of a step as polynomials of length and learners
layer_kinds.py    the kinds of layers that are traced
step_table.py     traces of the kinds of layers, composed to the step of any configuration
whole_model.py    the trace of a model that another method has prepared
traced_model.py   the step tables of one model
optimizer.py      an optimizer's step of one tensor
plans.py          the ways in which a step can be executed
workload.py       the batches of a training by their length
memory.py         the peak of memory
timing.py         measured rates, or a roofline
segment_costs.py  memory and time of each kind of layer, cached by its number of learners
constraints.py    limits of memory and time
pricer.py         the costs of configurations of a job
breakdown.py      the cost of one configuration by phase
largest.py        the largest batch that fits
fixes.py          suggestions for a configuration that does not fit
sweep.py          the costs of a whole space under every plan
================  ====================================================================
"""
