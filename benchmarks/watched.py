"""A command watched while it runs: what it and all processes below it take."""

import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Watched", "watched"]

LAST_WORDS = 4_000


@dataclass(frozen=True)
class Watched:
    """Seconds from start to end; MB of all processes together at the peak, shared pages counted once.

    `own` and `below` are processor seconds, of the command itself and of all processes below it, as far
    as they were seen.
    """

    wall: float
    peak: float
    own: float
    below: float


def watched(command: Sequence[str], folder: Path, *, every: float) -> Watched:
    """Run it to its end, and look every so many seconds.

    Raises:
        RuntimeError: it ended with another exit code than 0; with its last words.
    """
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
        over = threading.Event()
        cpu: dict[int, float] = {}
        peaks = [0.0]

        def look() -> None:
            while not over.wait(every):
                peaks.append(_seen(process.pid, cpu))

        thread = threading.Thread(target=look)
        thread.start()
        code = process.wait()
        wall = time.perf_counter() - began
        over.set()
        thread.join()
        if code:
            out.seek(0)
            raise RuntimeError(f"{list(command)} ended with {code}:\n{out.read()[-LAST_WORDS:]}")
    own = cpu.pop(process.pid, 0.0)
    return Watched(wall, max(peaks), own, sum(cpu.values()))


def _seen(pid: int, cpu: dict[int, float]) -> float:
    """Note each process's seconds so far; returns MB of all."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in processes:
        try:
            times = process.cpu_times()
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
        cpu[process.pid] = max(cpu.get(process.pid, 0.0), times.user + times.system)
    return total / 2**20
