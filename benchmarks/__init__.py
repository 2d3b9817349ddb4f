"""Measurements that take longer than a test, and the measuring code that tests share with them."""

import os

# Read when torch is first imported. Its profiler would say on stderr, at each use, that it begins and ends.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
