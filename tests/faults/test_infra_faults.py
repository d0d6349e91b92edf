"""`lodestar infra` when servers are killed, frozen or in the way, and when it is ended itself."""

import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from tests.conftest import ended
from tests.infra_projects import SMALL_SHOP, InfraCommand, infra_command, wait_for

from lodestar.errors import ExternalError
from lodestar.infra.account import Account
from lodestar.infra.endpoint import Endpoint, port_taken
from lodestar.infra.postgres import PostgresServer
from lodestar.infra.process import ServerProcess
from lodestar.infra.programs import copied_programs, driver, postgres_programs
from lodestar.infra.redis_server import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.faults]
NAMES = ("postgres", "redis", "mlflow")


@pytest.fixture(scope="module")
def infra() -> Iterator[InfraCommand]:
    """Servers that the tests kill and freeze."""
    with infra_command() as command:
        command.up()
        yield command


@pytest.fixture
def place(enterable_folder: Path, request: pytest.FixtureRequest) -> Path:
    """A folder of the test's own for servers."""
    folder: Path = enterable_folder / request.node.name.replace("[", "-").rstrip("]")
    folder.mkdir(mode=0o755)
    return folder


def rows(infra: InfraCommand) -> int:
    with psycopg.connect(infra.variables()["LODESTAR_POSTGRES_URI"]) as connection:
        found = connection.execute("SELECT count(*) FROM sessions").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("name", NAMES)
def test_up_repairs_a_killed_server_and_leaves_the_others(infra: InfraCommand, name: str) -> None:
    infra.up()
    before = {each: infra.pid(each) for each in NAMES}
    os.kill(before[name], signal.SIGKILL)
    shown = infra("status", "--json")
    assert shown.code == 4
    problems = {each["name"]: each["problem"] for each in shown.json["servers"]}
    assert "ended unasked" in problems[name]
    assert infra.up()["started"] == [name]
    after = {each: infra.pid(each) for each in NAMES}
    assert {each for each in NAMES if after[each] != before[each]} == {name}
    infra("status").succeeded()
    assert rows(infra) == 500


def test_down_ends_a_frozen_server_by_force(infra: InfraCommand) -> None:
    infra.up()
    frozen = infra.pid("mlflow")
    os.kill(frozen, signal.SIGSTOP)
    for child in psutil.Process(frozen).children(recursive=True):
        child.suspend()
    shown = infra("status", "--json")
    assert shown.code == 4
    assert "no answer" in shown.json["servers"][2]["problem"]
    assert "mlflow" in infra("down", "--json").succeeded().json["stopped"]
    assert infra.processes() == []


def test_up_says_that_a_server_is_frozen(infra: InfraCommand) -> None:
    infra.up()
    pid = infra.pid("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        infra("up").refused(4, "redis", "not ready", "lodestar infra down")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert infra.up()["started"] == []


def test_a_record_of_another_process_is_not_believed(infra: InfraCommand) -> None:
    infra.up()
    infra("down").succeeded()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        seen = psutil.Process(stranger.pid)
        started = seen.create_time() - psutil.boot_time()
        for record in (
            {"pid": stranger.pid, "started": 1.0, "program": seen.exe()},
            {"pid": stranger.pid, "started": started, "program": "/bin/redis-server"},
            {"pid": stranger.pid, "started": started, "program": seen.exe()},
        ):
            (infra.home / "redis.pid").write_text(json.dumps(record), encoding="utf-8")
            assert infra("status", "--json").json["servers"][1]["problem"] == "not running"
            assert infra("down", "--json").succeeded().json["stopped"] == []
            assert stranger.poll() is None, "a stranger was stopped"
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": 1}', "null"])
def test_a_broken_record_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "redis.pid").write_text(text, encoding="utf-8")
    process = ServerProcess("redis", home=tmp_path, folder=tmp_path)
    assert process.pid is None
    assert process.stop(signal.SIGTERM, within=1) is False


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("postgres.pid", signal.SIGTERM),
        ("redis.pid", signal.SIGINT),
        ("mlflow.pid", signal.SIGTERM),
        ("mlflow.pid", signal.SIGHUP),
    ],
)
def test_an_interrupted_up_leaves_no_process(
    infra: InfraCommand, moment: str, number: signal.Signals
) -> None:
    infra("down").succeeded()
    command = infra.start("up", *SMALL_SHOP)
    wait_for((infra.home / moment).exists)
    command.send_signal(number)
    done = ended(command)
    assert done.code == 130, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert infra.processes() == []


