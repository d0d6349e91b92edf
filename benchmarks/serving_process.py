"""A server on one processor, what asks it on another: start, readiness, memory, load, end."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil
from load import Asked, Load, ask_once

__all__ = [
    "LOAD_CORE",
    "SERVER_CORE",
    "Memory",
    "Server",
    "Way",
    "fetch",
    "measure",
    "pinned",
    "started",
]

SERVER_CORE, LOAD_CORE = sorted(os.sched_getaffinity(0))[:2]
START_WITHIN, STOP_WITHIN, LOAD_WITHIN, POLL = 120.0, 10.0, 300.0, 0.01


@dataclass(frozen=True)
class Way:
    """How a server is started on a port, and how it is asked. Bodies are `<bodies>.jsonl`.

    `ready` is a path that answers 200 when the server is ready, where it has one. `expected` is the
    batch that its answers must equal, `kind` says where they hold the probabilities.
    """

    name: str
    command: Sequence[str]
    path: str = "/predict"
    bodies: str = "keys"
    marker: str = "probabilities"
    ready: str = ""
    expected: str = ""
    kind: str = "ours"
    environment: Mapping[str, str] = field(default_factory=dict)

    def asked(self, port: int, folder: Path, *, checked: bool = False) -> Asked:
        """What a load generator needs to know."""
        name = f"{self.bodies}_checked.jsonl" if checked else f"{self.bodies}.jsonl"
        return Asked(port, self.path, str(folder / name), self.marker)


@dataclass(frozen=True)
class Memory:
    """MB: resident set of the first process, of all together, and what all use (shared pages shared)."""

    main: float
    tree: float
    proportional: float


@dataclass(frozen=True)
class Server:
    """A server that answers. Seconds from the process's start to readiness, and to the first answer.

    `start_cpu` is the processor time, in seconds, of all its processes until then.
    """

    process: psutil.Process
    port: int
    ready: float
    first_answer: float
    start_cpu: float = 0.0

    def cpu(self) -> float:
        """Seconds of processor time so far, of all its processes."""
        spent = [process.cpu_times() for process in self._every()]
        ended = spent[0].children_user + spent[0].children_system
        return float(sum(one.user + one.system for one in spent)) + ended

    def memory(self) -> Memory:
        """What it holds now, with all processes that it has started."""
        held = [process.memory_full_info() for process in self._every()]
        tree, shared = sum(one.rss for one in held), sum(one.pss for one in held)
        return Memory(held[0].rss / 2**20, tree / 2**20, shared / 2**20)

    def _every(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started in the block runs on one processor alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started(way: Way, port: int, folder: Path) -> Iterator[Server]:
    """Run a server, from its start to its end; its last words go into the error if it fails.

    Raises:
        RuntimeError: it ended, or did not answer in time.
    """
    log = folder / "server.log"
    command = [word.replace("{port}", str(port)) for word in way.command]
    with pinned(SERVER_CORE), log.open("wb") as out:
        began = time.perf_counter()
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **way.environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    process = psutil.Process(child.pid)
    try:
        with pinned(LOAD_CORE):
            ready, first = _await(way, port, folder, child, began)
        server = Server(process, port, ready, first)
        yield replace(server, start_cpu=server.cpu())
    except Exception as error:
        error.add_note(f"{way.name} said last:\n{log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        _stop(child, process)


def _await(
    way: Way, port: int, folder: Path, child: "subprocess.Popen[bytes]", began: float
) -> tuple[float, float]:
    with Path(way.asked(port, folder).bodies).open(encoding="utf-8") as bodies:
        body = bodies.readline().strip()
    ready, said = 0.0, (0, "")
    while (now := time.perf_counter()) < began + START_WITHIN:
        if child.poll() is not None:
            raise RuntimeError(f"{way.name} ended with {child.returncode} while it started")
        waits = way.ready and not ready
        said = ask_once(port, way.ready, "") if waits else ask_once(port, way.path, body)
        if said[0] == 200:
            took = time.perf_counter() - began
            if not waits:
                return ready or took, took
            ready = took
            continue
        time.sleep(max(0.0, POLL - (time.perf_counter() - now)))
    raise RuntimeError(f"{way.name} did not answer within {START_WITHIN:.0f} s: {said}")


def _stop(child: "subprocess.Popen[bytes]", process: psutil.Process) -> None:
    """End the server and the processes that it has started, by their numbers."""
    try:
        every = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        every = []
    child.terminate()
    _, left = psutil.wait_procs(every, timeout=STOP_WITHIN)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(one)
        _, left = psutil.wait_procs(left, timeout=STOP_WITHIN)
    child.wait()


def measure(way: Way, server: Server, folder: Path, concurrency: int, seconds: float) -> Load:
    """Ask for some seconds, so many at a time.

    Raises:
        RuntimeError: the load generator failed.
    """
    order = {"concurrency": concurrency, "seconds": seconds}
    return Load(**json.loads(_load(way.asked(server.port, folder), order)))


def fetch(way: Way, server: Server, folder: Path, concurrency: int, out: Path) -> None:
    """Ask each of the bodies to be checked once, and write the answers down in their order."""
    order = {"concurrency": concurrency, "out": str(out)}
    _load(way.asked(server.port, folder, checked=True), order)


def _load(asked: Asked, order: Mapping[str, object]) -> str:
    script = str(Path(__file__).with_name("load.py"))
    done = subprocess.run(
        [sys.executable, script],
        input=json.dumps({**asdict(asked), **order, "core": LOAD_CORE}),
        capture_output=True,
        text=True,
        check=False,
        timeout=LOAD_WITHIN,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed:\n{done.stderr}")
    return done.stdout
