"""A real PostgreSQL, Redis and MLflow for the whole suite, with passwords where they take them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.dynamodb_places import one_dynamodb

from lodestar.infra.endpoint import Endpoint, free_port
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.infra.postgres import PostgresServer
from lodestar.infra.redis_server import RedisServer

__all__ = [
    "dynamodb_url",
    "enterable_folder",
    "mlflow_server",
    "postgres_server",
    "postgres_uri",
    "redis_server",
    "redis_uri",
]


@pytest.fixture(scope="session")
def enterable_folder() -> Iterator[Path]:
    """A folder that another user can enter: where we are root, PostgreSQL runs as one."""
    folder = Path(tempfile.mkdtemp(prefix="lodestar-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server(enterable_folder: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(enterable_folder, Endpoint.fresh())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_uri(postgres_server: PostgresServer) -> str:
    """`postgresql://user:password@127.0.0.1:port/lodestar`; its user may make databases."""
    return postgres_server.uri.get_secret_value()


@pytest.fixture(scope="session")
def redis_server(enterable_folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(enterable_folder, Endpoint.fresh())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_uri(redis_server: RedisServer) -> str:
    """`redis://:password@127.0.0.1:port/0`."""
    return redis_server.uri.get_secret_value()


@pytest.fixture(scope="session")
def mlflow_server(enterable_folder: Path) -> Iterator[MlflowServer]:
    """A real tracking server; its runs are in a SQLite file, its artifacts go through it."""
    home = enterable_folder / "tracking"
    home.mkdir()
    database = SecretStr(f"sqlite:///{home}/mlflow.db")
    server = MlflowServer(home, free_port(), database=database)
    server.start()
    yield server
    server.stop(within=0.1)  # in peace it would wait for connections that clients keep


@pytest.fixture(scope="session")
def dynamodb_url(enterable_folder: Path) -> Iterator[str]:
    """`http://127.0.0.1:port` of moto's server, which stands for DynamoDB and takes any keys."""
    with one_dynamodb(enterable_folder / "dynamodb") as server:
        yield server.url
