"""The defaults of sections that a configuration leaves out; a module of their own, so that reading presets imports little else."""

from __future__ import annotations

from typing import Any

from nern.registry.kinds import with_own_names

#: Default content of each section: the choices of the paper.
DEFAULTS: dict[str, Any] = with_own_names(
    {
        "embedding": {"name": "positional"},
        "predictor": {"name": "mlp"},
        "base": {"name": "none"},
        "sampler": {"name": "magnitude"},
        "smoother": {"name": "cross-filter"},
        "losses": {"reconstruction": {}, "kd": {"weight": 1e-4}, "fmd": {"weight": 1e-4}},
        "optimizer": {"name": "ranger"},
        "phases": [{"name": "joint", "iterations": 70000, "batch": 256}],
        "observers": {"progress": {}},
    }
)
