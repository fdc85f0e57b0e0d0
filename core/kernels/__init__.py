"""Pallas kernels: a folder an operator, with its plain definition in `reference.py`."""
