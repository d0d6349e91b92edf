"""`lodestar infra`: three real servers, used as their clients use them, over restarts and users."""

import contextlib
import json
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from mlflow import MlflowClient
from pydantic import SecretStr
from ruamel.yaml import YAML
from tests.conftest import ROOT
from tests.infra_projects import NAMES, InfraCommand, infra_command

from lodestar.errors import DataError, ExternalError, SettingsError, UsageError
from lodestar.infra.account import Account, server_account
from lodestar.infra.addresses import Addresses, AddressFile
from lodestar.infra.endpoint import free_port
from lodestar.infra.programs import driver
from lodestar.interface.progress import Silent
from lodestar.pipelines.infra import ensure_shop
from lodestar.samples.shop import write_shop

pytestmark = [pytest.mark.slow, pytest.mark.faults]  # CI has DEV on the same servers, in e2e
TABLES = {
    "users",
    "products",
    "sessions",
    "purchases",
    "user_demographics",
    "user_purchase_summary",
    "product_details",
    "session_summary",
}


@pytest.fixture(scope="module")
def project() -> Iterator[InfraCommand]:
    with infra_command() as command:
        yield command


@pytest.fixture
def infra(project: InfraCommand) -> InfraCommand:
    """The servers, up, with a small shop."""
    if not project.is_up():
        project.up()
    return project


def query(infra: InfraCommand, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(infra.variables()["LODESTAR_POSTGRES_URI"]) as connection:
        return connection.execute(sql.encode()).fetchall()


@contextlib.contextmanager
def redis_of(uri: str) -> "Iterator[redis.Redis]":
    client = redis.Redis.from_url(uri, socket_timeout=5)
    try:
        yield client
    finally:
        client.close()


def secrets_of(infra: InfraCommand) -> set[str]:
    found = {value for name, value in infra.variables().items() if name.endswith("PASSWORD")}
    assert len(found) == 2
    return found


def test_up_says_what_runs_where(infra: InfraCommand) -> None:
    said = infra("up", "--json").succeeded().json
    assert said["ready"]
    assert [server["name"] for server in said["servers"]] == list(NAMES)
    for server in said["servers"]:
        assert server["address"].startswith("127.0.0.1:")
        assert psutil.pid_exists(server["pid"])


def test_a_second_up_starts_nothing(infra: InfraCommand) -> None:
    before = [infra.pid(name) for name in NAMES]
    said = infra("up", "--json").succeeded().json
    assert said["started"] == []
    assert said["shop"]["loaded"] is False
    assert [infra.pid(name) for name in NAMES] == before
    assert "already running" in infra("up").succeeded().stderr


def test_the_servers_listen_on_this_machine_only(infra: InfraCommand) -> None:
    listening = [
        connection.laddr.ip
        for process in infra.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}


def test_postgres_wants_the_password(infra: InfraCommand) -> None:
    assert query(infra, "SELECT 1") == [(1,)]
    uri = infra.variables()["LODESTAR_POSTGRES_URI"]
    for wrong in (uri.replace("@", "x@"), uri.replace("lodestar:", "postgres:", 1)):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong, connect_timeout=5)


def test_the_user_of_postgres_is_no_superuser_but_may_make_databases(infra: InfraCommand) -> None:
    flags = "SELECT usesuper, usecreatedb FROM pg_user WHERE usename = current_user"
    assert query(infra, flags) == [(False, True)]
    assert query(infra, "SHOW timezone") == [("UTC",)]


