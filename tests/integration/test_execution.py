"""Real workers: they share the rows, keep to their threads, and may die one at a time."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from tests.conftest import ROOT
from tests.searching import between, problem_of, searched

from lodestar.core.tuning.problem import TrialProblem
from lodestar.core.tuning.result import SearchLimits
from lodestar.execution.local import local_executor
from lodestar.interface.execution import TrialExecutor, TrialOutcome, TrialReport, TrialTask

SMALL: dict[str, Any] = {"n_estimators": 10, "max_depth": 3, "n_jobs": 1}


class Wilful:
    """A regressor that does what its hyperparameter says while it fits."""

    def __init__(self, deed: str = "", x: float = 0.0, seconds: float = 0.0) -> None:
        self.deed, self.x, self.seconds = deed, x, seconds

    def fit(self, rows: Any, target: NDArray[Any]) -> None:  # noqa: ANN401 -- pandas
        if self.deed == "killed" or (self.deed == "sometimes" and self.x > 0.6):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deed == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.deed == "exit":
            raise SystemExit(7)
        if self.deed.startswith("/"):
            Path(self.deed).touch()
        if self.deed == "threads":
            from threadpoolctl import threadpool_info  # type: ignore[import-untyped]  # no types

            self.seen = max(item["num_threads"] for item in threadpool_info())
        if self.deed == "mapped":
            maps = Path("/proc/self/maps").read_text(encoding="utf-8")
            self.seen = int("lodestar-search-" in maps)
        time.sleep(self.seconds)
        self.mean = float(np.mean(target))

    def predict(self, rows: Any) -> NDArray[Any]:  # noqa: ANN401 -- pandas
        return np.full(len(rows), getattr(self, "seen", self.mean + self.x), dtype=float)


def wilful() -> TrialProblem:
    problem = problem_of("tests.integration.test_execution.Wilful", "regression", "mae", rows=60)
    problem.truth.target[:] = 0.0  # so that a trial's value is what its fit has seen
    return problem


def task(number: int, **given: Any) -> TrialTask:  # noqa: ANN401 -- hyperparameters
    return TrialTask(number, given, number, watched=False)


def outcomes(executor: TrialExecutor, count: int, *, within: float = 60.0) -> list[TrialOutcome]:
    found: list[TrialOutcome] = []
    until = time.monotonic() + within
    while len(found) < count and time.monotonic() < until:
        for event in executor.events(timeout=0.1):
            if isinstance(event, TrialReport):
                executor.answer(event.number, "go on")
            else:
                found.append(event)
    assert len(found) == count
    return found


def pool_processes() -> list[psutil.Process]:
    """The workers that run: what the fork server of this process has borne."""
    found = []
    for server in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "forkserver" in str(server.cmdline()):
                found += [child for child in server.children() if running(child)]
    return found


def running(process: psutil.Process) -> bool:
    """Whether it runs; what has ended and is not yet looked after does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gone(processes: Sequence[psutil.Process], *, within: float = 30.0) -> bool:
    """Whether they have all ended, in time."""
    until = time.monotonic() + within
    while any(map(running, processes)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(running, processes))


@contextlib.contextmanager
def no_worker_left() -> Iterator[None]:
    """The pool's processes are gone afterwards; the fork server that bore them may stay."""
    before = set(pool_processes())
    folders = set(Path(tempfile.gettempdir()).glob(f"lodestar-search-{os.getpid()}-*"))
    yield
    assert gone([process for process in pool_processes() if process not in before])
    assert set(Path(tempfile.gettempdir()).glob(f"lodestar-search-{os.getpid()}-*")) == folders


@pytest.mark.parametrize("workers", [1, 2])
def test_wherever_a_trial_runs_its_value_is_the_same(workers: int) -> None:
    problem = problem_of()
    expected = [
        problem.run(task(seed, **SMALL), lambda step, value: None, lambda: False).value
        for seed in range(4)
    ]
    with no_worker_left(), local_executor(problem, workers=workers, threads=1) as executor:
        found: dict[int, float | None] = {}
        for seed in range(0, 4, workers):
            for number in range(seed, seed + workers):
                executor.submit(task(number, **SMALL), seconds=None)
            found |= {item.number: item.value for item in outcomes(executor, workers)}
    assert [found[seed] for seed in range(4)] == expected


def test_workers_map_the_rows_and_keep_to_their_threads() -> None:
    with local_executor(wilful(), workers=2, threads=1) as executor:
        executor.submit(task(0, deed="mapped"), seconds=None)
        executor.submit(task(1, deed="threads"), seconds=None)
        found = {item.number: item for item in outcomes(executor, 2)}
    assert found[0].value == 1.0, found[0].error
    assert found[1].value == 1.0, found[1].error


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("killed", "its worker was killed by signal 9"),
        ("segfault", "its worker was killed by signal 11"),
        ("exit", "its worker exited with 7"),
    ],
)
def test_a_worker_that_dies_fails_its_trial_and_is_replaced(deed: str, words: str) -> None:
    with no_worker_left(), local_executor(wilful(), workers=2, threads=1) as executor:
        executor.submit(task(0, deed=deed), seconds=None)
        executor.submit(task(1, seconds=0.3), seconds=None)
        found = {item.number: item for item in outcomes(executor, 2)}
        assert (found[0].state, found[0].error) == ("failed", words)
        assert found[1].state == "complete"
        for number in (2, 3):
            executor.submit(task(number), seconds=None)
        assert {item.state for item in outcomes(executor, 2)} == {"complete"}


