"""Trains an original network from scratch, optionally with smooth kernels (Ashkenazi et al. 2023, sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from nern.checkpoint import read_checkpoint
from nern.config import Pretrain
from nern.coordinates import LayerMapping
from nern.data import EpochOrder, ImageData
from nern.errors import DataError, TrainingError
from nern.files import write_object
from nern.interfaces import Data
from nern.random import derive
from nern.smoothness import weights_smoothness


def pretrain(
    network: nn.Module,
    layers: list[LayerMapping],
    data: Data,
    options: Pretrain,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    report: Callable[[int, float], bool],
) -> bool:
    """Train `network` in place with SGD, momentum and a cosine schedule on the task's training images.

    Args:
        layers: convolutions whose kernels eq. 6 makes smooth, where `options.smoothness` is above zero.
        checkpoint: written after every epoch; training goes on from it where it exists.
        report: called with epochs done and the mean loss; returning True stops after the checkpoint.

    Returns:
        Whether training is complete.

    Raises:
        DataError: the task cannot train a classifier.
        TrainingError: the loss is not finite.
    """
    if not isinstance(data, ImageData):
        raise DataError("this task cannot train an original network; give architecture.weights")
    images, labels = data.labelled()
    network.to(device).to(memory_format=torch.channels_last).train()
    weights = [network.get_parameter(layer.parameter) for layer in layers]
    optimizer = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=options.momentum, weight_decay=options.weight_decay)
    steps = max(1, len(images) // options.batch)
    order = EpochOrder(len(images), options.batch, derive(seed, "pretrain"))
    first = 0
    if checkpoint.exists():
        state = read_checkpoint(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
    total = options.epochs * steps
    for epoch in range(first, options.epochs):
        mean = torch.zeros((), device=device)
        for step in range(epoch * steps, (epoch + 1) * steps):
            optimizer.param_groups[0]["lr"] = options.lr * (1 + torch.cos(torch.tensor(torch.pi * step / total)).item()) / 2
            index = order(step)
            inputs = data.prepare(images[index].to(device), derive(seed, "pretrain", step))
            loss = F.cross_entropy(network(inputs.contiguous(memory_format=torch.channels_last)), labels[index].to(device))
            if options.smoothness:
                loss = loss + options.smoothness * weights_smoothness(weights)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            mean += loss.detach() / steps
        if not bool(mean.isfinite()):
            raise TrainingError(f"the original network's loss is {float(mean)} in epoch {epoch + 1}; lower pretrain.lr")
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        write_object(checkpoint, state)
        if report(epoch + 1, float(mean)) and epoch + 1 < options.epochs:
            return False
    network.eval()
    return True
