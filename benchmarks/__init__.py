"""Measurements of nern beside a plain version of the paper's loop; each module is a command: `python -m benchmarks.step`."""