@pytest.mark.slow
def test_an_idle_worker_that_was_killed_costs_one_trial() -> None:
    with local_executor(wilful(), workers=2, threads=1) as executor:
        executor.submit(task(0), seconds=None)
        outcomes(executor, 1)
        victim, _ = pool_processes()
        victim.kill()
        assert gone([victim])
        for number in (1, 2):
            executor.submit(task(number), seconds=None)
        assert sorted(item.state for item in outcomes(executor, 2)) == ["complete", "failed"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_estimator_that_exits_does_not_hang_the_thread() -> None:
    with local_executor(wilful(), workers=1, threads=1) as executor:
        executor.submit(task(0, deed="exit"), seconds=None)
        (found,) = outcomes(executor, 1)
        assert found.state == "failed"
        executor.submit(task(1), seconds=None)
        assert outcomes(executor, 1)[0].state == "complete"


def test_a_search_with_dying_workers_has_its_exact_budget() -> None:
    limits = SearchLimits(n_trials=16, seconds=120, candidates=2, splits=2)
    space = {"deed": "sometimes", "x": between(0.0, 1.0)}
    result = searched(wilful(), space, limits, workers=2)
    assert [record.number for record in result.history] == list(range(16))
    failed = [record for record in result.history if record.state == "failed"]
    assert failed
    assert all(record.params["x"] > 0.6 for record in failed)
    assert result.best_params["x"] <= 0.6


def test_a_fit_that_does_not_look_at_the_clock_is_ended_by_force() -> None:
    with local_executor(wilful(), workers=2, threads=1) as executor:
        began = time.monotonic()
        executor.submit(task(0, seconds=30.0), seconds=0.5)
        (found,) = outcomes(executor, 1)
        assert found.state == "stopped"
        assert time.monotonic() - began < 20
        executor.submit(task(1), seconds=None)
        assert outcomes(executor, 1)[0].state == "complete"


@pytest.mark.parametrize("workers", [1, 2])
def test_halting_stops_what_runs(workers: int) -> None:
    problem = problem_of(rows=2000)
    slow = {"n_estimators": 100_000, "max_depth": 8, "n_jobs": 1}
    with no_worker_left(), local_executor(problem, workers=workers, threads=1) as executor:
        for number in range(workers):
            executor.submit(task(number, **slow), seconds=None)
        time.sleep(0.3)
        began = time.monotonic()
        executor.halt()
        assert {item.state for item in outcomes(executor, workers)} == {"stopped"}
        assert time.monotonic() - began < 15  # the trial would take minutes


def test_closing_does_not_wait_for_what_runs() -> None:
    with no_worker_left():
        began = time.monotonic()
        with local_executor(wilful(), workers=2, threads=1) as executor:
            executor.submit(task(0, seconds=60.0), seconds=None)
        assert time.monotonic() - began < 30


MAIN = """
import sys, time
from tests.integration.test_execution import *
if __name__ == "__main__":
    with local_executor(wilful(), workers=2, threads=1) as executor:
        begun = [Path(tempfile.gettempdir()) / f"begun-{number}" for number in range(2)]
        for number, path in enumerate(begun):
            executor.submit(task(number, deed=str(path), seconds=60.0), seconds=None)
        while not all(path.exists() for path in begun):
            time.sleep(0.05)
        print(*[process.pid for process in pool_processes()], flush=True)
        time.sleep(60)
"""


def test_a_command_that_is_killed_leaves_no_worker_and_the_next_one_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A temporary directory of its own: in the shared one another test's search cleans up as well.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = subprocess.Popen(
        [sys.executable, "-c", MAIN],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert command.stdout is not None
    workers = [psutil.Process(int(word)) for word in command.stdout.readline().split()]
    assert len(workers) == 2
    command.kill()
    command.wait()
    command.stdout.close()
    assert gone(workers)
    pattern = f"lodestar-search-{command.pid}-*"
    assert list(tmp_path.glob(pattern))
    with local_executor(wilful(), workers=2, threads=1):
        assert not list(tmp_path.glob(pattern))


@pytest.mark.slow
def test_a_search_can_be_run_outside_of_the_main_thread() -> None:
    found: list[int] = []

    def search() -> None:
        limits = SearchLimits(n_trials=4, seconds=60, candidates=1, splits=1)
        result = searched(wilful(), {"x": between(0.0, 1.0)}, limits, workers=2)
        found.append(len(result.history))

    thread = threading.Thread(target=search)
    thread.start()
    thread.join(120)
    assert found == [4]
