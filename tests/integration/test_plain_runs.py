"""Runs are listed without MLflow, and just as MLflow lists them."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.tracking import MLFLOWS_WARNINGS

from lodestar.artifact import tags
from lodestar.artifact.aliases import Aliases
from lodestar.artifact.plain_client import NotPlainError
from lodestar.artifact.plain_database import newest_runs
from lodestar.artifact.stored_runs import StoredRun, plain_runs, stored_run
from lodestar.artifact.tracking import Connection, Tracking
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.settings.config import MlflowTracking

pytestmark = MLFLOWS_WARNINGS


@dataclass(frozen=True)
class Store:
    """A way to a store that nobody has opened, as often as it is wanted."""

    uri: str
    folder: Path

    def tracking(self) -> Tracking:
        config = MlflowTracking(
            tracking_uri=SecretStr(self.uri),
            experiment_name=f"plain {self.folder.name}",
            artifact_root="mlruns/artifacts",
        )
        return Tracking(config, self.folder)


@pytest.fixture(scope="module", params=["file", "server"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Made once: MLflow takes seconds to make its tables."""
    if request.param == "file":
        return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    server: MlflowServer = request.getfixturevalue("mlflow_server")
    return server.uri.get_secret_value()


@pytest.fixture
def store(uri: str, tmp_path: Path) -> Store:
    return Store(uri, tmp_path)


def run(connection: Connection, name: str, **more: str) -> str:
    own = {tags.RECIPE: "wine", tags.TASK: "classification", tags.CLASS_PATH: "a.B", **more}
    made = connection.client.create_run(connection.experiment, run_name=name, tags=own)
    run_id: str = made.info.run_id
    connection.client.log_param(run_id, "depth", "3")
    connection.client.log_metric(run_id, "accuracy", 0.5)
    connection.client.log_metric(run_id, "accuracy", 0.1 + 0.2, step=1)
    return run_id


def filled(connection: Connection) -> list[str]:
    """Runs of every kind: two that are listed, a trial, one that was deleted, one of elsewhere."""
    client = connection.client
    first = run(connection, "first", **{tags.DIGEST: "ab" * 32})
    client.log_metric(first, "none", float("nan"))
    client.log_metric(first, "ever", float("inf"))
    time.sleep(0.01)
    second = run(connection, "second")
    others = [run(connection, "trial", **{tags.PARENT: first}), run(connection, "gone")]
    for one in (first, second, *others):
        client.set_terminated(one, status="FINISHED")
    client.delete_run(others[1])
    elsewhere = client.create_experiment(f"elsewhere {connection.experiment} {time.time_ns()}")
    client.create_run(elsewhere, run_name="elsewhere")
    name = f"model {connection.experiment} {time.time_ns()}"
    named = client.get_experiment(connection.experiment).name
    client.create_registered_model(name, tags={tags.EXPERIMENT: named})
    model = client.create_logged_model(connection.experiment, name="model", source_run_id=first)
    source = f"models:/{model.model_id}" if connection.over_http else model.artifact_location
    version = client.create_model_version(name, source, first, model_id=model.model_id).version
    for alias in ("champion", "best"):
        client.set_registered_model_alias(name, alias, version)
    return [second, first]


def by_mlflow(connection: Connection, name: str, most: int) -> list[StoredRun]:
    found = connection.client.search_runs([connection.experiment], tags.NO_TRIAL, max_results=most)
    aliases = Aliases(connection, name).by_run()
    return [stored_run(one, aliases) for one in found]


def in_words(runs: list[StoredRun]) -> list[str]:
    """A NaN is not equal to itself."""
    return [json.dumps(vars(one), default=str, sort_keys=True) for one in runs]


def test_the_plain_way_lists_what_mlflow_lists(store: Store) -> None:
    opened = store.tracking()
    connection = opened.open()
    wanted = filled(connection)
    found = plain_runs(store.tracking(), most=20)
    assert [one.run_id for one in found] == wanted
    assert in_words(found) == in_words(by_mlflow(connection, opened.experiment_name, 20))
    assert found[1].aliases == ("best", "champion")
    assert found[1].metrics["accuracy"] == 0.1 + 0.2
    assert in_words(plain_runs(store.tracking(), most=1)) == in_words(found[:1])


def test_a_run_that_may_be_an_orphan_is_left_to_mlflow(store: Store) -> None:
    run(store.tracking().open(), "running")
    with pytest.raises(NotPlainError):
        plain_runs(store.tracking(), most=20)


def test_a_database_of_another_mlflow_or_none_at_all_is_left_to_mlflow(tmp_path: Path) -> None:
    import sqlite3

    with pytest.raises(NotPlainError):
        newest_runs(tmp_path / "none.db", "any", most=1)
    (tmp_path / "text.db").write_text("no database, but a text that is long enough to be one")
    with pytest.raises(NotPlainError):
        newest_runs(tmp_path / "text.db", "any", most=1)
    with sqlite3.connect(tmp_path / "other.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('later')")
    database.close()
    with pytest.raises(NotPlainError):
        newest_runs(tmp_path / "other.db", "any", most=1)
