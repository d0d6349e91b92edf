"""kill -9, Ctrl-C and dying workers in `lodestar train` with a search: nothing is lost, nothing left."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.conftest import COMMAND, Finished, Lodestar, copy_of, ended

TRIALS = 40
SEARCH = (
    *("train", "-r", "breast_cancer"),
    *("--set", "config.hyperparameter_tuning.enabled=true"),
    *("--set", "hyperparameter_tuning.enabled=true"),
    *("--set", f"hyperparameter_tuning.n_trials={TRIALS}"),
    *("--set", "hyperparameter_tuning.finalists={candidates: 3, splits: 3}"),
    *(
        "--set",
        "model.hyperparameters={n_estimators: 400, n_jobs: 1,"
        " max_depth: {type: int, low: 2, high: 6},"
        " learning_rate: {type: float, low: 0.005, high: 0.3, log: true}}",
    ),
)
TWO = ("--set", "config.hyperparameter_tuning.parallelization.n_jobs=2")


@dataclass(frozen=True)
class Ended:
    """A trial as the journal tells it: what was written to the disk before anyone went on."""

    slot: int
    state: int
    values: tuple[float, ...]


def journal_of(project: Path) -> Path | None:
    found = sorted((project / ".lodestar/studies").glob("breast_cancer-*.journal"))
    found = [path for path in found if path.name.count(".") == 1]
    return found[0] if found else None


def acknowledged(project: Path) -> set[Ended]:
    """Every complete or pruned trial whose line is whole. Read with no library of the search's."""
    path = journal_of(project)
    if path is None:
        return set()
    slots: dict[int, int] = {}
    told: dict[int, tuple[int, tuple[float, ...]]] = {}
    content = path.read_bytes()
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        entry: dict[str, Any] = json.loads(line)
        slot = entry.get("user_attr", {}).get("slot")
        if slot is not None and "trial_id" in entry:
            slots[entry["trial_id"]] = slot
        if entry.get("state") in {1, 2} and "trial_id" in entry:  # optuna: COMPLETE, PRUNED
            told[entry["trial_id"]] = (entry["state"], tuple(entry.get("values") or ()))
    return {Ended(slots[trial], *what) for trial, what in told.items()}


def in_artifact(project: Path, done: Finished) -> dict[str, Any]:
    path = project / done.json["artifact_uri"] / "lodestar/contents.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))["hyperparameter_optimization"]
    return found


def every_slot_once(project: Path, done: Finished, before: set[Ended]) -> dict[str, Any]:
    """Exactly the budget, and every acknowledged trial is in the history as it was."""
    kept = in_artifact(project, done)
    history = {trial["number"]: trial for trial in kept["optimization_history"]}
    assert sorted(trial["number"] for trial in kept["optimization_history"]) == list(range(TRIALS))
    for trial in before:
        found = history[trial.slot]
        assert found["state"] == {1: "complete", 2: "pruned"}[trial.state]
        if trial.values:
            assert found["value"] == trial.values[0]
    assert len(acknowledged(project)) == kept["completed_trials"] + kept["pruned_trials"]
    return kept


@pytest.fixture
def arena(sample_project: Path, tmp_path: Path) -> Path:
    return copy_of(sample_project, tmp_path / "project")


