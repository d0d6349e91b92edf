"""Servers as processes: started on their own, known again by a later command, stopped in time."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import psutil

from lodestar.errors import ExternalError
from lodestar.infra.account import Account

__all__ = ["ServerProcess", "await_ready", "signals_held"]

POLL = 0.05
SAME_START = 2.0  # seconds; two processes with one id cannot start within it
LAST_BYTES = 8192


@dataclass(frozen=True)
class _Record:
    """What is written of a started process, to tell it from a later one with its number.

    `started` counts from the machine's start: a clock that is set leaves it alone.
    """

    pid: int
    started: float
    program: str

    @classmethod
    def of(cls, process: psutil.Process) -> "_Record":
        """What the process is."""
        started = process.create_time() - psutil.boot_time()
        return cls(process.pid, round(started, 2), process.exe())

    def is_of(self, process: psutil.Process) -> bool:
        """Whether it is the process that was recorded."""
        now = _Record.of(process)
        return abs(now.started - self.started) < SAME_START and now.program == self.program


class ServerProcess:
    """One server: log and record lie in `home`; it alone runs in `folder`."""

    def __init__(self, name: str, *, home: Path, folder: Path) -> None:
        self.name = name
        self.log = home / f"{name}.log"
        self._folder = folder
        self._record = home / f"{name}.pid"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The running server's process, none if it has ended or its number went to another."""
        record = self._read()
        if record is None:
            return None
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(record.pid)
            if _alive(process) and record.is_of(process) and self._owns(process):
                return record.pid
        return None

    @property
    def ended_unasked(self) -> bool:
        """Whether it was started and has gone, other than by `stop`; its children may still run."""
        return self.pid is None and self._read() is not None

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        account: Account | None = None,
    ) -> None:
        """Start it in a session of its own, so that it outlives the command and its terminal.

        Raises:
            ExternalError: the program cannot be run.
        """
        with signals_held(), _private_log(self.log) as log:
            try:
                self._child = subprocess.Popen(  # noqa: S603 -- a server of ours, by its path
                    list(command),
                    cwd=self._folder,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **(account.of_process() if account else {}),
                )
            except OSError as error:
                raise ExternalError(
                    f"{self.name} cannot be started: {error.strerror}", where=str(command[0])
                ) from error
            self._write(self._child.pid)

    def stop(self, by: signal.Signals, *, within: float, all_of_it: bool = False) -> bool:
        """End it and all that it has started; kill what is left after `within` seconds.

        `all_of_it` signals its children as well. Returns whether anything was running.
        """
        record, pid = self._read(), self.pid
        if pid is not None:
            _send(pid, by, to_group=all_of_it)
            _wait_until(lambda: self.pid is None, within)
        left = [] if record is None else self._left(record)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=within)
        if self._child is not None:
            self._child.wait(timeout=within)
            self._child = None
        self._record.unlink(missing_ok=True)
        return pid is not None or bool(left)

    def alone(self) -> bool:
        """Whether nothing at all runs in its folder, not even a server that someone else started."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if _alive(process) and self._owns(process):
                    return False
        return True

    def last_line(self) -> str:
        """The last line that the server has logged, for an error."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self.log.stat().st_size - LAST_BYTES, 0))
                lines = log.read().decode(errors="replace").split("\n")
        except FileNotFoundError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _left(self, record: _Record) -> list[psutil.Process]:
        """Whatever of it still runs, even when its first process was killed."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.exe() == record.program and _alive(process) and self._owns(process):
                    found.append(process)
        return found

    def _owns(self, process: psutil.Process) -> bool:
        return Path(process.cwd()) == self._folder.resolve()

    def _read(self) -> _Record | None:
        try:
            return _Record(**json.loads(self._record.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _write(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already
            record = _Record.of(psutil.Process(pid))
            self._record.write_text(json.dumps(asdict(record)), encoding="utf-8")


def await_ready(
    process: ServerProcess, problem: Callable[[], str | None], *, within: float
) -> None:
    """Wait until `problem` finds none.

    Raises:
        ExternalError: the server ended, or was not ready in time; with the last line of its log.
    """
    end = time.monotonic() + within
    while (found := problem()) is not None:
        if "password" in found:
            raise ExternalError(
                f"{process.name} refuses the password of the env file",
                hint="put back the file that its data were made with, or delete it: "
                "`lodestar infra up` then makes new passwords",
            )
        if process.pid is None:
            raise ExternalError(
                f"{process.name} ended while it started: {process.last_line()}",
                hint=f"all that it said stands in {process.log}",
            )
        if time.monotonic() > end:
            raise ExternalError(
                f"{process.name} was not ready within {within:g} s ({found}); "
                f"the last it logged: {process.last_line()}",
                hint=f"end it with `lodestar infra down`; all that it said stands in {process.log}",
            )
        time.sleep(POLL)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let a signal wait until the block is over: a process is started and recorded, or neither."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {
        each: signal.signal(each, lambda number, frame: came.append((number, frame)))
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number, _ in came:
            signal.raise_signal(number)


def _private_log(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _alive(process: psutil.Process) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)


def _send(pid: int, number: signal.Signals, *, to_group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if to_group else os.kill)(pid, number)


def _wait_until(over: Callable[[], bool], within: float) -> None:
    end = time.monotonic() + within
    while not over() and time.monotonic() < end:
        time.sleep(POLL)
