"""Measure the machine that this runs on: the time and memory of operations of fine-tuning a BERT-like model.

The parts require Python 3.6 and torch 1.10 or later, and import nothing else of farsearch, so that a board needs
only the single file that ``farsearch.calibration.script`` joins from them.

============  ====================================================================
cases.py      operations to time
workloads.py  whole training steps
timing.py     times of operations, overheads and sustained load
machine.py    facts about the machine, and the load of other programs
memory.py     visible memory, and that of a bare process
command.py    the whole measurement, and the command line
============  ====================================================================
"""
