"""A training that its MLflow server did not take is kept, and becomes one run, whatever happens then."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import SMALL, Lodestar, Trained, ended
from tests.faults.injector.http_proxy import Failure
from tests.tracking import (
    MLFLOWS_WARNINGS,
    QUICK,
    RemoteProject,
    remote_project,
    saved_copy,
    store_of,
)

from lodestar.artifact.store import SavedRun
from lodestar.artifact.wrapper import load_wrapper
from lodestar.errors import ArtifactError, ExternalError, UnreachableError
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.interface.progress import Silent
from lodestar.pipelines.uploading import Uploaded, upload

pytestmark = MLFLOWS_WARNINGS
INJECTOR = Path(__file__).parents[1] / "faults" / "injector"
TRAIN = ("train", "-r", "wine", *SMALL)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def remote(
    sample_project: Path, tmp_path: Path, mlflow_server: MlflowServer
) -> Iterator[RemoteProject]:
    with remote_project(sample_project, tmp_path / "remote", mlflow_server) as project:
        yield project


@pytest.fixture
def artifact(trained: Callable[..., Trained]) -> Path:
    return trained("wine", *SMALL).artifact


@pytest.fixture
def waiting(remote: RemoteProject, artifact: Path) -> RemoteProject:
    """A training that waits, as the server did not answer."""
    remote.proxy.refuse()
    with pytest.raises(UnreachableError, match="nothing is lost"):
        saved_copy(remote.environment, artifact)
    remote.proxy.mend()
    assert len(remote.pending) == 1
    return remote


def uploaded(remote: RemoteProject) -> Uploaded:
    return upload(remote.environment, tell=Silent())


def the_one_run(remote: RemoteProject, saved: SavedRun | None = None) -> None:
    """There is exactly one run, finished; its artifact is what was recorded, and names it."""
    ((run_id, status),) = remote.runs()
    assert status == "FINISHED"
    assert saved is None or saved.run_id == run_id
    opened = store_of(remote.environment).located(run_id)
    load_wrapper(opened.folder, digest=opened.digest)
    assert f"run_id: {run_id}" in (opened.folder / "MLmodel").read_text(encoding="utf-8")
    assert saved is None or saved.digest == opened.digest
    assert remote.pending == []


def test_a_training_without_its_server_is_kept_and_uploaded_later(
    lodestar: Lodestar, remote: RemoteProject, tmp_path: Path
) -> None:
    remote.proxy.refuse()
    done = lodestar(*TRAIN, cwd=remote.folder, env=remote.variables)
    done.refused(4, "the result will be kept locally", "does not answer", "nothing is lost")
    assert "lodestar runs upload --env server" in done.stderr
    (kept,) = remote.pending
    assert kept.relative_to(remote.folder).as_posix() in done.stderr
    assert (kept / "report.html").stat().st_size > 10_000
    lodestar("runs", "upload", cwd=remote.folder, env=remote.variables).refused(
        4, "does not answer"
    )
    assert remote.pending == [kept]
    remote.proxy.mend()
    said = lodestar("runs", "upload", "--json", cwd=remote.folder, env=remote.variables)
    (run,) = said.succeeded().json["runs"]
    the_one_run(remote)
    shown = lodestar(
        "runs", "show", run["run_id"], "--json", cwd=remote.folder, env=remote.variables
    )
    assert shown.succeeded().json["digest"] == run["artifact_digest"]
    assert shown.json["metrics"]["accuracy"] > 0.9
    page = remote.asked().download_artifacts(run["run_id"], "report.html", str(tmp_path))
    text = Path(page).read_text(encoding="utf-8")
    assert run["run_id"] in text
    assert run["artifact_digest"] in text
    again = lodestar("runs", "upload", cwd=remote.folder, env=remote.variables).succeeded()
    assert "nothing waits" in again.stderr


@pytest.mark.parametrize(
    ("words", "count", "failure"),
    [
        ("PUT /api/2.0/mlflow-artifacts", 30, "refuse"),
        *(
            pytest.param(words, 1, failure, marks=pytest.mark.faults)
            for failure in ("refuse", "freeze")
            for words in (
                "mlflow/experiments/create",
                "mlflow/runs/create",
                "mlflow/runs/set-tag",
                "mlflow/logged-models ",
                "mlflow/runs/outputs",
                "PUT /api/2.0/mlflow-artifacts",
                "mlflow/runs/log-batch",
                "report.html",
                "PATCH /api/2.0/mlflow/logged-models",
            )
        ),
    ],
)
@pytest.mark.faults
def test_a_server_that_goes_while_a_training_is_logged_loses_nothing(
    remote: RemoteProject, artifact: Path, words: str, count: int, failure: Failure
) -> None:
    remote.proxy.fail_at(words, count, failure)
    with pytest.raises(ExternalError, match="nothing is lost"):
        saved_copy(remote.environment, artifact)
    assert remote.proxy.fired.is_set(), remote.proxy.requests
    assert len(remote.pending) == 1
    remote.proxy.mend()
    (saved,) = uploaded(remote).runs
    the_one_run(remote, saved)


@pytest.mark.parametrize(
    "words", ["mlflow/runs/create", pytest.param("logged-models ", marks=pytest.mark.faults)]
)
@pytest.mark.faults
def test_a_request_whose_answer_is_lost_makes_no_second_run(
    remote: RemoteProject, artifact: Path, words: str
) -> None:
    """MLflow's client sends it again, and the server does it twice."""
    remote.proxy.fail_at(words, 1, "swallow")
    saved = saved_copy(remote.environment, artifact)
    assert remote.proxy.fired.is_set(), remote.proxy.requests
    assert len([line for line in remote.proxy.requests if words in line]) == 2
    the_one_run(remote, saved)


