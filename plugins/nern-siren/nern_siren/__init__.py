"""A SIREN predictor and embeddings with trained grids for nern."""

from __future__ import annotations

from collections.abc import Mapping

from nern import Embedding, Predictor, hookimpl
from nern_siren.grids import HashGrid, LearnedAxes
from nern_siren.siren import Siren

__all__ = ["HashGrid", "LearnedAxes", "Siren"]


@hookimpl
def nern_predictors() -> Mapping[str, type[Predictor]]:
    return {"siren": Siren}


@hookimpl
def nern_embeddings() -> Mapping[str, type[Embedding]]:
    return {"hash-grid": HashGrid, "learned-axes": LearnedAxes}
