"""Artifacts of a server are fetched once, verified at each use, and do without the server then."""

import os
import shutil
import signal
import subprocess
import sys
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

from lodestar.artifact.cache import ArtifactCache
from lodestar.artifact.folders import discard, held
from lodestar.artifact.manifest import verify, write_manifest
from lodestar.artifact.store import SavedRun
from lodestar.errors import ArtifactError, ExternalError, UnreachableError, UsageError
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.settings.loading import load_config

INJECTOR = Path(__file__).parents[1] / "faults" / "injector"
DAY = 86_400


pytestmark = MLFLOWS_WARNINGS


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def project(
    sample_project: Path, tmp_path_factory: pytest.TempPathFactory, mlflow_server: MlflowServer
) -> Iterator[RemoteProject]:
    target = tmp_path_factory.mktemp("cache") / "remote"
    with remote_project(sample_project, target, mlflow_server) as project:
        yield project


@pytest.fixture(scope="module")
def run(project: RemoteProject, trained: Callable[..., Trained]) -> SavedRun:
    return saved_copy(project.environment, trained("wine", *SMALL).artifact)


@pytest.fixture
def remote(project: RemoteProject) -> RemoteProject:
    """Its server answers, and nothing is cached."""
    project.proxy.mend()
    shutil.rmtree(project.folder / ".lodestar", ignore_errors=True)
    return project


