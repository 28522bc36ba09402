"""The extension points, by name. This module imports nothing, so that commands which only need the names start at once."""

from __future__ import annotations

#: Extension point → the hook by which plugins offer components for it. The only list of extension points: the interface of
#: each is the class of its name in `nern.interfaces`, and everything else derives from it.
HOOKS = {
    "architecture": "nern_architectures",
    "embedding": "nern_embeddings",
    "predictor": "nern_predictors",
    "sampler": "nern_samplers",
    "smoother": "nern_smoothers",
    "loss": "nern_losses",
    "task": "nern_tasks",
    "metric": "nern_metrics",
    "optimizer": "nern_optimizers",
    "observer": "nern_observers",
}
