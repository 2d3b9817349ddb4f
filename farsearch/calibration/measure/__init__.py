"""Measure the machine that this runs on: the time and memory of operations of fine-tuning a BERT-like model.

The parts require Python 3.6, and torch 1.10 or later, or numpy and onnxruntime 1.10 or later. Of farsearch they import
only what is portable as well, so that a board needs only the single file that ``farsearch.calibration.script`` joins.

===============  ====================================================================
host.py          facts about the host, and the load of other programs
memory.py        visible memory, and that of a bare process
rounds.py        times in rounds, repeated, and under sustained load
session.py       the frame of a measurement, its file, and the command line
cases.py         operations to time
workloads.py     whole training steps of torch
timing.py        torch's operations, overheads and sustained load
machine.py       the machine as torch sees it
torch_memory.py  memory of a process with torch
command.py       the whole measurement with torch
onnx_timing.py   operations, overheads and steps of the engine without torch
onnx_command.py  the whole measurement with it
===============  ====================================================================
"""
