"""Measurements that take longer than a test, and the measuring code that tests share with them."""
