"""What all workers serve, in one small file: nothing is lost, and nothing is held by the dead."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from lodestar.artifact.register import OpenedRun
from lodestar.serving.problems import ProblemError
from lodestar.serving.state import (
    ServedRun,
    SharedState,
    State,
    dealt_with,
    refused,
    rolled_back,
    swapped,
)

ROOT = Path(__file__).resolve().parents[2]
A, B, C = (ServedRun(name * 32, name, name * 64, f"/{name}", "native") for name in "abc")
BEGIN = State(0, A, "start", "now", followed=A.digest)
# What other processes do with the folder that is their argument.
ADDS = """
import msgspec
for _ in range(100):
    state.change(lambda it: msgspec.structs.replace(it, generation=it.generation + 1))
"""
SWAPS = """
with state.swapping() as mine:
    say(mine)
"""
LEADS = "say(state.lead())"
WORKS = "state.tell(7); say(True)"
PROGRAM = """
import sys
from pathlib import Path
from lodestar.serving.state import SharedState
state = SharedState(Path(sys.argv[1]))
def say(it):
    print(it, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> SharedState:
    return SharedState.begin(tmp_path, A.opened())


def start(folder: Path, does: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM + does, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def another(folder: Path, does: str, says: str = "True") -> "Iterator[subprocess.Popen[str]]":
    """Another process, which has said something and waits."""
    process = start(folder, does)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == says
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_it_begins_with_what_the_server_was_started_with(tmp_path: Path) -> None:
    opened = OpenedRun("a" * 32, "a name", "d" * 64, tmp_path / "artifact")
    state = SharedState.begin(tmp_path, opened).read()
    assert state.champion.opened() == opened
    assert (state.generation, state.cause, state.former) == (0, "start", None)
    assert state.followed == opened.digest
    assert not state.watched


def test_a_swap_keeps_the_former_champion_and_what_was_followed() -> None:
    state = swapped(BEGIN, B, cause="swap", watch_seconds=60)
    assert (state.generation, state.champion, state.former) == (1, B, A)
    assert state.followed == A.digest
    assert state.watched
    assert not swapped(BEGIN, B, cause="swap", watch_seconds=-1).watched
    assert swapped(BEGIN, B, cause="follow", watch_seconds=0, followed="x").followed == "x"


def test_a_rollback_brings_the_former_one_back_once() -> None:
    state = swapped(BEGIN, B, cause="follow", watch_seconds=60, followed=B.digest)
    back = rolled_back(state, reason="errors", said="too many", generation=1)
    assert (back.generation, back.champion, back.former) == (2, A, None)
    assert (back.reason, back.said) == ("errors", f"run {B.run_id} was taken back: too many")
    assert back.followed == B.digest, "the alias still means it, and it does not come in again"
    assert not back.watched
    with pytest.raises(ProblemError, match="no former model"):
        rolled_back(back, reason="asked", said="")


def test_a_rollback_of_what_is_gone_already_changes_nothing() -> None:
    state = swapped(
        swapped(BEGIN, B, cause="swap", watch_seconds=60), C, cause="swap", watch_seconds=60
    )
    with pytest.raises(ProblemError, match="meanwhile"):
        rolled_back(state, reason="errors", said="", generation=1)


def test_a_refusal_is_noted_and_changes_no_model() -> None:
    state = refused(BEGIN, B.run_id, "another task", followed=B.digest)
    assert state.refused.endswith(f"run {B.run_id}: another task")
    assert (state.generation, state.champion, state.followed) == (0, A, B.digest)
    assert refused(BEGIN, B.run_id, "for now").followed == A.digest
    assert dealt_with(BEGIN, followed="").followed == A.digest
    assert dealt_with(BEGIN, followed=B.digest).followed == B.digest


def test_changes_of_several_processes_are_all_there(tmp_path: Path, state: SharedState) -> None:
    processes = [start(tmp_path, ADDS) for _ in range(3)]
    try:
        while None in [process.poll() for process in processes]:
            assert state.read().champion.digest == A.digest, "a reader sees no half of a file"
    finally:
        for process in processes:
            process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert state.read().generation == 300
    assert not list(tmp_path.glob("*.tmp"))


def test_a_change_that_fails_leaves_the_state_and_its_lock(state: SharedState) -> None:
    def fails(it: State) -> State:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        state.change(fails)
    assert state.change(lambda it: it) == state.read()


def test_a_change_is_noticed_once_by_everyone(tmp_path: Path, state: SharedState) -> None:
    other = SharedState(tmp_path)
    assert state.has_changed()
    assert other.has_changed()
    assert not state.has_changed()
    for _ in range(20):
        state.change(lambda it: it)
        assert other.has_changed()
        assert not other.has_changed()


def test_one_swap_at_a_time_also_within_one_process(state: SharedState) -> None:
    assert not state.is_swapping()
    with state.swapping() as mine, state.swapping() as another_one:
        assert mine
        assert not another_one
        assert state.is_swapping()
    with state.swapping() as mine:
        assert mine


def test_a_swap_of_a_process_that_was_killed_is_over(tmp_path: Path, state: SharedState) -> None:
    with another(tmp_path, SWAPS) as process:
        with state.swapping() as mine:
            assert not mine
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        with state.swapping() as mine:
            assert mine


def test_one_leads_until_it_ends(tmp_path: Path, state: SharedState) -> None:
    with another(tmp_path, LEADS) as process:
        assert not state.lead()
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert state.lead()
        assert state.lead(), "once is enough"
        with another(tmp_path, LEADS, says="False"):
            pass
    state.close()
    with another(tmp_path, LEADS):
        pass


def test_the_workers_are_those_that_live(tmp_path: Path, state: SharedState) -> None:
    state.tell(3)
    with another(tmp_path, WORKS) as process:
        assert state.generations() == {os.getpid(): 3, process.pid: 7}
        state.tell(8)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        assert state.generations() == {os.getpid(): 8}
    assert len(list(tmp_path.glob("worker-*"))) == 1, "the dead one's file is gone"
    state.close()
    assert state.generations() == {}


def test_what_is_written_is_plain_json(tmp_path: Path, state: SharedState) -> None:
    state.change(lambda it: swapped(it, B, cause="swap", watch_seconds=1))
    found = json.loads((tmp_path / "state.json").read_text())
    assert found["champion"]["run_id"] == B.run_id
    assert msgspec.convert(found, State) == state.read()