def test_a_first_up_interrupted_anywhere_leaves_no_process_and_no_half_shop() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 -- to repeat a failure
    draw = random.Random(seed)  # noqa: S311 -- moments, no secrets
    with infra_command() as infra:
        for _ in range(3):
            command = infra.start("up", *SMALL_SHOP)
            time.sleep(draw.uniform(0.3, 10.0))
            command.send_signal(signal.SIGTERM)
            done = ended(command)
            assert done.code in {0, 130, -signal.SIGTERM}, done.stderr
            assert "Traceback" not in done.stderr, done.stderr
            if done.code == 0:
                infra("down").succeeded()
            assert infra.processes() == []
        infra.up()
        assert rows(infra) == 500
        assert list(infra.home.glob(".postgres-*")) == []


def test_a_load_that_is_killed_leaves_nothing_and_is_done_again() -> None:
    with infra_command() as infra:
        infra("up", "--no-data").succeeded()
        command = infra.start("up", "--sessions", "300000", "--users", "5000", "--products", "50")
        uri = infra.variables()["LODESTAR_POSTGRES_URI"]
        with psycopg.connect(uri, autocommit=True) as connection:
            copying = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY %'"
            wait_for(lambda: connection.execute(copying).fetchone() != (0,))
            command.kill()
            assert ended(command).code == -signal.SIGKILL
            alone = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'lodestar'"
            wait_for(lambda: connection.execute(alone).fetchone() == (1,))
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            assert connection.execute(tables).fetchone() == (0,)
        assert infra.up()["started"] == []
        assert rows(infra) == 500


def test_two_ups_at_once_start_each_server_once() -> None:
    with infra_command() as infra:
        both = [infra.start("up", *SMALL_SHOP, "--json") for _ in range(2)]
        done = [ended(each).succeeded() for each in both]
        assert sorted(each.json["started"] for each in done) == [[], list(NAMES)]
        assert sorted(each.json["shop"]["loaded"] for each in done) == [False, True]
        assert sum("waiting for it" in each.stderr for each in done) == 1
        assert rows(infra) == 500


def test_a_port_that_another_program_took_is_named(infra: InfraCommand) -> None:
    infra.up()
    infra("down").succeeded()
    port = int(infra.variables()["LODESTAR_REDIS_PORT"])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        infra("up").refused(4, "redis cannot be started", f"127.0.0.1:{port}", "infra.env")
    assert infra.processes() == []
    assert infra.up()["started"] == list(NAMES)


def test_a_wrong_password_is_told_at_once_and_never_shown(infra: InfraCommand) -> None:
    infra.up()
    right = infra.env_file.read_text("utf-8")
    try:
        infra.env_file.write_text(right.replace("lodestar:", "lodestar:hush"), "utf-8")
        began = time.monotonic()
        done = infra("up").refused(4, "postgres refuses the password", "env file")
        assert time.monotonic() - began < 15
        assert "hush" not in f"{done.stdout}{done.stderr}"
        shown = infra("status", "--json")
        assert shown.code == 4
        assert "hush" not in f"{shown.stdout}{shown.stderr}"
    finally:
        infra.env_file.write_text(right, "utf-8")
    assert infra.up()["started"] == []


def test_a_server_that_ends_while_it_starts_shows_its_last_words(place: Path) -> None:
    server = RedisServer(place, Endpoint.fresh())
    (place / "redis" / "appendonly.aof").parent.mkdir()
    (place / "redis" / "appendonly.aof").write_text("no commands", encoding="utf-8")
    with pytest.raises(ExternalError, match=r"ended while it started: .*format") as caught:
        server.start()
    assert "redis.log" in str(caught.value)
    assert server.endpoint.password.get_secret_value() not in str(caught.value)
    assert server.process.pid is None
    assert not port_taken(server.endpoint.port)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_root_is_told_which_folder_keeps_the_other_user_out(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ExternalError, match="nobody") as caught:
        PostgresServer(closed, Endpoint.fresh()).start()
    assert str(closed) in str(caught.value)
    assert "chmod o+x" in str(caught.value)
    assert list(closed.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_programs_out_of_the_other_users_reach_are_copied(place: Path, tmp_path: Path) -> None:
    nobody = Account("nobody", 65534, 65534)
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    original = copied_programs(postgres_programs(), hidden)
    assert not nobody.reaches(original)
    copy = copied_programs(original, place / "programs")
    assert nobody.reaches(copy)
    assert copied_programs(original, place / "programs") == copy
    said = subprocess.run(
        [copy / "initdb", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        **nobody.of_process(),
    )
    assert "PostgreSQL" in said.stdout


def test_a_missing_package_names_its_extra() -> None:
    with pytest.raises(ExternalError, match=r"lodestar-ml\[dev-infra\]"):
        driver("no_such_driver")


def test_logs_are_for_their_owner(infra: InfraCommand) -> None:
    infra.up()
    for log in infra.home.glob("*.log"):
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
