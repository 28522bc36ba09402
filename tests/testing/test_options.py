"""The check of a component's options leaves nothing behind."""

from __future__ import annotations

import attrs

from nern.builtin.predictors.mlp import MLP
from nern.registry.discovery import create_registry
from nern.support.contracts import owner_of
from nern.testing.options import check_options


def test_a_component_that_was_checked_keeps_its_own_name() -> None:
    """Errors of later runs in the same process are not blamed on what was checked."""
    create_registry(entry_points=False)
    assert owner_of(MLP()) == "nern:mlp"
    check_options("predictor", MLP())
    assert owner_of(MLP()) == "nern:mlp"

    @attrs.frozen
    class Own(MLP):
        """A predictor of this test."""

    check_options("predictor", Own())
    assert owner_of(Own()) is None
