"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from nern import Observer, hookimpl, option
from nern.toolkit.files import write_text
from nern.toolkit.optional import import_optional
from nern.toolkit.trackers import ScalarObserver, failed, headline


@attrs.define
class _State:
    run: Any = None


@attrs.frozen
class WeightsAndBiases(ScalarObserver):
    """A run at Weights & Biases; a resumed run continues the one whose identity its folder holds (`wandb.id`)."""

    project: str = option("nern", help="project of the run")
    title: str | None = option(None, help="name of the run; null takes the run directory's")
    entity: str | None = option(None, help="user or team; null takes the account's default")
    tags: list[str] = option(factory=list, help="tags of the run")
    mode: Literal["online", "offline"] = option("online", help="offline keeps everything in the run directory, for `wandb sync` later")
    _state: _State = attrs.field(init=False, factory=_State, eq=False, repr=False)

    def check(self) -> None:
        import_optional("wandb", "wandb", "observer 'wandb'")

    def start(self, run_dir: Path, config: dict[str, Any], iteration: int) -> None:
        if self._state.run is not None:
            return
        wandb = import_optional("wandb", "wandb", "observer 'wandb'")
        identity = run_dir / "wandb.id"
        known = identity.read_text(encoding="utf-8").strip() if identity.exists() else None
        run = wandb.init(
            project=self.project, name=self.title or run_dir.name, entity=self.entity, tags=self.tags, config=config,
            dir=str(run_dir), mode=self.mode, id=known, resume="allow" if known and self.mode == "online" else None,
            settings=wandb.Settings(console="off", silent=True),
        )  # fmt: skip
        run.define_metric("iteration", hidden=True)
        run.define_metric("*", step_metric="iteration")
        if known is None:
            write_text(identity, run.id + "\n")
        self._state.run = run

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        self._state.run.log({"iteration": iteration, **values})

    def finish(self, result: dict[str, Any] | None, error: BaseException | None) -> None:
        run, self._state.run = self._state.run, None
        if run is None:
            return
        if result is not None:
            run.summary.update(headline(result))
        run.finish(exit_code=int(failed(error)))


@hookimpl
def nern_observers() -> Mapping[str, type[Observer]]:
    return {"wandb": WeightsAndBiases}
