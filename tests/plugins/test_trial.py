"""What the checks before the first step let pass, and a run in which nothing can be trained."""

from __future__ import annotations

import pytest

import nern
from nern.errors import ConfigError

HEAD = "import attrs, torch, nern\nfrom torch import nn\n"
UNUSED = """
class M(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.spare = nn.Parameter(torch.zeros(3))
        {}

    def forward(self, embedded, rows=None):
        kernels = super().forward(embedded)
        return {}

@attrs.frozen
class C(nern.Predictor):
    "Odd."

    def build(self, inputs, outputs):
        return M(inputs, outputs)

@nern.hookimpl
def nern_predictors(): return {{"odd": C}}
"""


@pytest.mark.parametrize(
    ("made", "given"),
    [("self.spare.requires_grad_(False)", "kernels"), ("", "kernels + self.spare.sum() if bool((rows == 5).any()) else kernels")],
    ids=["not trained", "used by one kernel alone"],
)
def test_parameters_that_may_be_there(made, given, install, experiment) -> None:
    install("nern-odd", HEAD + UNUSED.format(made, given))
    assert nern.Engine.from_yaml(experiment(), {"predictor": {"name": "odd"}}).fit().iterations == 3


def test_a_run_without_anything_to_train_ends_before_its_first_step(experiment) -> None:
    codes = {"embedding": {"name": "codes", "numbers": 0, "frequencies": 1}, "predictor": {"name": "codes", "hidden": 0}}
    engine = nern.Engine.from_yaml(experiment(), codes)
    with pytest.raises(ConfigError, match="nothing can be trained"):
        engine.fit()
    assert not engine.run.path.exists()
