"""A project whose runs are on a real MLflow server behind a proxy, and runs that cost no training."""

import gc
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.conftest import copy_of
from tests.faults.injector.http_proxy import HttpProxy

from lodestar.artifact.packaging import ModelIdentity, stamp
from lodestar.artifact.staging import RunRecord
from lodestar.artifact.store import RunStore, SavedRun
from lodestar.infra.endpoint import HOST
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.settings.loading import Environment, load_config

__all__ = [
    "ENV",
    "MLFLOWS_WARNINGS",
    "QUICK",
    "RemoteProject",
    "remote_project",
    "saved_copy",
    "store_of",
]

ENV = "server"
# MLflow's client waits no longer than a test wants to.
QUICK = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
}


# MLflow's client leaves sockets to the collector, and its use of its database library is deprecated.
MLFLOWS_WARNINGS = [
    pytest.mark.filterwarnings("ignore:unclosed <socket"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


@dataclass(frozen=True)
class RemoteProject:
    """A project, its experiment, and the proxy that its config names as the tracking server."""

    folder: Path
    experiment: str
    proxy: HttpProxy
    server: str

    @property
    def environment(self) -> Environment:
        """As its commands see it."""
        return load_config(self.folder, ENV, variables={})

    @property
    def variables(self) -> Mapping[str, str]:
        """For its commands."""
        return {"APP_ENV": ENV, **QUICK}

    @property
    def cached(self) -> list[Path]:
        """The artifacts in its cache."""
        root = self.folder / ".lodestar" / "artifacts"
        return [path for path in root.glob("*") if len(path.name) == 64]

    @property
    def pending(self) -> list[Path]:
        """The trainings that wait."""
        return sorted((self.folder / ".lodestar" / "pending").glob("[!.]*"))

    def asked(self) -> MlflowClient:
        """A client of the server itself, past the proxy."""
        return MlflowClient(tracking_uri=self.server, registry_uri=self.server)

    def runs(self) -> list[tuple[str, str]]:
        """Id and status of every run of its experiment."""
        client = self.asked()
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return []
        found = client.search_runs([experiment.experiment_id])
        return [(run.info.run_id, run.info.status) for run in found]


@contextmanager
def remote_project(sample: Path, target: Path, server: MlflowServer) -> Iterator[RemoteProject]:
    """Copy a project and put its runs on a server."""
    experiment = f"test-{uuid.uuid4().hex[:8]}"
    with HttpProxy(HOST, server.port) as proxy:
        folder = copy_of(sample, target)
        (folder / "config" / f"{ENV}.yaml").write_text(
            "mlflow:\n"
            f"  tracking_uri: http://{proxy.host}:{proxy.port}\n"
            f"  experiment_name: {experiment}\n",
            encoding="utf-8",
        )
        yield RemoteProject(folder, experiment, proxy, server.uri.get_secret_value())
    gc.collect()  # what warns of sockets does so here, where it is expected


def store_of(environment: Environment) -> RunStore:
    """The environment's runs, without the rest of the factory."""
    return RunStore(environment.config.mlflow, environment.project, environment.name)


def saved_copy(
    environment: Environment, artifact: Path, name: str = "a copy", *, recipe: str = "wine"
) -> SavedRun:
    """A further run with a trained artifact: the same but for the ids that it bears."""

    def package(folder: Path, identity: ModelIdentity) -> str:
        shutil.copytree(artifact, folder)
        return stamp(folder, identity)

    record = RunRecord(
        name=name,
        recipe=recipe,
        task="classification",
        class_path="sklearn.ensemble.RandomForestClassifier",
        metrics={"accuracy": 0.9},
        params={"data.rows": "178"},
    )
    return store_of(environment).save(
        record, package=package, report=lambda run_id, digest: f"<p>{run_id} {digest}</p>"
    )
