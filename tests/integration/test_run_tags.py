"""Tags of finished runs, set without MLflow where that is simple: its own client reads them back."""

import uuid
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.tracking import MLFLOWS_WARNINGS

from lodestar.artifact import run_tags
from lodestar.artifact.run_tags import MOST_CHARACTERS, add_tags
from lodestar.artifact.tracking import Tracking
from lodestar.errors import ExternalError, UnreachableError
from lodestar.infra.endpoint import free_port
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.settings.config import MlflowTracking

pytestmark = MLFLOWS_WARNINGS
TAGS = {"lodestar.drift": "drift", "lodestar.drift.columns": "ä, 'b'\n" + "c" * 6_000}


def tracking(uri: str, project: Path) -> Tracking:
    config = MlflowTracking.model_validate(
        {
            "experiment_name": f"tags-{uuid.uuid4().hex[:8]}",
            "tracking_uri": uri,
            "artifact_root": "mlruns/artifacts",
        }
    )
    return Tracking(config, project)


@pytest.fixture(params=["sqlite", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Tracking:
    if request.param == "sqlite":
        return tracking("sqlite:///mlruns/mlflow.db", tmp_path)
    server: MlflowServer = request.getfixturevalue("mlflow_server")
    return tracking(server.uri.get_secret_value(), tmp_path)


def new_run(store: Tracking) -> tuple[MlflowClient, str]:
    connection = store.open()
    run = connection.client.create_run(connection.experiment)
    return connection.client, run.info.run_id


def test_mlflow_reads_the_tags_and_a_second_time_replaces_them(
    store: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, run_id = new_run(store)
    add_tags(store, run_id, {**TAGS, "lodestar.drift": "steady"})
    # Nothing was left to MLflow's client, which would take it as well.
    monkeypatch.delattr(run_tags, "_through_mlflow")
    add_tags(store, run_id, TAGS)
    told = client.get_run(run_id).data.tags
    assert told["lodestar.drift"] == "drift"
    assert told["lodestar.drift.columns"] == TAGS["lodestar.drift.columns"][:MOST_CHARACTERS]


def test_a_run_that_is_not_there_is_an_error(store: Tracking) -> None:
    new_run(store)
    with pytest.raises(ExternalError):
        add_tags(store, "0" * 32, TAGS)


def test_a_server_that_is_down_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError):
        add_tags(tracking(f"http://127.0.0.1:{free_port()}", tmp_path), "0" * 32, TAGS)