def test_redis_wants_the_password(infra: InfraCommand) -> None:
    uri = infra.variables()["LODESTAR_REDIS_URI"]
    with redis_of(uri) as client:
        assert client.ping()
    bare = f"redis://{uri.partition('@')[2]}"
    with redis_of(bare) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    with redis_of(uri.replace("@", "x@")) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_data_survive_down_and_up_at_the_same_addresses(
    infra: InfraCommand, tmp_path: Path
) -> None:
    before = infra.variables()
    with psycopg.connect(before["LODESTAR_POSTGRES_URI"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    with redis_of(before["LODESTAR_REDIS_URI"]) as client:
        client.set("kept", "42")
    run_id = logged_run(before["LODESTAR_MLFLOW_URI"], tmp_path)

    stopped = infra("down", "--json").succeeded().json["stopped"]
    assert stopped == ["mlflow", "redis", "postgres"]
    assert infra.processes() == []
    assert infra("down", "--json").succeeded().json["stopped"] == []
    said = infra("up", "--json").succeeded().json

    assert said["started"] == list(NAMES)
    assert infra.variables() == before
    assert query(infra, "SELECT answer FROM kept") == [(42,)]
    with redis_of(before["LODESTAR_REDIS_URI"]) as client:
        assert client.get("kept") == b"42"
    assert artifact_of(before["LODESTAR_MLFLOW_URI"], run_id, tmp_path) == "a page"


def logged_run(uri: str, folder: Path) -> str:
    client = MlflowClient(tracking_uri=uri)
    experiments = client.search_experiments(filter_string="name = 'shop'")
    experiment = experiments[0].experiment_id if experiments else client.create_experiment("shop")
    run_id = client.create_run(experiment).info.run_id
    client.log_metric(run_id, "auc", 0.75)
    page = folder / "page.txt"
    page.write_text("a page", encoding="utf-8")
    client.log_artifact(run_id, str(page))
    return str(run_id)


def artifact_of(uri: str, run_id: str, folder: Path) -> str:
    client = MlflowClient(tracking_uri=uri)
    assert client.get_run(run_id).data.metrics == {"auc": 0.75}
    place = folder / "fetched"
    place.mkdir()
    return Path(client.download_artifacts(run_id, "page.txt", str(place))).read_text("utf-8")


def test_mlflow_keeps_artifacts_in_the_project(infra: InfraCommand, tmp_path: Path) -> None:
    run_id = logged_run(infra.variables()["LODESTAR_MLFLOW_URI"], tmp_path)
    (found,) = (infra.home / "mlflow/artifacts").rglob(f"{run_id}/artifacts/page.txt")
    assert found.read_text("utf-8") == "a page"


def test_status_shows_each_server_and_fails_when_one_is_down(infra: InfraCommand) -> None:
    shown = infra("status").succeeded().stderr
    assert all(name in shown for name in NAMES)
    assert shown.count("ready") == 3
    said = infra("status", "--json").succeeded().json
    assert all(server["data_bytes"] > 0 for server in said["servers"][:2])
    infra("down").succeeded()
    down = infra("status", "--json")
    assert down.code == 4
    assert [server["problem"] for server in down.json["servers"]] == ["not running"] * 3


def test_status_of_a_project_without_servers_says_how_to_start_them() -> None:
    with infra_command() as command:
        command("status").refused(2, "lodestar infra up")


def test_no_password_is_seen(infra: InfraCommand) -> None:
    said = [infra("up"), infra("up", "--json"), infra("status"), infra("status", "--json")]
    texts = {f"output {n}": f"{done.stdout}{done.stderr}" for n, done in enumerate(said)}
    texts |= {log.name: log.read_text("utf-8") for log in infra.home.glob("*.log")}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            texts[f"command line {process.pid}"] = " ".join(process.cmdline())
    assert len(infra.processes()) >= 3
    for secret in secrets_of(infra):
        assert [where for where, text in texts.items() if secret in text] == []


def test_only_their_owner_reads_what_holds_passwords(infra: InfraCommand) -> None:
    secrets = secrets_of(infra)
    for path in infra.env_file.parent.rglob("*"):
        if path.is_file() and any(
            secret in path.read_bytes().decode("latin1") for secret in secrets
        ):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(infra.env_file.stat().st_mode) == 0o600


def test_git_ignores_the_env_file(infra: InfraCommand) -> None:
    assert (infra.env_file.parent / ".gitignore").read_text("utf-8") == "*\n"


def test_the_shop_is_loaded_as_it_was_made(infra: InfraCommand, tmp_path: Path) -> None:
    write_shop(tmp_path, sessions=500, users=100, products=20)
    uri = infra.variables()["LODESTAR_POSTGRES_URI"]
    dbapi = driver("adbc_driver_postgresql.dbapi")
    with dbapi.connect(uri) as connection, connection.cursor() as cursor:
        for name in sorted(TABLES):
            made = pq.read_table(tmp_path / f"{name}.parquet")
            cursor.execute(f"SELECT * FROM {name}")  # noqa: S608 -- a name of ours
            loaded = cursor.fetch_arrow_table()
            assert loaded.schema.names == made.schema.names
            assert in_order(loaded.cast(made.schema)) == in_order(made), name


def in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in table.column_names]).combine_chunks()


