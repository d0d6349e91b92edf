"""A local store that cannot be written to is told before a training, and not after it."""

import os
from pathlib import Path

import pytest

from lodestar.artifact.plain_client import unreachable
from lodestar.artifact.tracking import Tracking
from lodestar.errors import ExternalError
from lodestar.settings.config import MlflowTracking


def tracking(project: Path, uri: str = "sqlite:///runs/mlflow.db") -> Tracking:
    section = {"experiment_name": "t", "tracking_uri": uri, "artifact_root": "artifacts"}
    return Tracking(MlflowTracking.model_validate(section), project)


def test_folders_that_are_not_there_yet_are_made_later(tmp_path: Path) -> None:
    tracking(tmp_path / "new").require_writable()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("taken", ["runs", "artifacts"])
def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).touch()
    with pytest.raises(ExternalError, match=f"{tmp_path}/{taken} cannot be written to"):
        tracking(tmp_path).require_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("closed", [".", "runs", "runs/mlflow.db"])
def test_a_place_that_may_only_be_read_is_told(tmp_path: Path, closed: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mlflow.db").touch()
    (tmp_path / closed).chmod(0o500)
    with pytest.raises(ExternalError, match="cannot be written to"):
        tracking(tmp_path).require_writable()
    (tmp_path / closed).chmod(0o700)


def test_a_server_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "artifacts").touch()
    tracking(tmp_path, "http://127.0.0.1:1").require_writable()


@pytest.mark.parametrize(("host", "told"), [("127.0.0.1", True), ("mlflow.example.com", False)])
def test_a_server_of_this_machine_that_is_down_is_started_by_infra_up(
    host: str, *, told: bool
) -> None:
    hint = unreachable(f"http://{host}:5000", "Connection refused").hint
    assert hint is not None
    assert ("lodestar infra up" in hint) is told
