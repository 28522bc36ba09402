"""The end of a run: measures its checkpoints once on the test set, and writes its artifact and its result."""

from __future__ import annotations

from typing import Any

import attrs
import torch

from nern.artifact.artifact import Artifact
from nern.kernels.smoothness import grid_smoothness
from nern.outputs.kinds import ClassLogits
from nern.representation.entropy import refit_distributions
from nern.run.agreement import ClassCounter
from nern.run.evaluation import measures_of
from nern.run.loop import TrainingLoop
from nern.run.packing import pack
from nern.run.provenance import environment
from nern.run.results import Result


def finish(loop: TrainingLoop, dtype: torch.dtype) -> tuple[Artifact, Result]:
    """Measure the final and the chosen checkpoint on the test set, once, and write artifact and result.

    Args:
        dtype: the dtype in which the networks computed, for the record.
    """
    experiment, original, registry, folder = loop.experiment, loop.original, loop.registry, loop.folder
    device = loop.context.device
    representation = loop.context.representation.eval()
    final = {name: value.detach().clone() for name, value in representation.state_dict().items()}
    chosen = loop.best["parameters"] if loop.best else final
    another = loop.best is not None and loop.best["iteration"] != loop.iteration
    records: dict[str, Any] = {
        "final": {"iteration": loop.iteration, "heldout": loop.latest},
        "chosen": {"iteration": loop.best["iteration"], "heldout": loop.best["metrics"]} if loop.best and another else None,
    }
    comparison, measures = loop.comparisons.test, measures_of(experiment)
    before_training, counter = comparison.original if comparison is not None else None, ClassCounter()
    classifies = isinstance(experiment.task.outputs(), ClassLogits)
    for name, parameters in (("final", final), ("chosen", chosen)):
        representation.load_state_dict(parameters)
        representation.round()
        refit_distributions(representation)
        if records[name] is None:
            records[name] = records["final"]
        elif comparison is not None:
            counter = ClassCounter()  # the chosen checkpoint is measured last
            loop.calls.nern_measuring(phase=name, iteration=records[name]["iteration"], split="test")
            watch = counter if classifies else None
            records[name]["test"] = comparison.score(original.rebuilt(representation), watch=watch).metrics()
            loop.calls.nern_evaluated(phase=name, iteration=records[name]["iteration"], split="test", metrics=records[name]["test"])
    artifact = pack(experiment, original, representation, registry, records)
    sizes = artifact.save(folder.artifact)
    before, after = (grid_smoothness(original.grid, original.state, orders) for orders in (None, original.orders))
    result = Result(
        original_top1=before_training.top1 if before_training else None,
        reconstructed_top1=records["chosen"].get("test", {}).get("top1"),
        seconds=round(loop.seconds(), 3),
        iterations=loop.iteration,
        bytes=sizes,
        run_dir=str(folder.path),
        artifact=str(folder.artifact),
        checkpoints=records,
        original=before_training.metrics() if before_training else None,
        choice={name: measures.metrics[name].better for name in measures.choice},
        better={name: metric.better for name, metric in measures.metrics.items()},
        smoothness={"before": before, "after": after},
        seed=experiment.seed,
        environment=environment(device, dtype),
        classes=[attrs.asdict(count) for count in counter.counts()] or None,
    )
    folder.write_result(result.to_dict())
    return artifact, result
