"""The number of CPU threads of a run: one where its steps are too small to be divided among several.

The choice follows from the configuration and the network alone, never from a measurement of time. On a CPU
the last bits of the results depend on the number of threads, and the same command must give the same bits again.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nern.config.experiment import Experiment, Phase
from nern.networks.tracing import multiply_adds
from nern.support.seeding import seeded
from nern.training.step import StepContext

#: Multiply-adds of a step up to which one thread is taken; `python -m benchmarks.threads` compares it with several.
SMALL = 1e9
FEW = 2048  # kernels whose prediction is counted


def work_of_step(experiment: Experiment, context: StepContext, network: nn.Module) -> float:
    """Multiply-adds of a step, on average over all steps of a run; infinity where they cannot be counted.

    Args:
        context: of training.
        network: the original network.
    """
    networks_run = any(map(experiment.runs_networks, experiment.phases))
    try:
        with seeded(experiment.seed, "counted"):
            kernels = _work_of_prediction(context)
            image = multiply_adds(network, experiment.architecture.example_inputs(1)) if networks_run else 0.0
    except Exception:  # torch counts what it knows; a module that does something else may object to being watched
        return math.inf

    def of(phase: Phase) -> float:
        """Three passes of the predictor, forwards and backwards, and where networks run one of the original and three of the other."""
        return 3 * kernels + (4 * image * phase.batch if experiment.runs_networks(phase) else 0.0)

    return sum(phase.iterations * of(phase) for phase in experiment.phases) / sum(phase.iterations for phase in experiment.phases)


def chosen_threads(work: float) -> int | None:
    """The number of threads for steps of so many multiply-adds: 1, or None where torch's own choice is as good."""
    return 1 if work <= SMALL and torch.get_num_threads() > 1 else None


@torch.no_grad()
def _work_of_prediction(context: StepContext) -> float:
    """Multiply-adds of predicting every kernel once, from predicting some."""
    representation = context.representation
    rows = representation.first_rows(FEW)
    with FlopCounterMode(display=False) as counter:
        representation.predict(rows)
    return float(counter.get_total_flops()) / 2 * representation.grid.rows / len(rows)
