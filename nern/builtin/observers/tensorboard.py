"""TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from nern import Observer, above, hookimpl, option
from nern.toolkit.optional import import_optional
from nern.toolkit.trackers import ScalarObserver


@attrs.define
class _State:
    writer: Any = None


@attrs.frozen
class TensorBoard(ScalarObserver):
    """Event files for TensorBoard, inside the run directory. A resumed run removes the events of the steps that it repeats."""

    folder: str = option("tensorboard", help="folder of the event files, inside the run directory")
    flush_seconds: int = option(30, help="seconds after which events are on disk", check=above(0))
    _state: _State = attrs.field(init=False, factory=_State, eq=False, repr=False)

    def check(self) -> None:
        import_optional("tensorboard", "tensorboard", "observer 'tensorboard'")

    def start(self, run_dir: Path, config: dict[str, Any], iteration: int) -> None:
        if self._state.writer is not None:
            return
        import_optional("tensorboard", "tensorboard", "observer 'tensorboard'")
        from torch.utils.tensorboard import SummaryWriter

        purge = iteration + 1 if iteration else None
        self._state.writer = SummaryWriter(str(run_dir / self.folder), purge_step=purge, flush_secs=self.flush_seconds)  # type: ignore[no-untyped-call]

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        for name, value in values.items():
            self._state.writer.add_scalar(name, value, iteration)

    def finish(self, result: dict[str, Any] | None, error: BaseException | None) -> None:
        if self._state.writer is not None:
            self._state.writer.close()
            self._state.writer = None


@hookimpl
def nern_observers() -> Mapping[str, type[Observer]]:
    return {"tensorboard": TensorBoard}
