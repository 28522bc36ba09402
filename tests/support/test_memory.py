"""Tests of the largest amount of memory: it is this program's own, whatever started it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell")
MEGABYTE = 1 << 20
CHILD = "from nern.support.memory import peak_memory; held = b'x' * {held}; print(peak_memory())"


def peak(held: int = 0) -> int:
    """The largest amount of memory of a new program that holds some bytes."""
    command = [sys.executable, "-c", CHILD.format(held=held)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_the_largest_amount_grows_by_what_a_program_holds():
    assert 150 * MEGABYTE < peak(held=200 * MEGABYTE) - peak() < 250 * MEGABYTE


def test_what_the_program_that_started_it_holds_is_not_counted():
    alone = peak()
    ballast = b"x" * (600 * MEGABYTE)
    assert abs(peak() - alone) < 50 * MEGABYTE
    assert len(ballast) == 600 * MEGABYTE
