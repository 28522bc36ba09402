"""Metrics of outputs that are numbers."""

from __future__ import annotations

from collections.abc import Mapping

from nern import Metric, hookimpl
from nern.toolkit.outputs import MeanSquaredError, RelativeDistance


@hookimpl
def nern_metrics() -> Mapping[str, type[Metric]]:
    return {"mse": MeanSquaredError, "distance": RelativeDistance}
