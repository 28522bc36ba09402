"""Makes many runs with a launcher: several at a time; interrupted runs are resumed, and killed ones are started again."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from nern.config.experiment import Experiment
from nern.config.structuring import to_yaml, unstructure
from nern.errors import ConfigError, Interrupted, NernError, TrainingError
from nern.launching import Job, JobEnd, LaunchedJobs, Launcher
from nern.registry.registry import Registry
from nern.run.folder import RunFolder
from nern.run.interruption import StopRequest
from nern.run.original import original_fingerprint
from nern.support.contracts import ContractError, at_work, broken, described_value
from nern.support.files import write_atomically, write_text
from nern.support.lock import Locked, holding
from nern.support.messages import cannot_write

log = logging.getLogger("nern")

CONFIG, LOG = "job.yaml", "log.txt"
PAUSE = 0.1  # seconds between checks of the jobs


@attrs.define(eq=False)
class PlannedRun:
    """A run to make, which may exist already."""

    name: str
    experiment: Experiment  # its option `output` is the run's folder
    registry: Registry
    values: dict[str, Any] = attrs.field(factory=dict)  # the values that a sweep has set
    tries: int = 0
    original: str | None = attrs.field(init=False)  # fingerprint of how its original network is trained; None where weights are given

    def __attrs_post_init__(self) -> None:
        given = self.experiment.architecture.has_weights
        self.original = None if given else original_fingerprint(self.experiment, self.registry)

    @property
    def folder(self) -> RunFolder:
        """The folder of the run."""
        return RunFolder(Path(self.experiment.output))

    def finished(self) -> dict[str, Any] | None:
        """The result where the run is finished with its present number of steps; None otherwise.

        Raises:
            ConfigError: the folder holds another run.
            TrainingError: the result cannot be read.
        """
        folder = self.folder
        if not folder.config.exists():
            return None
        folder.check(unstructure(self.experiment, self.registry), resume=True, registry=self.registry)
        if not folder.result.exists():
            return None
        try:
            result: dict[str, Any] = json.loads(folder.result.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise TrainingError(f"{folder.result} is damaged; remove {folder.path} to run it again") from error
        return result if result["iterations"] >= sum(phase.iterations for phase in self.experiment.phases) else None


@attrs.frozen
class Outcome:
    """The outcome of a run: its result, or the reason why it failed."""

    run: PlannedRun
    result: dict[str, Any] | None = None  # content of result.json
    failed: str | None = None  # the reason why there is no result
    was_there: bool = False


def work_through(
    runs: Iterator[PlannedRun],
    launcher: Launcher,
    folder: Path,
    done: Callable[[Outcome], None],
    *,
    retries: int = 1,
    disabled: Sequence[str] = (),
    lookahead: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Make every run; called again, it skips what is finished and resumes what was interrupted.

    A run whose original network is being trained by another run waits for it and copies it.

    Args:
        runs: the runs; the next one is taken whenever another one can start.
        folder: a folder of the caller, in which only one process works at a time.
        done: called when a run has ended.
        retries: how often a run is started again that was ended from outside. An error of the run itself is final.
        disabled: plugins to leave out.
        lookahead: how many runs may be taken before they can start; None for all.
        report: called with one line where a run is started again.

    Raises:
        ConfigError: another process works in the folder.
        Interrupted: Ctrl-C or SIGTERM; the runs have left checkpoints.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(cannot_write(folder, error, "set output to another folder")) from error
    with _alone_in(folder), StopRequest() as stop:
        launched: LaunchedJobs | None = None
        try:
            desk = _Desk(runs, done, retries, disabled, report)
            while desk.fill(launcher.jobs, lookahead):
                if launched is None:  # a sweep that is finished starts no cluster
                    launched = _Jobs(launcher, folder)
                desk.start(launched, launcher.jobs)
                while not desk.collect(launched) and not stop.requested:
                    time.sleep(PAUSE)
                if stop.requested:
                    desk.stop(launched)
                    raise Interrupted(f"stopped; the same command continues ({folder})")
        except ContractError as error:
            raise TrainingError(f"{error}; mend it, then the same command continues ({folder})") from error
        finally:
            if launched is not None:
                _close(launched)


def _close(launched: LaunchedJobs) -> None:
    """Close what a launcher has started; what it says of that never hides the error that ended the sweep."""
    ended = sys.exc_info()[1]
    try:
        launched.close()
    except ContractError as error:
        if ended is None:
            raise
        log.warning("nern: %s", error)


class _Jobs(LaunchedJobs):
    """The jobs of a launcher, with errors that name it.

    Raises:
        ContractError: a method raised something else than a NernError, or gave what it must not.
    """

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self._launcher = launcher
        with at_work(launcher, "launcher"):
            jobs: Any = launcher.start(folder)
        if not isinstance(jobs, LaunchedJobs):
            raise broken(launcher, "launcher", f"start() must give nern.LaunchedJobs, gave {described_value(jobs)}")
        self._jobs = jobs

    def submit(self, job: Job) -> Any:
        with at_work(self._launcher, "launcher", self._jobs):
            return self._jobs.submit(job)

    def poll(self, handle: Any) -> JobEnd | None:
        with at_work(self._launcher, "launcher", self._jobs):
            end: Any = self._jobs.poll(handle)
        if not isinstance(end, (JobEnd, type(None))):
            raise broken(self._launcher, "launcher", f"poll() must give a nern.JobEnd or None, gave {described_value(end)}", self._jobs)
        return end

    def cancel(self, handle: Any) -> None:
        with at_work(self._launcher, "launcher", self._jobs):
            self._jobs.cancel(handle)

    def close(self) -> None:
        with at_work(self._launcher, "launcher", self._jobs):
            self._jobs.close()


@attrs.define(eq=False)
class _Active:
    run: PlannedRun
    handle: Any
    log_begins: int  # length of the log that earlier attempts wrote


class _Desk:
    """The runs that wait and those that run."""

    def __init__(
        self,
        runs: Iterator[PlannedRun],
        done: Callable[[Outcome], None],
        retries: int,
        disabled: Sequence[str],
        report: Callable[[str], None],
    ) -> None:
        self._runs, self._done, self._retries, self._disabled, self._report = runs, done, retries, disabled, report
        self._waiting: list[PlannedRun] = []
        self._active: list[_Active] = []
        self._originals: dict[str, Path] = {}

    def fill(self, jobs: int, lookahead: int | None) -> bool:
        """Take further runs; returns whether any run waits or runs."""
        while lookahead is None or len(self._waiting) + len(self._active) < jobs + lookahead:
            run = next(self._runs, None)
            if run is None:
                break
            result = run.finished()
            if result is None:
                self._waiting.append(run)
                continue
            self._keep_original(run)
            self._done(Outcome(run, result, was_there=True))
        return bool(self._waiting or self._active)

    def start(self, launched: LaunchedJobs, jobs: int) -> None:
        """Start the runs that can start."""
        for run in list(self._waiting):
            if len(self._active) >= jobs:
                return
            key = run.original
            if key is not None and any(active.run.original == key for active in self._active) and not self._at_hand(key):
                continue
            self._waiting.remove(run)
            run.tries += 1
            try:
                self._active.append(self._submit(run, key, launched))
            except OSError as error:
                self._done(Outcome(run, failed=cannot_write(run.folder.path, error, "free space or set output")))
            except ContractError:
                raise
            except NernError as error:
                self._done(Outcome(run, failed=str(error)))

    def collect(self, launched: LaunchedJobs) -> bool:
        """Collect finished jobs; returns whether a run can be started now that could not before."""
        changed = False
        for active in list(self._active):
            end = launched.poll(active.handle)
            if end is None:
                changed |= self._keep_original(active.run) and bool(self._waiting)
                continue
            self._active.remove(active)
            self._keep_original(active.run)
            self._ended(active, end)
            changed = True
        return changed

    def stop(self, launched: LaunchedJobs) -> None:
        """Ask all running jobs to stop, and wait for their end."""
        for active in self._active:
            launched.cancel(active.handle)
        while self._active:
            self._active = [active for active in self._active if launched.poll(active.handle) is None]
            time.sleep(PAUSE)

    def _submit(self, run: PlannedRun, key: str | None, launched: LaunchedJobs) -> _Active:
        folder = run.folder
        folder.path.mkdir(parents=True, exist_ok=True)
        if key is not None and self._at_hand(key) and not folder.original.exists():
            with self._originals[key].open("rb") as source:
                write_atomically(folder.original, lambda target: shutil.copyfileobj(source, target))
        config, log = folder.path / CONFIG, folder.path / LOG
        write_text(config, to_yaml(run.experiment, run.registry))
        words = [sys.executable, "-m", "nern", "train", str(config.absolute()), "-o", str(folder.path)]
        words += ["--resume"] if folder.config.exists() else []
        words += [word for name in self._disabled for word in ("--no-plugin", name)]
        job = Job(run.name, tuple(words), Path.cwd(), log.absolute(), run.experiment.device)
        begins = log.stat().st_size if log.exists() else 0
        return _Active(run, launched.submit(job), begins)

    def _ended(self, active: _Active, end: JobEnd) -> None:
        run = active.run
        try:
            result = run.finished() if end.code == 0 else None
        except NernError as error:
            self._done(Outcome(run, failed=str(error)))
            return
        if result is not None:
            self._done(Outcome(run, result))
        elif end.killed and run.tries <= self._retries:
            self._report(f"{run.name}: {end}; it is tried again ({run.tries} of {self._retries})")
            self._waiting.insert(0, run)
        else:
            said = "" if end.killed else _last_words(run.folder.path / LOG, active.log_begins)
            if end.code == 0 and not end.reason:
                said = f"its launcher says that it ended well, and there is no result in {run.folder.path}" + (f": {said}" if said else "")
            tried = f" (tried {run.tries} times)" if run.tries > 1 else ""
            self._done(Outcome(run, failed=(said or str(end)) + tried))

    def _keep_original(self, run: PlannedRun) -> bool:
        """Remember where a trained original network lies; returns whether it was not known before."""
        key = run.original
        if key is None or self._at_hand(key) or not run.folder.original.exists():
            return False
        self._originals[key] = run.folder.original
        return True

    def _at_hand(self, key: str) -> bool:
        return key in self._originals and self._originals[key].exists()


def _last_words(log: Path, begins: int) -> str:
    """The last words of a run's log about its end: the lines of nern's own message, or the last line."""
    try:
        with log.open("rb") as file:
            file.seek(begins)
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    own = [line.removeprefix("nern: ") for line in lines if line.startswith("nern: ") and not line.startswith("nern: plugin")]
    return "; ".join(own) or (lines[-1] if lines else "")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while a block runs; the system releases it when this process ends, also when it is killed.

    Raises:
        ConfigError: another process holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(holding(folder / ".lock"))
        except Locked as error:
            raise ConfigError(f"another process works in {folder} ({error}); wait for it, or name another folder with -o") from error
        yield
