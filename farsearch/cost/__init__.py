"""The device cost model: what a training step takes on a device, predicted without the device.

==========  ========================================================================
trace.py    one step on fake tensors: allocations and operations
table.py    traces of the kinds of layers, composed to any configuration's step
account.py  worst moment in memory, roofline in time
price.py    the price of a job
==========  ========================================================================
"""
