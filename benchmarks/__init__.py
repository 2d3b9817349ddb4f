"""Measurements that take longer than a test; tests share some of their code."""

import os

# Read when torch is first imported: its profiler would log each start and stop to stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
