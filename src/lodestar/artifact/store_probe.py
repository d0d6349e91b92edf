"""Tries a tracking store out: its experiment, and the folder or bucket of the experiment's artifacts."""

import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lodestar.artifact.tracking import Tracking, translated
from lodestar.errors import ExternalError

__all__ = ["probe_artifacts", "probe_experiment"]

_TAG = "lodestar.check"
_FILE = "probe"


def probe_experiment(tracking: Tracking) -> str:
    """Tag the experiment, which is made where it is missing, read the tag, remove it; in words.

    Raises:
        ExternalError: the store does not answer, or refuses.
    """
    connection, value = tracking.open(), secrets.token_hex(8)
    client, experiment = connection.client, connection.experiment
    tag = f"{_TAG}.{value}"
    with translated():
        client.set_experiment_tag(experiment, tag, value)
        try:
            found = client.get_experiment(experiment).tags.get(tag)
        finally:
            client.delete_experiment_tag(experiment, tag)
    if found != value:
        raise ExternalError("the tracking store does not give back what was written to it")
    return f"the experiment {tracking.experiment_name} was tagged, read, and the tag removed"


def probe_artifacts(tracking: Tracking) -> str:
    """Put a file beside the experiment's artifacts, get it, delete it; no run is made for it.

    Raises:
        ExternalError: the artifact store does not answer, or refuses.
    """
    connection = tracking.open()
    with translated(), TemporaryDirectory() as scratch:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        root = connection.client.get_experiment(connection.experiment).artifact_location
        folder, value = f"check-{secrets.token_hex(8)}", secrets.token_hex(8)
        repository: Any = get_artifact_repository(root, tracking_uri=connection.uri)
        given = Path(scratch) / _FILE
        given.write_text(value, encoding="utf-8")
        repository.log_artifact(str(given), folder)
        try:
            got = Path(repository.download_artifacts(f"{folder}/{_FILE}", scratch))
            found = got.read_text(encoding="utf-8")
        finally:
            repository.delete_artifacts(folder)
    if found != value:
        raise ExternalError("the artifact store does not give back what was written to it")
    return "a file was written, read and removed"
