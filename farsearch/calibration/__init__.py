"""Measure a machine into a device profile, and hold the cost model against real steps.

==========  ====================================================================
measure.py  the measurement; one file that also runs alone on a board
result.py   what it writes, read strictly
fit.py      a profile of it
local.py    this machine's profile, calibrated at first use
steps.py    real training steps, and the exact peak of their tensors
board.py    what a board measured with a bundle, and the profile that goes by it
check.py    predicted beside measured, on this machine
==========  ====================================================================
"""
