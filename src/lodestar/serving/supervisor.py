"""Several worker processes on one port: started together, replaced when they die, ended together."""

import os
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from socket import socket
from time import monotonic
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from lodestar.errors import LodestarError, Problem, SettingsError
from lodestar.serving.process import run_worker
from lodestar.serving.telemetry import SHARED_FOLDER
from lodestar.settings.serving import Serving

__all__ = ["Supervisor", "environment"]

SPAWN = get_context("spawn")
LOOK_SECONDS = 0.1
# More deaths than this within the time are no accident.
MOST_DEATHS = 5
DEATHS_SECONDS = 60.0
BEYOND_GRACE_SECONDS = 1.0


class Supervisor:
    """Keeps `settings.workers` processes serving on one listening socket."""

    def __init__(self, app_target: str, settings: Serving, listener: socket) -> None:
        self._target = app_target
        self._settings = settings
        self._listener = listener
        self._workers: list[_Worker] = []
        self._deaths: deque[float] = deque(maxlen=MOST_DEATHS + 1)
        self._ending = False
        self._served = False

    def run(self, started: Callable[[], None]) -> None:
        """Serve until a signal says to end; `started` is called once all workers answer.

        Raises:
            LodestarError: a worker could not start, or workers keep dying.
        """
        with tempfile.TemporaryDirectory(prefix="lodestar-metrics-") as shared, self._signals():
            try:
                with environment({SHARED_FOLDER: shared}):
                    self._workers = [self._worker() for _ in range(self._settings.workers)]
                    while not self._ending:
                        self._look(shared)
                        if not self._served and all(worker.started for worker in self._workers):
                            self._served = True
                            started()
            finally:
                self._end_all()

    def _worker(self) -> "_Worker":
        return _Worker(self._target, self._settings, self._listener)

    def _look(self, shared: str) -> None:
        connection.wait([worker.process.sentinel for worker in self._workers], LOOK_SECONDS)
        for at, worker in enumerate(self._workers):
            is_alive = worker.process.is_alive()
            worker.hear()
            if not is_alive and not self._ending:
                self._mourn(worker, shared)
                self._workers[at] = self._worker()

    def _mourn(self, worker: "_Worker", shared: str) -> None:
        """See whether a death is one too many."""
        worker.process.join()
        mark_process_dead(worker.process.pid, shared)  # type: ignore[no-untyped-call]  # not annotated
        code = worker.process.exitcode
        if not self._served:
            raise worker.failure or LodestarError(
                f"a worker ended before it could answer (exit code {code})",
                hint="what it said stands above",
            )
        self._deaths.append(monotonic())
        if len(self._deaths) > MOST_DEATHS and monotonic() - self._deaths[0] < DEATHS_SECONDS:
            raise worker.failure or LodestarError(
                f"workers keep dying: {len(self._deaths)} within {DEATHS_SECONDS:g} s, "
                f"the last with exit code {code}",
                hint="what they said stands above; a negative code is a signal, "
                "and -9 often the system's, out of memory",
            )

    def _end_all(self) -> None:
        until = monotonic() + self._settings.limits.grace_seconds + BEYOND_GRACE_SECONDS
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(max(until - monotonic(), 0))
            worker.process.kill()
            worker.process.join()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def end(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._ending = True

        before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


class _Worker:
    """A process that serves; it ends by itself when its end of the line is all that is left."""

    def __init__(self, app_target: str, settings: Serving, listener: socket) -> None:
        self.started = False
        self.failure: LodestarError | None = None
        self._line, its_end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_work, args=(app_target, settings, listener, its_end))
        # Ctrl-C reaches every process of a terminal; workers, which inherit the mask, leave it to us.
        # multiprocessing's tracker, started with the first of them, would lift the mask.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        its_end.close()

    def hear(self) -> None:
        """Take in what it has said."""
        try:
            while self._line.poll():
                said = self._line.recv()
                if isinstance(said, _Failure):
                    self.failure = said.error()
                else:
                    self.started = True
        except (EOFError, OSError):  # it has nothing more to say
            return


@dataclass(frozen=True)
class _Failure:
    """An error on its way to another process; SettingsError cannot be pickled as it is."""

    kind: type[LodestarError]
    what: str
    where: str | None
    hint: str | None
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, error: LodestarError) -> "_Failure":
        problems = error.problems if isinstance(error, SettingsError) else ()
        return cls(type(error), error.what, error.where, error.hint, problems)

    def error(self) -> LodestarError:
        if issubclass(self.kind, SettingsError):
            return self.kind(self.problems)
        return self.kind(self.what, where=self.where, hint=self.hint)


@contextmanager
def environment(extra: Mapping[str, str]) -> Iterator[None]:
    """Have these variables for a while, in this process and in those that it starts."""
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _work(app_target: str, settings: Serving, listener: socket, line: Connection) -> None:
    """What a worker process does."""
    try:
        run_worker(
            app_target,
            settings,
            listener,
            started=lambda: line.send(None),
            ended=lambda drain: _drain_when_alone(line, drain),
        )
    except LodestarError as error:
        line.send(_Failure.of(error))
        sys.exit(error.exit_code)


def _drain_when_alone(line: Connection, drain: Callable[[], None]) -> None:
    """A supervisor that was killed cannot end its workers: they notice that the line is cut."""

    def wait() -> None:
        try:
            line.recv()
        except (EOFError, OSError):
            drain()

    threading.Thread(target=wait, name="supervisor-alive", daemon=True).start()
