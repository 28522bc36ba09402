"""Metrics of predicted classes: of images, or of their pixels."""

from __future__ import annotations

from collections.abc import Mapping

from nern import Metric, hookimpl
from nern.toolkit.outputs import Agreement, Divergence, MeanIoU, Top1, Top5


@hookimpl
def nern_metrics() -> Mapping[str, type[Metric]]:
    return {"top1": Top1, "top5": Top5, "miou": MeanIoU, "agreement": Agreement, "kl": Divergence}
