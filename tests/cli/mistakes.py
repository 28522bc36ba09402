"""A mistake on the command line: what is printed, and what is not."""

from __future__ import annotations

import pytest

from tests.helpers import command_line

#: What pytest's fixture `capsys` is.
Capture = pytest.CaptureFixture[str]
#: Overrides that make both phases of `tests.helpers.EXPERIMENT` short.
QUICK = ["phases.0.iterations=2", "phases.1.iterations=2", "evaluate_every=0"]


def mistake(capsys: Capture, *arguments: object) -> str:
    """The one line that a wrong call prints."""
    capsys.readouterr()
    assert command_line(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("nern: ")]
    assert len(lines) == 1, err
    return lines[0].removeprefix("nern: ")
