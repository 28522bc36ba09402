"""Makes the C library keep freed memory for reuse."""

from __future__ import annotations

import ctypes
import functools
import sys

#: glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, with values that make it keep what was freed.
_KEEPING = ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 100_000_000))


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc keep large blocks that are freed, instead of returning them to the system and requesting them again.

    Training steps on a CPU allocate and free the same activations again and again; without this, the system spends a tenth to a
    fifth of the time on clearing pages. Other C libraries are not affected.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _KEEPING:
            mallopt(parameter, value)
