"""Trains a network of linear layers on scikit-learn's data on the progress of diabetes, and represents it."""

from __future__ import annotations

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

import nern


class Regressor(nn.Module):
    """Ten measurements of a patient [b, 10] → the progress of the disease [b, 1], as a multiple of its standard deviation."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(10, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, patients: Tensor) -> Tensor:
        return self.layers(patients)


def main() -> None:
    torch.manual_seed(0)
    patients, progress = (torch.tensor(values, dtype=torch.float32) for values in load_diabetes(return_X_y=True, scaled=False))
    order = torch.randperm(len(patients))
    train, test = order[:342], order[342:]
    patients = (patients - patients[train].mean(0)) / patients[train].std(0)
    progress = ((progress - progress[train].mean()) / progress[train].std())[:, None]
    model = Regressor()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.1)
    for _ in range(40):  # more would learn the patients by heart
        optimizer.zero_grad()
        nn.functional.mse_loss(model(patients[train]), progress[train]).backward()
        optimizer.step()
    given, tested = (patients[train], progress[train]), (patients[test], progress[test])
    target = nern.TargetDrop(points=0.05, runs=3)
    result = nern.represent(model, given, test=tested, recipe="small", target=target, steps=0.1, output="run")
    result.save("net.nern")


if __name__ == "__main__":
    main()
