"""One process that serves: uvicorn around the edge, which drains when it is told to end."""

import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from types import FrameType

import uvicorn

from lodestar.serving.access_log import Log, LogHandler
from lodestar.serving.edge import Edge
from lodestar.serving.protocol import EdgeProtocol
from lodestar.settings.serving import Serving

__all__ = ["run_worker"]

ENDING = (signal.SIGTERM, signal.SIGINT)
BACKLOG = 2048
OTHER_FILES = 200
# An end may take a second longer than `grace_seconds`; some of it is for the log's last lines.
GIVE_UP_SECONDS = 0.7
LOGGERS = ("uvicorn.error", "asyncio")


def run_worker(
    app_target: str,
    settings: Serving,
    listener: socket.socket,
    started: Callable[[], None],
    *,
    ended: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Serve from this process until it is told to end.

    `ended` gets what to call when something else than a signal says so.

    Raises:
        LodestarError: the application could not start.
    """
    _allow_connections(settings.limits.connections)
    edge = _made_by(app_target)
    config = uvicorn.Config(
        edge,
        loop="uvloop",
        http=EdgeProtocol,
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
    )
    server = _DrainingServer(config, edge, started)
    if ended is not None:
        ended(server.drain)
    try:
        with _logging_to(edge.log):
            server.run(sockets=[listener])
    except SystemExit:  # uvicorn's word for a lifespan that failed
        if edge.failure is None:
            raise
    finally:
        server.over()
    if edge.failure is not None and not server.started:
        raise edge.failure


class _DrainingServer(uvicorn.Server):
    """Ends in order: not ready at once, what runs is finished, nothing takes longer than the grace.

    While answers are worked on it still listens, so that whoever asks hears that it is not ready.
    """

    def __init__(self, config: uvicorn.Config, edge: Edge, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._edge = edge
        self._tell = started
        self._until = 0.0
        self._drained = False
        self._ending = threading.Event()
        self._ended = threading.Event()

    def drain(self, *, at_once: bool = False) -> None:
        """Begin to end."""
        if not self.should_exit:
            self._until = monotonic() + self._edge.limits.grace_seconds
            self._edge.readiness.drain()
            self.should_exit = True
            self._ending.set()
        elif at_once:
            self.force_exit = True

    def over(self) -> None:
        """Nothing runs any more."""
        if self._edge.failure is not None and self.started:
            self._edge.log.event("did not end in order", error=self._edge.failure)
        self._ended.set()
        self._edge.log.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell whoever started it when it answers."""
        await super().startup(sockets)
        if self.started:
            self._tell()

    async def on_tick(self, counter: int) -> bool:
        """Whether to leave the main loop: not before the drain is over."""
        leave = await super().on_tick(counter)
        if not leave or self.force_exit:
            return leave
        if not self._drained:
            # Once: whoever connects from now on asks about health, and may take its time.
            self._drained = True
            for connection in list(self.server_state.connections):
                connection.shutdown()
        return not self._edge.in_flight or monotonic() >= self._until

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is left; connections get what the drain has left of the grace."""
        left = max(self._until - monotonic(), 0.0)
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]  # fractions work
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT drain; after that the process ends by itself, not by the signal."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self._signalled) for each in ENDING}
        threading.Thread(target=self._end_in_time, name="end-in-time", daemon=True).start()
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.drain(at_once=number == signal.SIGINT)

    def _end_in_time(self) -> None:
        """Whatever hangs, a handler or a store that does not close, does not keep the process.

        Python itself waits for threads at its end, and for as long as they like.
        """
        self._ending.wait()
        grace = self._edge.limits.grace_seconds
        last = monotonic() + grace + GIVE_UP_SECONDS
        if not self._ended.wait(grace + GIVE_UP_SECONDS):
            self._edge.log.event("ended without waiting any longer", grace_seconds=grace)
            self._edge.log.close()
            os._exit(0)
        sleep(max(last - monotonic(), 0))
        if not threading.main_thread().is_alive():
            os._exit(0)


def _made_by(target: str) -> Edge:
    module, _, name = target.partition(":")
    edge = getattr(importlib.import_module(module), name)()
    if not isinstance(edge, Edge):
        raise TypeError(f"{target} made no Edge but a {type(edge).__name__}")
    return edge


def _allow_connections(connections: int) -> None:
    """Every connection is an open file, and the usual limit of a process is lower than ours."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextmanager
def _logging_to(log: Log) -> Iterator[None]:
    """Libraries' warnings become lines like all others."""
    handler = LogHandler(log)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
