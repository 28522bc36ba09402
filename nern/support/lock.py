"""One process at a time in a folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # where the system has no such locks, nothing is locked
    fcntl = None  # type: ignore[assignment]


class Locked(Exception):
    """Another process holds the lock; the message says which."""


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock of a file while a block runs. The file is made, names this process, and is removed in the end.

    Raises:
        Locked: another process holds it, or another call in this one.
        OSError: the file cannot be made.
    """
    if fcntl is None:
        yield
        return
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise Locked(owner or "another process") from None
        if _is_at(path, descriptor):
            break
        os.close(descriptor)  # the one who held it has just removed this file
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, so that nobody gets a lock on a file that is gone
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
