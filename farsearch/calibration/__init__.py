"""Calibrate a device profile by measurements, and compare the cost model with real steps.

===============  ====================================================================
measure          the measurement, also for boards
payload.py       graphs and compiled steps that are measured with the engine without torch
script.py        the single file that measures a board
result.py        the result of a measurement, validated
fit.py           a profile fitted to a result, and the figures of an engine
engine_steps.py  the compiled steps of a calibration, and their prediction
local.py         this machine's profile, calibrated at first use
steps.py         real training steps, and the exact peak of their tensors
board.py         the measurement of a bundle on a board, and the profile adjusted to it
check.py         comparison of predictions with real steps on this machine
engine_check.py  the same with compiled steps
===============  ====================================================================
"""