def test_the_shop_has_its_types_indexes_and_statistics(infra: InfraCommand) -> None:
    columns = "SELECT DISTINCT data_type FROM information_schema.columns WHERE table_name IN "
    types = query(infra, f"{columns} ('sessions', 'user_demographics', 'product_details')")
    assert {kind for (kind,) in types} == {
        "text",
        "bigint",
        "double precision",
        "timestamp with time zone",
    }
    found = query(infra, "SELECT tablename, indexdef FROM pg_indexes")
    indexed = {str(table): str(definition) for table, definition in found}
    assert "(user_id, event_timestamp)" in indexed["user_demographics"]
    assert "(session_id, event_timestamp)" in indexed["session_summary"]
    assert "(event_timestamp)" in indexed["sessions"]
    known = query(infra, "SELECT reltuples::int FROM pg_class WHERE relname = 'sessions'")
    assert known == [(500,)]


@pytest.fixture
def database(postgres_uri: str) -> SecretStr:
    """An empty database."""
    name = f"shop_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return SecretStr(postgres_uri.rpartition("/")[0] + f"/{name}")


def one(database: SecretStr, sql: str) -> object:
    with psycopg.connect(database.get_secret_value()) as connection:
        found = connection.execute(sql.encode()).fetchone()
    assert found is not None
    return found[0]


def test_another_size_is_refused_until_it_is_asked_to_replace(database: SecretStr) -> None:
    small = {"sessions": 50, "users": 20, "products": 5}
    loaded = ensure_shop(database, small, Silent(), reload=False)
    assert {table.name for table in loaded.tables} == TABLES
    assert loaded.peak_memory_mb > 0
    assert not ensure_shop(database, {}, Silent(), reload=False).tables
    with pytest.raises(UsageError, match="50 sessions, 20 users") as caught:
        ensure_shop(database, {"sessions": 60}, Silent(), reload=False)
    assert "--reload" in str(caught.value)
    assert one(database, "SELECT count(*) FROM sessions") == 50
    ensure_shop(database, small | {"sessions": 60}, Silent(), reload=True)
    assert one(database, "SELECT count(*) FROM sessions") == 60
    assert one(database, "SELECT sessions FROM lodestar_shop") == 60


def test_a_users_own_table_is_never_replaced(database: SecretStr) -> None:
    with psycopg.connect(database.get_secret_value()) as connection:
        connection.execute("CREATE TABLE purchases AS SELECT 1 AS mine")
    small = {"sessions": 50, "users": 20, "products": 5}
    for reload in (False, True):
        with pytest.raises(DataError, match="'purchases'"):
            ensure_shop(database, small, Silent(), reload=reload)
    assert one(database, "SELECT mine FROM purchases") == 1
    assert one(database, "SELECT to_regclass('sessions')::text") is None


def test_an_unreachable_database_is_told_without_its_password() -> None:
    uri = SecretStr(f"postgresql://lodestar:hush@127.0.0.1:{free_port()}/lodestar")
    with pytest.raises(ExternalError, match="PostgreSQL does not answer") as caught:
        ensure_shop(uri, {}, Silent(), reload=False)
    assert "hush" not in str(caught.value)


def test_a_lost_env_file_means_new_passwords_and_the_same_data() -> None:
    with infra_command() as infra:
        infra.up()
        before = secrets_of(infra)
        infra.env_file.unlink()
        said = infra("up", "--json").succeeded().json
        assert said["started"] == list(NAMES)
        assert not before & secrets_of(infra)
        assert query(infra, "SELECT count(*) FROM sessions") == [(500,)]


