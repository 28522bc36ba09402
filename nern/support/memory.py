"""Memory of this process: makes the C library keep what is freed, and tells the largest amount that was held."""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from pathlib import Path

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


def peak_memory() -> int | None:
    """The largest amount of memory that this program has held since it started, in bytes; None where the system does not tell.

    On Linux `getrusage` would give the memory of the process that started this one where that was more, since the largest amount
    is inherited there.
    """
    if sys.platform == "linux":
        held = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
        return None if held is None else 1024 * int(held[1])
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
