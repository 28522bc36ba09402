"""A lock that lets one process at a time work in a folder, and that ends with its process, also when that is killed."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger("nern")


class Locked(Exception):
    """Another process holds the lock; the message says which."""


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the lock of a file while a block runs.

    A file beside it names this process until the block ends. The lock's own file stays, empty. Where the file system has no locks, a
    warning says so and the block runs without one.

    Raises:
        Locked: another process holds it, or another call in this one.
        OSError: the files cannot be made.
    """
    owner = path.with_name(f"{path.name}.owner")  # Windows lets nobody read a file that is locked
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Locked(_text(owner) or "another process") from None
    except NotImplementedError:  # of filelock, where the file system has no locks
        log.warning("nern: the file system of %s has no locks: let no other process work in it meanwhile", path.parent)
        yield
        return
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:200].strip()
    except OSError:  # it is just being written, or removed
        return ""
