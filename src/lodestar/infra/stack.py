"""PostgreSQL, Redis and MLflow of one project: started together, looked at, stopped together."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

from pydantic import SecretStr

from lodestar.errors import ExternalError, UsageError
from lodestar.infra.addresses import Addresses, AddressFile
from lodestar.infra.endpoint import port_taken
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.infra.postgres import PostgresServer
from lodestar.infra.process import ServerProcess, await_ready, signals_held
from lodestar.infra.redis_server import RedisServer
from lodestar.interface.progress import Progress, Silent

__all__ = ["Infra", "RunningInfra", "ServerStatus"]

LOCK_WITHIN = 300.0
ANSWER_WITHIN = 20.0
POLL = 0.1
IGNORE_ALL = "*\n"


class Server(Protocol):
    """One of the three; each keeps what it was made with."""

    @property
    def name(self) -> str:
        """What it is called, as its log and its folder are."""
        ...

    @property
    def address(self) -> str:
        """Host and port."""
        ...

    @property
    def folder(self) -> Path:
        """Where its data are."""
        ...

    @property
    def process(self) -> ServerProcess:
        """Its process, running or not."""
        ...

    def problem(self) -> str | None:
        """Why it cannot be used just now; none if it can."""
        ...

    def start(self) -> None:
        """Start it and wait until it is ready; what fails is stopped again."""
        ...

    def stop(self) -> bool:
        """End it; tell whether it ran."""
        ...


@dataclass(frozen=True)
class ServerStatus:
    """How one server is. `pid` is none where it does not run, or was started by someone else."""

    name: str
    address: str
    pid: int | None
    problem: str | None
    data_bytes: int
    log: Path


@dataclass(frozen=True)
class RunningInfra:
    """All three, ready; `started` names those that were missing."""

    started: tuple[str, ...]
    postgres_uri: SecretStr
    env_file: Path


class Infra:
    """The servers of a project; their data, logs and records lie in `.lodestar/infra`."""

    def __init__(self, project: Path) -> None:
        self._home = project / ".lodestar" / "infra"
        self._file = AddressFile(project)

    @contextmanager
    def up(self, progress: Progress) -> Iterator[RunningInfra]:
        """Start what is missing; if that or the block fails, stop what this has started.

        Raises:
            ExternalError: a server cannot be started, or a command at work here does not end.
        """
        with self._alone(progress):
            addresses = self._file.read() or self._renewed()
            if not addresses.variables().items() <= self._file.variables().items():
                self._file.write(addresses)  # an older one, with fewer variables
            started: list[Server] = []
            try:
                self._start(addresses, started, progress)
                names = tuple(server.name for server in started)
                uri = self._postgres(addresses).uri
                yield RunningInfra(names, uri, self._file.path)
            except BaseException:
                with signals_held():
                    for server in reversed(started):
                        server.stop()
                raise

    def down(self, progress: Progress) -> tuple[str, ...]:
        """Stop all that was started here, the last first; name those that ran."""
        with self._alone(progress):
            stopped = []
            for server in reversed(self._servers(self._file.read() or Addresses.fresh())):
                progress.stage(f"stop {server.name}")
                if server.stop():
                    stopped.append(server.name)
            return tuple(stopped)

    def status(self) -> tuple[ServerStatus, ...]:
        """How each is, by a real connection.

        Raises:
            UsageError: none was ever started here.
        """
        addresses = self._file.read()
        if addresses is None:
            raise UsageError("this project has no servers yet", hint="lodestar infra up")
        return tuple(_status(server) for server in self._servers(addresses))

    def write_env_file(self) -> Path:
        """Choose ports and passwords, if that is not done yet; return the file with them."""
        with self._alone(Silent()):
            if self._file.read() is None:
                self._renewed()
        return self._file.path

    def _servers(self, addresses: Addresses) -> tuple[Server, ...]:
        postgres = self._postgres(addresses)
        return (
            postgres,
            RedisServer(self._home, addresses.redis),
            MlflowServer(self._home, addresses.mlflow_port, database=postgres.uri_of("mlflow")),
        )

    def _postgres(self, addresses: Addresses) -> PostgresServer:
        return PostgresServer(self._home, addresses.postgres)

    def _start(self, addresses: Addresses, started: list[Server], progress: Progress) -> None:
        """Start those that do not run; `started` knows of each before it is."""
        for server in self._servers(addresses):
            if _runs(server):
                continue
            progress.stage(f"start {server.name}")
            started.append(server)
            server.start()

    def _renewed(self) -> Addresses:
        """New addresses, also for data that are there; the file is written when they hold."""
        addresses = Addresses.fresh()
        for server in reversed(self._servers(addresses)):
            server.stop()
        self._postgres(addresses).renew_password()
        self._file.write(addresses)
        return addresses

    def _make_folders(self) -> None:
        """Where we are root, another user runs PostgreSQL and must be able to enter."""
        try:
            for folder in (self._home.parent, self._home):
                if not folder.is_dir():
                    folder.mkdir()
                    if os.geteuid() == 0:
                        folder.chmod(0o755)
            ignore = self._home.parent / ".gitignore"
            if not ignore.exists():
                ignore.write_text(IGNORE_ALL, encoding="utf-8")
        except OSError as error:
            raise ExternalError(
                f"cannot be made: {error.strerror}", where=str(self._home)
            ) from error

    @contextmanager
    def _alone(self, progress: Progress) -> Iterator[None]:
        """Wait until no other command starts or stops servers here."""
        self._make_folders()
        with self._lock_file() as lock:
            if not _locked(lock.fileno()):
                progress.note("another `lodestar infra` is at work here; waiting for it")
                end = time.monotonic() + LOCK_WITHIN
                while not _locked(lock.fileno()):
                    if time.monotonic() > end:
                        raise ExternalError(
                            f"another `lodestar infra` has been at work for {LOCK_WITHIN:g} s",
                            where=str(self._home),
                        )
                    time.sleep(POLL)
            yield

    def _lock_file(self) -> TextIO:
        path = self._home / ".lock"
        try:
            return path.open("a", encoding="utf-8")
        except OSError as error:
            raise ExternalError(
                f"cannot be written: {error.strerror}",
                where=str(path),
                hint="run the command as the user who first ran it here",
            ) from error


def _runs(server: Server) -> bool:
    """Whether it can be used already, whoever started it.

    Raises:
        ExternalError: it runs but does not answer, or another program has its port.
    """
    if server.process.pid is not None:
        await_ready(server.process, server.problem, within=ANSWER_WITHIN)
        return True
    server.stop()  # what a killed one has left behind
    if server.problem() is None:
        return True
    if port_taken(_port(server)):
        raise ExternalError(
            f"{server.name} cannot be started: another program listens at {server.address}",
            hint="end that program, or delete .lodestar/infra.env: new ports are chosen then",
        )
    return False


def _port(server: Server) -> int:
    return int(server.address.rpartition(":")[2])


def _status(server: Server) -> ServerStatus:
    size = _size(server.folder)
    pid, log = server.process.pid, server.process.log
    return ServerStatus(server.name, server.address, pid, _problem(server), size, log)


def _problem(server: Server) -> str | None:
    if server.process.ended_unasked:
        return "ended unasked; `lodestar infra up` starts it again"
    if server.process.pid is None and not port_taken(_port(server)):
        return "not running"
    return server.problem()


def _size(folder: Path) -> int:
    """Bytes of all files below; those that go while it looks count nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            try:
                total += Path(place, file).lstat().st_size
            except OSError:
                continue
    return total


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