@pytest.mark.parametrize(
    "moment",
    [
        "open|/model/code/|70",
        pytest.param("os.link|/model/|1", marks=pytest.mark.faults),
        pytest.param("open|/model/MLmodel|5", marks=pytest.mark.faults),
        pytest.param("os.rename|/.aside-|1", marks=pytest.mark.faults),
    ],
)
def test_a_killed_training_or_upload_is_gone_on_with_as_the_same_run(
    lodestar: Lodestar, waiting: RemoteProject, tmp_path: Path, moment: str
) -> None:
    fired = tmp_path / "fired"
    injected = {"PYTHONPATH": str(INJECTOR), "KILL_AT": moment, "KILL_FIRED": str(fired)}
    command = ("runs", "upload", "--json")
    killed = lodestar(*command, cwd=waiting.folder, env={**waiting.variables, **injected})
    assert fired.exists(), killed.stderr
    assert killed.code == -signal.SIGKILL
    assert len(waiting.runs()) <= 1
    uploaded(waiting)
    the_one_run(waiting)
    assert not list((waiting.folder / ".lodestar/pending").iterdir())


@pytest.mark.faults
def test_a_training_that_is_killed_while_it_is_logged_waits_then(
    lodestar: Lodestar, remote: RemoteProject
) -> None:
    remote.proxy.fail_at("PUT /api/2.0/mlflow-artifacts", 20, "freeze")
    process = lodestar.start(*TRAIN, cwd=remote.folder, env=remote.variables)
    assert remote.proxy.fired.wait(timeout=100)
    process.kill()
    assert ended(process).code == -signal.SIGKILL
    remote.proxy.mend()
    ((run_id, status),) = remote.runs()
    assert status == "RUNNING"
    (saved,) = uploaded(remote).runs
    assert saved.run_id == run_id
    the_one_run(remote, saved)


@pytest.mark.faults
def test_what_was_published_before_a_kill_is_not_published_again(
    waiting: RemoteProject, tmp_path: Path
) -> None:
    (folder,) = waiting.pending
    shutil.copytree(folder, tmp_path / "kept")
    (saved,) = uploaded(waiting).runs
    # A kill between the run's end and the folder's leaves the folder.
    shutil.copytree(tmp_path / "kept", folder)
    (again,) = uploaded(waiting).runs
    assert again == saved
    the_one_run(waiting, saved)


@pytest.mark.faults
def test_two_uploads_at_once_make_one_run(lodestar: Lodestar, waiting: RemoteProject) -> None:
    command = ("runs", "upload", "--json")
    started = [
        lodestar.start(*command, cwd=waiting.folder, env=waiting.variables) for _ in range(2)
    ]
    said = [ended(process).succeeded().json["runs"] for process in started]
    assert sum(len(runs) for runs in said) == 1
    the_one_run(waiting)


@pytest.mark.faults
def test_a_damaged_training_is_refused_and_the_others_are_uploaded(
    lodestar: Lodestar, waiting: RemoteProject, artifact: Path
) -> None:
    (first,) = waiting.pending
    waiting.proxy.refuse()
    for name in ("second", "third"):
        with pytest.raises(UnreachableError):
            saved_copy(waiting.environment, artifact, name)
    waiting.proxy.mend()
    contents = first / "model" / "lodestar" / "contents.json"
    contents.write_bytes(contents.read_bytes()[:-1])
    (second,) = (folder for folder in waiting.pending if folder.name.startswith("second"))
    (second / "run.json").write_text("{", encoding="utf-8")
    done = uploaded(waiting)
    assert [run.run_name for run in done.runs] == ["third"]
    assert {type(error) for error in done.damaged} == {ArtifactError}
    assert len(done.damaged) == 2
    assert waiting.pending == sorted((first, second))
    said = lodestar("runs", "upload", "--json", cwd=waiting.folder, env=waiting.variables)
    assert said.code == 6
    assert len(said.json["damaged"]) == 2


def test_a_training_is_uploaded_to_its_own_environment_alone(waiting: RemoteProject) -> None:
    config = waiting.folder / "config"
    shutil.copy(config / "server.yaml", config / "other.yaml")
    (folder,) = waiting.pending
    values = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert values["environment"] == "server"
    (folder / "run.json").write_text(
        json.dumps({**values, "environment": "other"}), encoding="utf-8"
    )
    assert uploaded(waiting).runs == ()
    assert waiting.pending == [folder]


def test_a_training_says_what_still_waits(waiting: RemoteProject) -> None:
    (note,) = store_of(waiting.environment).preflight()
    assert note == "1 finished before and not uploaded: lodestar runs upload --env server"
    waiting.proxy.refuse()
    first, _ = store_of(waiting.environment).preflight()
    assert first.startswith("the MLflow server does not answer")


@pytest.mark.faults
def test_a_frozen_server_is_noticed_in_seconds(remote: RemoteProject) -> None:
    remote.proxy.frozen = True
    begun = time.monotonic()
    with pytest.raises(UnreachableError, match="no answer within 10 s"):
        store_of(remote.environment).find("champion")
    assert time.monotonic() - begun < 15
    assert remote.proxy.held
