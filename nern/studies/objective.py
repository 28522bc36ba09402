"""The objective of a sweep: a figure on held-out images, or of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from nern.config.experiment import Experiment
from nern.errors import ConfigError, TrainingError
from nern.run.evaluation import measures_of
from nern.studies.tables import FIGURES
from nern.support.messages import did_you_mean

#: Figures of a run that are not measured on images; lower is better.
COSTS = ("predictor_bytes", "total_bytes", "seconds")


@attrs.frozen
class Objective:
    """A figure, and whether higher or lower values are better."""

    name: str
    better: Literal["higher", "lower"]

    @classmethod
    def of(cls, name: str | None, experiment: Experiment) -> Objective:
        """The objective with a name; without a name, the figure that chooses an experiment's checkpoint.

        Raises:
            ConfigError: there is no such figure, it is measured on the test set, or there are no held-out images.
        """
        if name in COSTS:
            return cls(name, "lower")
        measures = measures_of(experiment)
        name = name or measures.choice[0]
        if name not in measures.metrics:
            known = [*measures.metrics, *COSTS]
            if name in FIGURES:
                raise ConfigError(
                    f"--objective {name}: the test set chooses nothing; take a figure on held-out images ({', '.join(known)})"
                )
            raise ConfigError(
                f"--objective {name}: there is no such figure" + did_you_mean(name, known, f" (there are: {', '.join(known)})")
            )
        if experiment.heldout == 0:
            raise ConfigError(f"--objective {name} is measured on held-out images; set heldout above 0")
        return cls(name, measures.metrics[name].better)

    def value(self, result: Mapping[str, Any]) -> float:
        """The figure of a finished run.

        Raises:
            TrainingError: the run has no such figure, or it is no number.
        """
        if self.name in COSTS:
            value: Any = result
            for key in FIGURES[self.name]:
                value = value[key]
        else:
            value = (result["checkpoints"]["chosen"].get("heldout") or {}).get(self.name)
        if value is None or value != value:
            raise TrainingError(f"the objective '{self.name}' was not measured")
        return float(value)

    def score(self, value: float) -> float:
        """The figure as a number, negated where lower is better, so that higher is always better."""
        return value if self.better == "higher" else -value
