"""How the C library keeps memory that is given back."""

from __future__ import annotations

import ctypes
import functools
import sys

#: glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, with values that make it keep what was freed.
_KEEPING = ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 100_000_000))


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed, in place of handing them back to the system and asking for them again.

    A step of training on a CPU frees and takes the same activations over and over; without this, a tenth to a fifth of its time
    goes into pages that the system clears. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in _KEEPING:
            mallopt(parameter, value)
