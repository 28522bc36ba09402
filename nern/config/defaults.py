"""What a configuration that leaves a section out gets. Reading YAML and presets needs no more of nern than this."""

from __future__ import annotations

from typing import Any

from nern.registry.kinds import with_own_names

#: Section → its content where a configuration has none: the paper's choices.
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
