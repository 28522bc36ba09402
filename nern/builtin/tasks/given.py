"""The task of `nern.represent`: examples that were passed in Python, and the kind of outputs that the network gives for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
from safetensors.torch import load_file
from torch import Tensor

from nern import Data, DataError, Preprocessing, Task, at_least, below, hookimpl, option
from nern.toolkit.files import write_tensors
from nern.toolkit.given import Examples, GivenData, TensorExamples
from nern.toolkit.outputs import AnyOutputs, ClassLogits, Measured, Numbers, OutputKind, PixelLogits

KINDS: dict[str, OutputKind] = {"classes": ClassLogits(), "pixels": PixelLogits(), "numbers": Numbers(), "any": AnyOutputs()}


@attrs.frozen
class Given(Task):
    """Tensors, a data set or a loader that was passed to `nern.represent`."""

    root: str | None = option(None, help="file with the tensors, which nern.represent writes to its run folder where they are small")
    gives: Literal["classes", "pixels", "numbers", "any"] = option(
        "classes", help="outputs of the network: logits of classes, of pixels, numbers, or anything, which is imitated but has no accuracy"
    )
    tested: float = option(0.1, help="fraction that becomes the test set, where there are no test examples", check=[at_least(0), below(1)])
    _examples: Examples | None = attrs.field(default=None, init=False, eq=False, repr=False)
    _test: Examples | None = attrs.field(default=None, init=False, eq=False, repr=False)
    _metric: Any = attrs.field(default=None, init=False, eq=False, repr=False)

    def hand_over(self, examples: Examples, test: Examples | None, metric: Any) -> None:
        """Use these examples, which are in memory, from now on, and `metric`, where there is one, as the headline figure."""
        object.__setattr__(self, "_examples", examples)
        object.__setattr__(self, "_test", test)
        object.__setattr__(self, "_metric", metric)

    def outputs(self) -> OutputKind:
        kind = KINDS[self.gives]
        return kind if self._metric is None else Measured(kind, "metric", self._metric)

    def open(self, preprocessing: Preprocessing, heldout: float, seed: int) -> Data:
        examples, test = (self._examples, self._test) if self._examples is not None else self._kept()
        return GivenData(examples, test, preprocessing, heldout=heldout, tested=self.tested, seed=seed)

    def _kept(self) -> tuple[Examples, Examples | None]:
        if self.root is None or not Path(self.root).is_file():
            missing = f"; there is no {self.root}" if self.root else ""
            raise DataError(
                "the examples of this run were handed over in Python: continue there with nern.represent(model, data=…, resume=True), or "
                f"name others with task.name and task.root{missing}"
            )
        tensors = load_file(self.root)
        parts = [
            TensorExamples(_inputs_in(tensors, f"{part}.inputs"), tensors.get(f"{part}.targets"))
            if any(name.startswith(f"{part}.inputs") for name in tensors)
            else None
            for part in ("all", "test")
        ]
        assert parts[0] is not None
        return parts[0], parts[1]

    def keep(self, folder: Path) -> None:
        """Write examples in memory into the run's folder, so that the run can be resumed."""
        if self.root is None or self._examples is None or Path(self.root).exists():
            return
        tensors: dict[str, Tensor] = {}
        for part, examples in (("all", self._examples), ("test", self._test)):
            if isinstance(examples, TensorExamples):
                tensors |= _named(examples.inputs, f"{part}.inputs")
                if examples.targets is not None:
                    tensors[f"{part}.targets"] = examples.targets
        write_tensors(Path(self.root), tensors)


def _named(inputs: Any, place: str) -> dict[str, Tensor]:
    """Inputs as tensors of a file: one under the name itself, several arguments behind it by their names or positions."""
    if isinstance(inputs, Tensor):
        return {place: inputs}
    if isinstance(inputs, Mapping):
        return {f"{place}.{name}": value for name, value in inputs.items()}
    return {f"{place}:{position}": value for position, value in enumerate(inputs)}


def _inputs_in(tensors: Mapping[str, Tensor], place: str) -> Any:
    """Undo `_named`."""
    if place in tensors:
        return tensors[place]
    named = {name.removeprefix(f"{place}."): value for name, value in tensors.items() if name.startswith(f"{place}.")}
    positions = sorted(int(name.removeprefix(f"{place}:")) for name in tensors if name.startswith(f"{place}:"))
    return named or tuple(tensors[f"{place}:{position}"] for position in positions)


@hookimpl
def nern_tasks() -> Mapping[str, type[Task]]:
    return {"given": Given}
