"""Puts together everything that training works on: the original kernels, a representation of them, and the pair of networks."""

from __future__ import annotations

import logging

import torch

from nern.config.experiment import Experiment
from nern.interfaces import Data, Task
from nern.networks.pair import NetworkPair, Speedups
from nern.networks.speedups import bearable
from nern.options import located
from nern.registry.registry import Registry
from nern.representation.assembling import assemble
from nern.representation.original_kernels import OriginalKernels
from nern.representation.quantization import NumberFormat
from nern.representation.representation import Representation
from nern.run.original import Original
from nern.run.task_data import open_task
from nern.support.contracts import at_work, broken
from nern.support.seeding import seeded
from nern.support.subsets import call_with
from nern.training.processes import Processes
from nern.training.step import StepContext

log = logging.getLogger("nern")


class Assembly:
    """Puts together everything that the training of one experiment works on.

    Args:
        experiment: a checked configuration.
        registry: where its components came from.
        device: where training runs.
        dtype: the dtype in which the networks compute.
    """

    def __init__(self, experiment: Experiment, registry: Registry, device: torch.device, dtype: torch.dtype) -> None:
        self.experiment, self.registry, self.device, self.dtype = experiment, registry, device, dtype
        self._speedups: Speedups | None = None  # the speed-ups that leave the network's results the same; they are tried only once
        self._data: dict[int, Data] = {}

    def open_task(self, task: Task) -> Data:
        """The images of a task, which are opened only once."""
        if id(task) not in self._data:
            experiment = self.experiment
            self._data[id(task)] = open_task(task, experiment.architecture, experiment.heldout, experiment.seed)
        return self._data[id(task)]

    def context(self, original: Original, processes: Processes, representation: Representation | None = None) -> StepContext:
        """Everything that training works on; without a representation, one with fresh weights is built."""
        experiment = self.experiment
        masks = original.masks() if experiment.keep_zeros else {}
        kernels = OriginalKernels(original.grid, original.state, original.orders, self.device, masks)
        representation = representation or self._with_fresh_weights(original, kernels)
        networks = self._networks(original, processes)
        return StepContext(
            representation, kernels, networks, self.device, self.dtype, experiment.seed, processes, experiment.cuda_graphs,
            experiment.task.outputs(),
        )  # fmt: skip

    def _with_fresh_weights(self, original: Original, kernels: OriginalKernels) -> Representation:
        """Build a representation with fresh weights."""
        experiment = self.experiment
        with seeded(experiment.seed, "predictor"):
            representation = assemble(
                original.grid, original.orders, experiment.embedding, experiment.predictor, experiment.base
            ).to(self.device)  # fmt: skip
            rows = torch.randperm(original.grid.rows, dtype=torch.int32)[:4096].long().to(self.device)
            with torch.no_grad(), at_work(experiment.embedding, "embedding", representation.embedding):
                embedded = representation.embedding(representation.table.coordinates(rows))
            if not bool(embedded.isfinite().all()):
                problem = "forward(coordinates) must give finite numbers, and gives others"
                raise broken(experiment.embedding, "embedding", problem, representation.embedding)
            if representation.base is not None:
                with torch.no_grad(), located("base"), at_work(experiment.base, "base", representation.base):
                    experiment.base.initialise(representation.base, kernels.by_layer())
                    added = representation.added_weights()
                if not bool(added.isfinite().all()):
                    raise broken(experiment.base, "base", "forward(rows) must give finite numbers, and gives others", representation.base)
                kernels = kernels.less(added)
            if experiment.scale_layers:
                representation.scale(kernels.scales())
            with torch.no_grad(), at_work(experiment.embedding, "embedding", representation.embedding):
                experiment.embedding.initialise(representation.embedding, kernels.by_layer(representation.scales))
            with at_work(experiment.predictor, "predictor", representation.predictor):
                call_with(
                    experiment.predictor.initialise, representation.predictor, embedded, kernels.weights_in_rows(representation.scales),
                    offered={"grid": lambda: original.grid, "originals": lambda: kernels.by_layer(representation.scales)},
                )  # fmt: skip
        representation.keep_zeros(original.masks() if experiment.keep_zeros else {})
        representation.storage = NumberFormat(experiment.storage)
        representation.train_copies({name: original.state[name] for name in original.trained}, experiment.copied)
        return representation

    def _networks(self, original: Original, processes: Processes) -> NetworkPair:
        """The pair of networks that losses compare, with the speed-ups under which this network computes the same."""
        architecture = self.experiment.architecture
        features = architecture.features(original.network)
        if self._speedups is None and any(self.experiment.runs_networks(phase) for phase in self.experiment.phases):
            changing = [*(layer.parameter for layer in original.grid.layers), *original.trained]
            compared = features if self.experiment.compares_features else []
            self._speedups, lines = bearable(
                original.network, compared, changing, architecture.example_inputs(2),
                device=self.device, dtype=self.dtype, trained=original.trained,
            )  # fmt: skip
            for line in lines if processes.first else ():
                log.warning("nern: %s", line)
        chosen = self._speedups or Speedups(dtype=self.dtype)
        return NetworkPair(
            original.network, features, device=self.device, dtype=chosen.dtype, fold=chosen.fold, channels_last=chosen.channels_last,
            trained=original.trained,
        )  # fmt: skip