def test_what_an_older_version_made_gets_the_registrys_database_and_variable() -> None:
    with infra_command() as infra:
        infra("up", "--no-data").succeeded()
        whole, line = infra.env_file.read_text(), "LODESTAR_FEAST_URI="
        without = [each for each in whole.splitlines() if not each.startswith(line)]
        with psycopg.connect(
            infra.variables()["LODESTAR_POSTGRES_URI"], autocommit=True
        ) as connection:
            connection.execute("DROP DATABASE feast")
        infra("down").succeeded()
        infra.env_file.write_text("\n".join(without))
        infra("up", "--no-data").succeeded()
        assert infra.env_file.read_text() == whole
        with psycopg.connect(infra.variables()["LODESTAR_FEAST_URI"]) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("feast",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_it_works_as_another_user_than_root() -> None:
    nobody = server_account(Path("/"))
    assert nobody is not None
    if not nobody.reaches(Path(sys.executable)):
        pytest.skip("this Python cannot be run by another user")
    with infra_command(nobody) as infra:
        infra.up()
        assert {process.username() for process in infra.processes()} == {nobody.name}
        assert query(infra, "SELECT count(*) FROM sessions") == [(500,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_servers_of_another_user_are_left_to_that_user() -> None:
    nobody = server_account(Path("/"))
    assert nobody is not None
    if not nobody.reaches(Path(sys.executable)):
        pytest.skip("this Python cannot be run by another user")
    with infra_command() as infra:
        infra("env-file").succeeded()
        other = InfraCommand(infra.project, nobody)
        other("up", "--no-data").refused(4, ".lock", "the user who first ran it")
        other("status").refused(2, "cannot be read")


def test_an_env_file_for_containers_is_written_once_and_nothing_is_started() -> None:
    with infra_command() as infra:
        path = Path(infra("env-file", "--json").succeeded().json["env_file"])
        first = path.read_text("utf-8")
        assert "--env-file .lodestar/infra.env" in infra("env-file").succeeded().stderr
        assert path.read_text("utf-8") == first
        assert infra.processes() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives its rights up")
def test_root_runs_postgres_as_the_owner_of_the_project(tmp_path: Path) -> None:
    owner = Account("daemon", 1, 1)
    owner.own(tmp_path)
    assert server_account(tmp_path) == owner


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("LODESTAR_REDIS_URI=", "LODESTAR_REDIS_URI"),
        ("LODESTAR_REDIS_URI=redis://127.0.0.1:7000/0", "password"),
        ("LODESTAR_REDIS_URI=redis://:hush%27@127.0.0.1:7000/0", "password"),
        ("LODESTAR_REDIS_URI=redis://:hush@127.0.0.1:99999/0", "port"),
        ("LODESTAR_REDIS_URI=redis://:hush@example.org:7000/0", "127.0.0.1"),
        ("LODESTAR_REDIS_URI=redis://:hush@[::1/0", "URI"),
        ("NOTHING=1", "missing"),
    ],
)
def test_a_broken_env_file_is_explained_without_its_passwords(
    tmp_path: Path, line: str, wrong: str
) -> None:
    file = AddressFile(tmp_path)
    file.path.parent.mkdir()
    file.write(Addresses.fresh())
    lines = file.path.read_text("utf-8").splitlines()
    edited = [line if each.startswith("LODESTAR_REDIS_URI=") else each for each in lines]
    file.path.write_text("\n".join(edited), "utf-8")
    with pytest.raises(SettingsError, match=wrong) as caught:
        file.read()
    assert "infra.env" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_addresses_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = AddressFile(tmp_path)
    assert file.read() is None
    file.path.parent.mkdir()
    addresses = Addresses.fresh()
    file.write(addresses)
    assert file.read() == addresses
    hidden = (addresses.postgres.password, addresses.redis.password)
    assert not any(each.get_secret_value() in repr(addresses) for each in hidden)


def test_compose_offers_the_same_servers_to_this_machine_only() -> None:
    text = (ROOT / "compose.yaml").read_text("utf-8")
    compose = YAML(typ="safe").load(text)
    assert set(compose["services"]) == set(NAMES)
    given = Addresses.fresh().variables()
    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"], name
        (port,) = service["ports"]
        assert port.startswith("127.0.0.1:${LODESTAR_")
        words = json.dumps([service.get("command"), service["healthcheck"]["test"]])
        assert "PASSWORD" not in words, "what stands in a command line is seen by all"
    used = {part.split("}")[0].split(":")[0] for part in text.split("${")[1:]}
    assert used == {name for name in given if not name.endswith("_URI")}
    assert "requirepass ${LODESTAR_REDIS_PASSWORD" in compose["configs"]["redis"]["content"]
