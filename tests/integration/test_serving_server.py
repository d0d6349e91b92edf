"""The process: where it listens, how it ends, and what happens to its workers."""

import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from tests.serving_app import STARTS
from tests.serving_places import DEADLINE, Served, head, served, until

from lodestar.serving.threads import VARIABLES, processors

pytestmark = pytest.mark.slow
GRACE = 2.0
# How much later than promised a process may end on a busy machine.
BUSY = 15.0
ENDS = (signal.SIGTERM, signal.SIGINT)


def slow(seconds: float, how: str = "sleep") -> dict[str, object]:
    return {"do": how, "seconds": seconds}


@contextmanager
def working(server: Served, body: Mapping[str, object]) -> "Iterator[Future[httpx.Response]]":
    """A request that is being worked on."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        begun = Path(folder) / "begun"
        asked = pool.submit(server.post, {**body, "begun": str(begun)})
        until(begun.exists)
        yield asked


def refused(server: Served, code: int, *words: str) -> None:
    """The process ends by itself with this code; these are its words, and there is no trace."""
    assert server.process.wait(DEADLINE) == code, server.says()
    said = server.says()
    assert "Traceback" not in said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize("end", ENDS)
def test_an_idle_server_ends_at_once_and_in_order(end: signal.Signals) -> None:
    with served(grace_seconds=20) as server, server.client() as client:
        assert client.get("/health/ready").status_code == 200
        with server.line(), server.line(b"GET / HTT"):  # idle, and half sent
            code, took = server.end(end)
        assert (code, took < 2 + BUSY) == (0, True)
        assert server.logged(route="/health/ready")["status"] == 200


@pytest.mark.parametrize("end", ENDS)
def test_what_runs_is_finished_while_nothing_new_is_begun(
    end: signal.Signals, tmp_path: Path
) -> None:
    over = tmp_path / "over"
    with (
        served(grace_seconds=60, answer_seconds=60) as server,
        working(server, {"do": "wait", "until": str(over)}) as asked,
        server.client() as client,
    ):
        with server.line() as idle:
            server.process.send_signal(end)
            assert idle.rest() == b""
        with server.line() as line:  # which takes its time to ask
            time.sleep(0.4)
            line.say(head("GET", "/health/ready"))
            assert line.response()[0] == 503
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["detail"]) == (503, "draining")
        assert ready.headers["connection"] == "close"
        new = client.post("/predict", json={})
        assert new.status_code == 503
        assert new.json()["type"] == "urn:lodestar:problem:draining"
        assert client.get("/ping").status_code == 503
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/health/live").status_code == 200
        assert not asked.done()
        over.touch()
        assert asked.result().status_code == 200
        assert asked.result().headers["connection"] == "close"
        assert server.process.wait(DEADLINE) == 0
        assert not [line for line in server.log() if line.get("trace")]


@pytest.mark.parametrize(
    "half", [b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Le", head(length=100) + b"{", b""]
)
def test_half_sent_requests_do_not_keep_it(half: bytes) -> None:
    with served(grace_seconds=20) as server, server.line(half) as line:
        time.sleep(0.2)
        code, took = server.end()
        assert code == 0
        assert took < 3 + BUSY
        assert line.statuses() in ([], [408])


@pytest.mark.parametrize("how", ["sleep", "block"])
def test_what_hangs_is_cut_when_the_grace_is_over(how: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with served(grace_seconds=GRACE, answer_seconds=600) as server:
        raw = json.dumps({**slow(60, how), "begun": str(begun)}).encode()
        with server.line(head(length=len(raw)) + raw) as line:
            until(begun.exists)
            code, took = server.end()
            assert code == 0
            assert GRACE - 0.1 < took < GRACE + 1 + BUSY
            assert line.statuses() == ([503] if how == "sleep" else [])


def test_an_application_that_does_not_end_is_not_waited_for() -> None:
    with served(grace_seconds=1, env={STARTS: "never ends"}) as server:
        code, took = server.end()
        assert code == 0
        assert took < 2 + BUSY
        assert "without waiting any longer" in server.says()


def test_a_second_interrupt_does_not_wait() -> None:
    with served(grace_seconds=30) as server, working(server, slow(20.0)) as asked:
        server.process.send_signal(signal.SIGINT)
        until(lambda: server.get("/health/ready").status_code == 503)
        code, took = server.end(signal.SIGINT)
        assert (code, took < 3 + BUSY) == (0, True)
        assert asked.result().status_code == 503


def test_it_listens_where_it_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with served({"port": port}, waits=False) as server:
            refused(server, 4, f"127.0.0.1:{port}", "--port")
    with served({"port": port}) as server:
        assert server.address == f"http://127.0.0.1:{port}"
    with served({"host": "::1"}) as server:
        assert server.address.startswith("http://[::1]:")
        assert server.get("/health/live").status_code == 200


def test_it_does_not_let_others_in_who_need_not_say_who_they_are() -> None:
    with served({"host": "0.0.0.0"}, waits=False) as server:  # noqa: S104 -- refused
        refused(server, 5, "authentication", "api_keys:")


# A supervisor tells all kinds in the same way: CI has one of them with two workers.
@pytest.mark.parametrize(
    ("starts", "code", "words", "workers"),
    [
        ("artifact", 6, "tampered", 1),
        ("artifact", 6, "tampered", 2),
        ("settings", 2, "base.yaml:3:key: no such key", 1),
        pytest.param(*("settings", 2, "base.yaml:3:key: no such key", 2), marks=pytest.mark.faults),
    ],
)
def test_what_keeps_it_from_starting_is_said_in_a_line(
    starts: str, code: int, words: str, workers: int
) -> None:
    with served({"workers": workers}, env={STARTS: starts}, waits=False) as server:
        refused(server, code, f"error: {words}" if starts == "settings" else words)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bug_at_the_start_keeps_its_trace(workers: int) -> None:
    with served({"workers": workers}, env={STARTS: "bug"}, waits=False) as server:
        assert server.process.wait(DEADLINE) == 1
        assert "ZeroDivisionError" in server.says()


def test_a_worker_that_dies_before_it_answers_ends_the_server() -> None:
    with served({"workers": 2}, env={STARTS: "die"}, waits=False) as server:
        refused(server, 1, "before it could answer (exit code 9)")


def pids(server: Served, times: int = 60) -> set[int]:
    """The workers that answer."""
    found = set()
    for _ in range(times):
        try:
            found.add(server.post({}).json()["pid"])
        except (httpx.TransportError, KeyError):  # a worker that was just killed
            continue
    return found


def test_workers_share_the_port_and_the_figures() -> None:
    with served({"workers": 2}, grace_seconds=GRACE) as server:
        name = 'lodestar_requests_total{method="POST",route="/predict",status="200"}'
        asked: list[set[int]] = []

        def counted() -> bool:
            """A worker counts an answer after its client has it."""
            return server.metric(name) == 20 * len(asked)

        while len(set().union(*asked)) < 2 or len(asked) < 2:
            asked.append(pids(server, 20))
            until(counted)
        both = set().union(*asked)
        assert server.metric("lodestar_queue") == 0
        code, took = server.end()
        assert (code, took < GRACE + 1 + BUSY) == (0, True)
        assert not any(psutil.pid_exists(pid) for pid in both)


def test_workers_share_the_processors_among_their_threads() -> None:
    with served({"workers": 2}, env=dict.fromkeys(VARIABLES, "")) as server:
        found = server.post({"do": "threads"}).json()
    # joblib's, and OpenMP's and BLAS's at least.
    assert len(found) >= 3
    assert set(found) == {max(processors() // 2, 1)}


def test_workers_finish_what_runs() -> None:
    with served({"workers": 2}, grace_seconds=30) as server, working(server, slow(1.5)) as asked:
        code, took = server.end()
        assert (code, took < 3 + BUSY) == (0, True)
        assert asked.result().status_code == 200


def test_ctrl_c_reaches_all_and_all_finish() -> None:
    with served({"workers": 2}, grace_seconds=30) as server, working(server, slow(1.5)) as asked:
        for one in psutil.Process(server.process.pid).children(recursive=True):
            one.send_signal(signal.SIGINT)
        assert server.end(signal.SIGINT)[0] == 0
        assert asked.result().status_code == 200
        assert "Traceback" not in server.says()


def test_ctrl_c_while_workers_start_is_no_trace() -> None:
    with served({"workers": 2}, waits=False) as server:
        process = psutil.Process(server.process.pid)
        # The third is multiprocessing's own.
        workers = until(lambda: found if len(found := process.children()) == 3 else None)
        time.sleep(0.3)
        for one in workers:
            one.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.end(signal.SIGINT)[0] == 0
        assert "Traceback" not in server.says()


def test_a_worker_that_dies_is_replaced() -> None:
    with served({"workers": 2}) as server:
        before = until(lambda: found if len(found := pids(server, 20)) == 2 else None)
        gone = before.pop()
        os.kill(gone, signal.SIGKILL)
        (kept,) = before
        after = until(
            lambda: found if len(found := pids(server, 20)) == 2 and gone not in found else None
        )
        assert kept in after
        assert server.end()[0] == 0


def test_workers_that_keep_dying_end_the_server() -> None:
    with served({"workers": 2}) as server:
        stop = threading.Event()

        def kill() -> None:
            while not stop.is_set():
                try:
                    server.post({"do": "die"})
                except httpx.TransportError:
                    time.sleep(0.05)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            refused(server, 1, "workers keep dying: 6 within 60 s", "exit code 9")
        finally:
            stop.set()
            killer.join()


def test_workers_do_not_outlive_their_supervisor() -> None:
    with served({"workers": 2}, grace_seconds=1) as server:
        workers = pids(server, 20)
        server.process.kill()
        until(lambda: not any(map(alive, workers)))


def alive(pid: int) -> bool:
    """Whether it runs; what nobody waits for is a zombie, and does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_workers_folder_of_figures_is_removed(tmp_path: Path) -> None:
    with served({"workers": 2}, env={"TMPDIR": str(tmp_path)}) as server:
        assert list(tmp_path.glob("lodestar-metrics-*/*.db"))
        assert server.end()[0] == 0
    assert not list(tmp_path.glob("lodestar-*"))
