"""Launchers that break their contract, in one way each."""

from __future__ import annotations

import pytest

from nern.errors import NernError
from nern.studies.scheduling import PlannedRun, work_through
from tests.plugins.odd_components import (
    RAISED,
    Table,
    is_named,
    offered,
    rows,
)


def jobs(body: str) -> str:
    return f"def start(self, folder):\n    class N(J):\n        {body}\n    return N()"


BROKEN: Table = {
    "launcher": {
        "start raises": ("def start(self, folder): boom()", RAISED),
        "starts nothing": ("def start(self, folder): pass", "start() must give nern.LaunchedJobs, gave nothing"),
        "no argument": ("def start(self): return J()", "raised TypeError: C_no_argument.start() takes 1"),
        "submit raises": (jobs("def submit(self, job): boom()"), RAISED),
        "poll raises": (jobs("def poll(self, handle): boom()"), RAISED),
        "poll gives a code": (jobs("def poll(self, handle): return 0"), "poll() must give a nern.JobEnd or None, gave an int"),
        "close raises": (jobs("def close(self): boom()"), RAISED),
        "submit and close raise": (jobs("def submit(self, job): boom()\n        def close(self): raise ValueError('late')"), RAISED),
    },
}  # fmt: skip


@pytest.mark.parametrize(("kind", "what", "said"), rows(BROKEN))
def test_a_broken_launcher_is_named(kind, what, said, odd, tmp_path) -> None:
    experiment = odd.engine("launcher", what).experiment
    planned, ended = PlannedRun("one", experiment, odd.registry, {}), []
    launcher = odd.registry.find("launcher", offered(what)).cls()
    with pytest.raises(NernError) as caught:
        work_through(iter([planned]), launcher, tmp_path / "sweep", ended.append)
    is_named(str(caught.value), kind, what, said)
    assert [outcome.failed for outcome in ended] == (["broken down"] if what == "close raises" else [])
