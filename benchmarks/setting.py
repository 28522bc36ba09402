"""The setting of the step benchmarks: the parts of an experiment, and the baseline with the same predictor, samples and inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.baseline import BaselineLoop
from nern.config.experiment import LossTerm
from nern.config.loading import load_experiment
from nern.engine import Engine
from nern.interfaces import Optimizer
from nern.run.assembly import Assembly
from nern.run.original import Original
from nern.support.seeding import generator
from nern.toolkit.images import ImageData
from nern.training.step import PhaseTrainer, StepContext


class Setting:
    """An experiment with random images in place of its task, and with random weights where it names none."""

    def __init__(self, preset: str, overrides: Sequence[str], images: int = 2048) -> None:
        self.engine = Engine(*load_experiment(preset, overrides))
        self.experiment = self.engine.experiment
        if self.experiment.threads:  # an engine sets them for its own calls alone
            torch.set_num_threads(self.experiment.threads)
        architecture = self.experiment.architecture
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = architecture.build().eval()
        dtypes = {name: value.dtype for name, value in self.network.state_dict().items()}
        if architecture.weights is not None:
            dtypes = architecture.load(self.network)
        self.original = Original.of(self.network, dtypes, self.experiment, self.engine.registry)
        preprocessing = architecture.preprocessing()
        pixels = torch.randint(256, (images, *preprocessing.size), generator=generator(0, "images"), dtype=torch.uint8)
        self.data = ImageData((pixels, None), None, preprocessing, classes=None, heldout=0.0, seed=0)

    def context(self, dtype: torch.dtype) -> StepContext:
        """The experiment's parts with fresh weights, the same in every call."""
        return Assembly(self.experiment, self.engine.registry, self.engine.device, dtype).context(self.original, self.engine.processes)

    def trainer(self, dtype: torch.dtype, losses: Sequence[str], phase: int = 0, batch: int | None = None) -> PhaseTrainer:
        """One phase of the experiment with some of its losses."""
        parts, chosen = self.context(dtype), self.experiment.phases[phase]
        terms: dict[str, LossTerm] = chosen.losses or self.experiment.losses
        return PhaseTrainer(
            parts, chosen, {name: terms[name] for name in losses}, chosen.sampler or self.experiment.sampler,
            chosen.optimizer or self.experiment.optimizer, self.inputs(batch or chosen.batch), phase,
        )  # fmt: skip

    def inputs(self, batch: int) -> Callable[[int], Tensor]:
        return self.data.inputs(batch, 0, self.engine.device)

    def baseline(self, weights: tuple[float, float, float]) -> BaselineLoop:
        """The baseline on the same network, with the predictor and the draws that `trainer` starts with."""
        trainer, embedding = self.trainer(torch.float32, ["reconstruction"]), self.experiment.embedding
        made: Any = trainer.context.representation.predictor
        layers = [made.first, *made.hidden, made.last]
        modules = [module for layer in layers for module in (copy.deepcopy(layer), copy.deepcopy(made.activation))]
        predictor = torch.nn.Sequential(*modules[:-1])
        optimizer: Optimizer = self.experiment.optimizer
        every = torch.arange(self.original.grid.rows)

        def draw(step: int) -> Tensor:
            rows = trainer.draw(step)
            return every if rows is None else rows

        return BaselineLoop(
            copy.deepcopy(self.network), [layer.parameter for layer in self.original.grid.layers],
            [order.indices() for order in self.original.orders], self.experiment.architecture.features(self.network),
            predictor, optimizer.start(list(predictor.named_parameters()))[0], draw,
            self.inputs(self.experiment.phases[0].batch), weights, embedding.base, embedding.frequencies,  # type: ignore[attr-defined]
        )  # fmt: skip
