"""A sampler that learns from the errors of the kernels that it has drawn."""

from __future__ import annotations

from collections.abc import Mapping

from nern import Sampler, hookimpl
from nern_feedback.sampler import Feedback


@hookimpl
def nern_samplers() -> Mapping[str, type[Sampler]]:
    return {"feedback": Feedback}
