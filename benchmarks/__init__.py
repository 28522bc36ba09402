"""Measurements of nern, some against a plain version of the paper's loop. Each module is a command: `python -m benchmarks.step`."""
