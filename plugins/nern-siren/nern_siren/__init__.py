"""A SIREN predictor and a multi-resolution hash grid for nern."""

from __future__ import annotations

from collections.abc import Mapping

from nern import Embedding, Predictor, hookimpl
from nern_siren.grids import HashGrid
from nern_siren.siren import Siren

__all__ = ["HashGrid", "Siren"]


@hookimpl
def nern_predictors() -> Mapping[str, type[Predictor]]:
    return {"siren": Siren}


@hookimpl
def nern_embeddings() -> Mapping[str, type[Embedding]]:
    return {"hash-grid": HashGrid}
