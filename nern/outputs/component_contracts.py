"""What measuring asks of kinds of outputs and of metrics.

Each function says in one line what is wrong, or gives None where nothing is. A run checks these parts of the contracts before its
first step; `nern.testing` checks more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nern.outputs.kinds import OutputKind
from nern.outputs.metric import Metric, figure_of
from nern.outputs.nested import map_tensors, tensors_of
from nern.support.contracts import described_value
from nern.support.messages import first_line


def problem_with_outputs(kind: Any) -> str | None:
    """What is wrong with the result of `Task.outputs`."""
    if not isinstance(kind, OutputKind):
        return f"outputs() must give a kind of outputs, such as nern.toolkit.outputs.ClassLogits(), gave {described_value(kind)}"
    metrics: Any = kind.metrics()
    choice: Any = kind.choice
    if not isinstance(metrics, Mapping) or not metrics or not all(isinstance(metric, Metric) for metric in metrics.values()):
        return f"metrics() of its outputs() must give names of metrics with their nern.Metric, gave {metrics!r}"
    if not isinstance(choice, (tuple, list)) or not choice or not set(choice) <= set(metrics):
        return f"'choice' of its outputs() must name some of its metrics ({', '.join(metrics)}), is {choice!r}"
    return None


def problem_with_metric(metric: Metric) -> str | None:
    """What is wrong with what a metric says about itself."""
    for name, allowed in (("compares", ("targets", "original")), ("better", ("higher", "lower"))):
        value: Any = getattr(metric, name)
        if value not in allowed:
            return f"'{name}' must be {' or '.join(map(repr, allowed))}, is {value!r}"
    return None


def problem_with_figure(metric: Metric, outputs: Any, targets: Any) -> str | None:
    """What is wrong with how a metric takes its figure of a few images.

    Args:
        targets: of the images, or None. A metric that compares with the original network compares the outputs with themselves.

    Raises:
        ContractError: the figure is none.
    """
    reference = targets if metric.compares == "targets" else outputs
    if reference is None:
        return None
    outputs, reference = (map_tensors(torch.clone, value) for value in (outputs, reference))
    before = [value.clone() for value in tensors_of([outputs, reference])]
    figure_of(metric, [metric.batch(outputs, reference)])
    same = all(torch.equal(a, b) or not torch.equal(a, a) for a, b in zip(before, tensors_of([outputs, reference]), strict=True))
    return None if same else "batch() changes the outputs that it is given, which other figures are taken of"


def problem_with_targets(name: str, metric: Metric, outputs: Any, targets: Any) -> str | None:
    """What is wrong with a task whose kind of outputs has one of nern's metrics, which cannot take the task's targets.

    Args:
        name: of the metric.
    """
    try:
        return problem_with_figure(metric, outputs, targets)
    except Exception as error:
        given = ", ".join(map(described_value, tensors_of(targets))) or described_value(targets)
        return f"outputs() has the metric '{name}', which cannot take its targets {given}: {first_line(error)}"