@pytest.fixture(scope="module")
def undisturbed(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    project = copy_of(sample_project, tmp_path_factory.mktemp("undisturbed") / "project")
    return lodestar(*SEARCH, "--json", cwd=project).succeeded()


@contextlib.contextmanager
def nothing_left_of(process: "subprocess.Popen[str]") -> Iterator[Callable[[], None]]:
    """Whatever processes the command has started are gone soon after it is."""
    seen: dict[int, psutil.Process] = {}

    def look() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
            seen.update({child.pid: child for child in children})

    yield look
    until = time.monotonic() + 10
    while time.monotonic() < until and any(child.is_running() for child in seen.values()):
        time.sleep(0.05)
    assert [child for child in seen.values() if child.is_running()] == []


def until_trials(
    project: Path,
    count: int,
    process: "subprocess.Popen[str]",
    look: Callable[[], None] = lambda: None,
) -> None:
    deadline = time.monotonic() + 60
    while len(acknowledged(project)) < count and process.poll() is None:
        assert time.monotonic() < deadline, "the search does not get anywhere"
        look()
        time.sleep(0.05)


def killed_and_resumed(
    lodestar: Lodestar, project: Path, seed: int, options: tuple[str, ...]
) -> Finished:
    """Kill the command three times at random moments, then let it end."""
    moments = random.Random(seed)  # noqa: S311 -- a moment, no secret
    before: set[Ended] = set()
    resume: tuple[str, ...] = ()
    for _ in range(3):
        process = lodestar.start(*SEARCH, *options, *resume, "--json", cwd=project)
        with nothing_left_of(process) as look:
            goal = len(before) + moments.randrange(0, 15)
            until_trials(project, goal, process, look)
            time.sleep(moments.uniform(0, 0.5))
            look()
            process.kill()
            done = ended(process)
        assert done.code in {-signal.SIGKILL, 0}, done.stderr
        now = acknowledged(project)
        assert before <= now
        before = now
        resume = ("--resume",) if now else ()
    done = lodestar(*SEARCH, *options, *resume, "--json", cwd=project).succeeded()
    every_slot_once(project, done, before)
    return done


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
def test_a_killed_search_resumes_to_bitwise_the_same(
    lodestar: Lodestar, arena: Path, undisturbed: Finished, seed: int
) -> None:
    done = killed_and_resumed(lodestar, arena, seed, ())
    assert done.json["tuning"]["best_params"] == undisturbed.json["tuning"]["best_params"]
    assert done.json["tuning"]["best_score"] == undisturbed.json["tuning"]["best_score"]
    assert done.json["metrics"] == undisturbed.json["metrics"]


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
def test_a_killed_search_of_two_workers_resumes_to_its_exact_budget(
    lodestar: Lodestar, arena: Path, seed: int
) -> None:
    killed_and_resumed(lodestar, arena, seed, TWO)


@pytest.mark.faults
def test_after_a_kill_the_first_trial_comes_at_once(lodestar: Lodestar, arena: Path) -> None:
    process = lodestar.start(*SEARCH, cwd=arena)
    until_trials(arena, 5, process)
    process.kill()
    ended(process)
    before = len(acknowledged(arena))
    began = time.monotonic()
    process = lodestar.start(*SEARCH, "--resume", cwd=arena)
    until_trials(arena, before + 1, process)
    spent = time.monotonic() - began
    process.kill()
    ended(process)
    # Optuna's own lock would wait 30 s here; what is left is the start of the command.
    assert spent < 15, f"{spent:.1f} s to the first trial"


@pytest.mark.faults
def test_a_second_command_on_a_running_search_is_refused(lodestar: Lodestar, arena: Path) -> None:
    process = lodestar.start(*SEARCH, cwd=arena)
    until_trials(arena, 3, process)
    before = acknowledged(arena)
    lodestar(*SEARCH, "--resume", cwd=arena).refused(4, "another command is running the search")
    assert before <= acknowledged(arena)
    process.kill()
    ended(process)


def in_a_terminal(project: Path, *options: str) -> "subprocess.Popen[str]":
    """Started as a shell does it: Ctrl-C reaches the command and every process that it started."""
    return subprocess.Popen(
        [*COMMAND, *SEARCH, *options],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("options", [(), pytest.param(TWO, marks=pytest.mark.faults)])
def test_ctrl_c_once_finishes_with_the_best_so_far(
    lodestar: Lodestar, arena: Path, options: tuple[str, ...]
) -> None:
    process = in_a_terminal(arena, "--json", *options)
    with nothing_left_of(process) as look:
        until_trials(arena, 6, process, look)
        os.killpg(process.pid, signal.SIGINT)
        done = ended(process).succeeded()
    tuning = done.json["tuning"]
    ended_trials = tuning["completed"] + tuning["pruned"] + tuning["failed"]
    assert 6 <= ended_trials < TRIALS
    assert tuning["failed"] == 0
    assert "stopping the search" in done.stderr
    assert f"interrupted after {ended_trials} of {TRIALS} trials" in done.stderr
    assert "Traceback" not in done.stderr
    lodestar("verify", "--run-id", done.json["run_id"], cwd=arena).succeeded()


@pytest.mark.faults
@pytest.mark.parametrize("options", [(), TWO])
@pytest.mark.parametrize("moment", range(5))
def test_ctrl_c_twice_aborts_and_can_be_resumed(
    lodestar: Lodestar, arena: Path, moment: int, options: tuple[str, ...]
) -> None:
    process = in_a_terminal(arena, *options)
    with nothing_left_of(process) as look:
        until_trials(arena, 6, process, look)
        os.killpg(process.pid, signal.SIGINT)
        # Later it finds the search at its end, or the final fit.
        time.sleep(random.Random(moment).uniform(0.02, 0.5))  # noqa: S311 -- a moment, no secret
        os.killpg(process.pid, signal.SIGINT)
        done = ended(process)
    assert done.code == 130, done.stderr
    assert "Traceback" not in done.stderr
    before = acknowledged(arena)
    resumed = lodestar(*SEARCH, *options, "--resume", "--json", cwd=arena).succeeded()
    every_slot_once(arena, resumed, before)


@pytest.mark.faults
def test_a_worker_that_is_killed_costs_one_trial(lodestar: Lodestar, arena: Path) -> None:
    process = lodestar.start(*SEARCH, *TWO, "--json", cwd=arena)
    with nothing_left_of(process) as look:
        until_trials(arena, 4, process, look)
        servers = [
            child
            for child in psutil.Process(process.pid).children()
            if "forkserver" in " ".join(child.cmdline())
        ]
        workers = [worker for server in servers for worker in server.children()]
        assert len(workers) == 2
        os.kill(workers[0].pid, signal.SIGKILL)
        done = ended(process).succeeded()
    kept = in_artifact(arena, done)
    assert kept["failed_trials"] == 1
    assert [trial["number"] for trial in kept["optimization_history"]] == list(range(TRIALS))
