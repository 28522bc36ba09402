"""Results of measurements."""

from __future__ import annotations

from nern.run.evaluation import Score
from nern.run.results import Evaluation


def test_the_headline_is_the_first_figure_that_both_networks_have() -> None:
    original = Score(4, {"top1": None, "agreement": 100.0, "kl": 0.0}, ())
    reconstructed = Score(4, {"top1": 75.0, "agreement": 90.0, "kl": 0.5}, ())
    assert Evaluation(original, reconstructed).headline == ("agreement", 100.0, 90.0)
    assert Evaluation(None, reconstructed).headline is None