@pytest.fixture
def no_mlflow(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing MLflow fails."""
    place = tmp_path / "without"
    place.mkdir()
    (place / "mlflow.py").write_text("raise ImportError('this test has no MLflow')\n")
    return {"PYTHONPATH": str(place)}


def test_a_fetched_artifact_needs_neither_the_server_nor_mlflow(
    lodestar: Lodestar, remote: RemoteProject, run: SavedRun, no_mlflow: dict[str, str]
) -> None:
    command = ("verify", "--json", "--run-id")
    first = lodestar(*command, run.run_id[:12], cwd=remote.folder, env=remote.variables).succeeded()
    assert [path.name for path in remote.cached] == [run.digest]
    # A prefix asks the server, in plain HTTP.
    env = {**remote.variables, **no_mlflow}
    lodestar(*command, run.run_id[:12], cwd=remote.folder, env=env).succeeded()
    remote.proxy.refuse()
    asked = len(remote.proxy.requests)
    for whole in (run.run_id, run.digest):
        again = lodestar(*command, whole, cwd=remote.folder, env=env).succeeded()
        assert again.json == first.json
        assert again.json["notes"] == []
    assert len(remote.proxy.requests) == asked


@pytest.mark.faults
def test_what_was_published_from_here_is_not_fetched(remote: RemoteProject, run: SavedRun) -> None:
    trained_at = store_of(remote.environment).located(run.run_id).folder
    made = saved_copy(remote.environment, trained_at)
    remote.proxy.refuse()
    found = store_of(remote.environment).located(made.run_id)
    assert (found.digest, found.folder.name, found.notes) == (made.digest, made.digest, ())
    verify(found.folder, expected=made.digest)


def test_without_the_server_a_prefix_means_what_is_here_and_says_so(
    remote: RemoteProject, run: SavedRun
) -> None:
    store_of(remote.environment).located(run.run_id)
    remote.proxy.refuse()
    known = store_of(remote.environment).located(run.run_id[:6])
    assert known.run_id == run.run_id
    (note,) = known.notes
    assert "does not answer" in note
    assert run.run_id in note
    unknown = "00000000" if not run.run_id.startswith("00000000") else "11111111"
    with pytest.raises(UnreachableError, match="does not answer"):
        store_of(remote.environment).located(unknown)


def test_a_damaged_copy_is_fetched_again_and_never_used(
    remote: RemoteProject, run: SavedRun
) -> None:
    copy = store_of(remote.environment).located(run.run_id).folder
    contents = copy / "lodestar" / "contents.json"
    whole = contents.read_bytes()
    contents.write_bytes(whole.replace(b"wine", b"wime"))
    assert store_of(remote.environment).located(run.run_id).folder == copy
    assert contents.read_bytes() == whole
    contents.write_bytes(whole[:-1])
    remote.proxy.refuse()
    with pytest.raises(UnreachableError):
        store_of(remote.environment).located(run.run_id)
    assert remote.cached == []


@pytest.mark.parametrize("failure", ["refuse", pytest.param("freeze", marks=pytest.mark.faults)])
def test_half_a_download_is_never_seen(
    remote: RemoteProject, run: SavedRun, failure: Failure
) -> None:
    remote.proxy.fail_at("mlflow-artifacts/artifacts/", 20, failure)
    with pytest.raises(ExternalError, match="MLflow"):
        store_of(remote.environment).located(run.run_id)
    assert remote.proxy.fired.is_set()
    assert remote.cached == []
    remote.proxy.mend()
    store_of(remote.environment).located(run.run_id)
    assert [path.name for path in remote.cached] == [run.digest]


@pytest.mark.parametrize(
    "moment", ["open|/.aside-|20", pytest.param("os.rename|/.aside-|1", marks=pytest.mark.faults)]
)
@pytest.mark.faults
def test_a_fetch_that_was_killed_leaves_nothing_to_be_taken_for_an_artifact(
    lodestar: Lodestar, remote: RemoteProject, run: SavedRun, tmp_path: Path, moment: str
) -> None:
    command = ("verify", "--run-id", run.run_id)
    fired = tmp_path / "fired"
    injected = {"PYTHONPATH": str(INJECTOR), "KILL_AT": moment, "KILL_FIRED": str(fired)}
    killed = lodestar(*command, cwd=remote.folder, env={**remote.variables, **injected})
    assert fired.exists(), killed.stderr
    assert killed.code == -signal.SIGKILL
    assert remote.cached == []
    root = remote.folder / ".lodestar" / "artifacts"
    assert list(root.glob(".aside-*"))
    lodestar(*command, cwd=remote.folder, env=remote.variables).succeeded()
    assert [path.name for path in remote.cached] == [run.digest]
    assert not list(root.glob(".aside-*"))


@pytest.mark.faults
def test_two_commands_that_fetch_the_same_at_once_both_succeed(
    lodestar: Lodestar, remote: RemoteProject, run: SavedRun
) -> None:
    command = ("verify", "--run-id", run.run_id)
    started = [lodestar.start(*command, cwd=remote.folder, env=remote.variables) for _ in range(2)]
    for process in started:
        ended(process).succeeded()
    assert [path.name for path in remote.cached] == [run.digest]
    assert not list((remote.folder / ".lodestar" / "artifacts").glob(".aside-*"))


def test_what_the_server_has_in_its_place_is_not_taken_for_the_artifact(
    remote: RemoteProject, run: SavedRun, mlflow_server: MlflowServer
) -> None:
    model = run.artifact_uri.partition("/models/")[2].partition("/")[0]
    (there,) = mlflow_server.artifacts.rglob(f"{model}/artifacts")
    contents = there / "lodestar" / "contents.json"
    whole = contents.read_bytes()
    contents.write_text("{}", encoding="utf-8")
    try:
        with pytest.raises(ArtifactError, match=r"contents\.json is not what was recorded"):
            store_of(remote.environment).located(run.run_id)
    finally:
        contents.write_bytes(whole)
    assert remote.cached == []


def test_a_whole_id_of_another_store_is_not_answered_from_the_cache(
    remote: RemoteProject, run: SavedRun
) -> None:
    store_of(remote.environment).located(run.run_id)
    local = load_config(remote.folder, "local", variables={})
    for reference in (run.run_id, run.digest):
        with pytest.raises(UsageError, match="is no run of this project"):
            store_of(local).located(reference)
    other = remote.folder / "config" / "other.yaml"
    other.write_text(
        f"mlflow: {{tracking_uri: 'http://127.0.0.1:1', experiment_name: {remote.experiment}}}\n",
        encoding="utf-8",
    )
    elsewhere = load_config(remote.folder, "other", variables={})
    with pytest.raises(UnreachableError):
        store_of(elsewhere).located(run.run_id)


def artifact(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "text").write_text(text, encoding="utf-8")
    return folder


def copied(cache: ArtifactCache, place: Path, text: str) -> str:
    """Put an artifact into the cache; its digest."""
    digest = write_manifest(artifact(place / text, text))

    def download(folder: Path) -> Path:
        write_manifest(artifact(folder / "copy", text))
        return folder / "copy"

    cache.fetch(digest, download)
    return digest


def test_the_most_recently_used_copies_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    cache = ArtifactCache(root, keep=2)
    old = [copied(cache, tmp_path, f"old {number}") for number in range(4)]
    assert all((root / digest).is_dir() for digest in old)  # none is a day old
    for age, digest in enumerate(reversed(old), start=2):
        then = time.time() - age * DAY
        os.utime(root / digest, (then, then))
    assert cache.find(old[0]) is not None  # counts as a use
    new = copied(cache, tmp_path, "new")
    assert {path.name for path in root.iterdir()} == {new, old[0]}


HOLD = """
import sys, time
from pathlib import Path
from lodestar.artifact.cache import ArtifactCache
with ArtifactCache(Path(sys.argv[1]), keep=1).in_use(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_copy_that_another_process_uses_is_not_removed(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    cache = ArtifactCache(root, keep=1)
    used = copied(cache, tmp_path, "used")
    old = copied(cache, tmp_path, "old")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, root, used], **pipes) as holder:  # type: ignore[call-overload]  # pipes are two of its keywords
        assert holder.stdout.readline() == b"held\n"
        for digest in (used, old):
            os.utime(root / digest, (0, 0))
        copied(cache, tmp_path, "new")
        assert (root / used).is_dir()
        assert not (root / old).exists()
        holder.kill()
    copied(cache, tmp_path, "newer")
    assert not (root / used).exists()


def test_a_download_that_is_another_artifact_is_refused(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path / "cache", keep=1)
    digest = write_manifest(artifact(tmp_path / "right", "right"))

    def download(folder: Path) -> Path:
        write_manifest(artifact(folder / "copy", "wrong"))
        return folder / "copy"

    with pytest.raises(ArtifactError, match="not the one that the run recorded"):
        cache.fetch(digest, download)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["../outside", "", "a" * 63, "A" * 64])
def test_what_is_no_digest_is_never_looked_for(tmp_path: Path, name: str) -> None:
    outside = artifact(tmp_path / "outside", "x")
    inside = artifact(tmp_path / "cache" / "x", "x")
    assert ArtifactCache(tmp_path / "cache", keep=1).find(name) is None
    assert (outside / "text").exists()
    assert (inside / "text").exists()


def test_a_folder_that_is_held_cannot_be_held_alone_and_can_be_discarded(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "folder", "x")
    with held(folder) as there, held(folder) as too, held(folder, alone=True) as alone:
        assert (there, too, alone) == (True, True, False)
    with held(folder, alone=True) as alone:
        assert alone
        discard(folder)
    with held(folder) as there:
        assert not there
    assert list(tmp_path.iterdir()) == []
