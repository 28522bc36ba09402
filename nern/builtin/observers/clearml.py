"""ClearML."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import attrs

from nern import Observer, hookimpl, option
from nern.toolkit.files import write_text
from nern.toolkit.optional import import_optional
from nern.toolkit.trackers import ScalarObserver, failed, headline


@attrs.define
class _State:
    task: Any = None


@attrs.frozen
class ClearML(ScalarObserver):
    """A task in ClearML; a resumed run continues the task whose identity its folder holds (`clearml.id`)."""

    project: str = option("nern", help="project of the task")
    title: str | None = option(None, help="name of the task; null takes the run directory's")
    tags: list[str] = option(factory=list, help="tags of the task")
    offline: bool = option(False, help="keep the session on this machine, for `Task.import_offline_session` later")
    _state: _State = attrs.field(init=False, factory=_State, eq=False, repr=False)

    def check(self) -> None:
        import_optional("clearml", "clearml", "observer 'clearml'")

    def start(self, run_dir: Path, config: dict[str, Any], iteration: int) -> None:
        if self._state.task is not None:
            return
        task_of = import_optional("clearml", "clearml", "observer 'clearml'").Task
        identity = run_dir / "clearml.id"
        known = identity.read_text(encoding="utf-8").strip() if identity.exists() else None
        task_of.set_offline(self.offline)
        # ClearML would install its own handlers of Ctrl-C and SIGTERM, and add an offset to the steps of a continued task, where
        # 0 is none
        with _own_signals(), redirect_stdout(sys.stderr):  # stdout is reserved for --json
            task = task_of.init(
                project_name=self.project, task_name=self.title or run_dir.name, tags=self.tags,
                reuse_last_task_id=known or False, continue_last_task=0 if known else False, auto_connect_arg_parser=False,
                auto_connect_frameworks={"detect_repository": False, **dict.fromkeys(("pytorch", "tensorboard", "matplotlib"), False)},
                auto_resource_monitoring=False, auto_connect_streams=False,
            )  # fmt: skip
        task.connect_configuration(config, name="nern")
        write_text(identity, task.id + "\n")
        self._state.task = task

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        logger = self._state.task.get_logger()
        for name, value in values.items():
            group, _, series = name.rpartition("/")
            logger.report_scalar(group, series, value=value, iteration=iteration)

    def finish(self, result: dict[str, Any] | None, error: BaseException | None) -> None:
        task, self._state.task = self._state.task, None
        if task is None:
            return
        for name, value in headline(result).items() if result is not None else ():
            task.get_logger().report_single_value(name, value)
        if failed(error):
            task.mark_failed(status_message=str(error))
        with _own_signals(), redirect_stdout(sys.stderr):  # ClearML would restore the handlers that it replaced
            task.close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the present handlers of Ctrl-C and SIGTERM after a block."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@hookimpl
def nern_observers() -> Mapping[str, type[Observer]]:
    return {"clearml": ClearML}
