"""Runs are looked up for a server that must not import MLflow, by a child where it takes one."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.conftest import SMALL, Trained
from tests.infra_projects import wait_for
from tests.tracking import (
    ENV,
    MLFLOWS_WARNINGS,
    QUICK,
    RemoteProject,
    remote_project,
    saved_copy,
    store_of,
)

from lodestar.artifact.store import SavedRun
from lodestar.errors import ArtifactError, SettingsError, UnreachableError, UsageError
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.serving.references import Change, Watcher, in_use, resolve
from lodestar.settings.loading import load_config

pytestmark = MLFLOWS_WARNINGS
WITHIN = 60.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True)
class Served:
    """A project with two runs of one recipe: versions 1 and 2 of its registered model."""

    remote: RemoteProject
    run: SavedRun
    other: SavedRun

    @property
    def model(self) -> str:
        return f"{self.remote.experiment}.wine"

    def as_at_first(self) -> None:
        """The server answers, the first run is champion, nothing is cached."""
        self.remote.proxy.mend()
        client = self.remote.asked()
        client.set_registered_model_alias(self.model, "champion", "1")
        client.set_registered_model_alias(self.model, "stable", "2")
        shutil.rmtree(self.remote.folder / ".lodestar", ignore_errors=True)


@pytest.fixture(scope="module")
def served(
    sample_project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    mlflow_server: MlflowServer,
    trained: Callable[..., Trained],
) -> Iterator[Served]:
    artifact = trained("wine", *SMALL).artifact
    target = tmp_path_factory.mktemp("served") / "remote"
    with remote_project(sample_project, target, mlflow_server) as project:
        run, other = (saved_copy(project.environment, artifact, name) for name in ("one", "other"))
        store = store_of(project.environment)
        store.promote(run.run_id, "champion")
        store.promote(other.run_id, "stable")
        yield Served(project, run, other)


@pytest.fixture
def remote(served: Served) -> RemoteProject:
    served.as_at_first()
    return served.remote


@pytest.fixture
def run(served: Served) -> SavedRun:
    """The champion."""
    return served.run


@pytest.fixture
def other(served: Served) -> SavedRun:
    """Another run, which is stable."""
    return served.other


def children() -> list[psutil.Process]:
    """The look-up processes that this one has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "lodestar.serving.fetch" in process.cmdline():
                found.append(process)
    return found


# What a server does at its start: it must stay small, and what is here must take no child.
RESOLVE = """
import json, os, sys, time
from pathlib import Path
from lodestar.serving.references import resolve
from lodestar.settings.loading import load_config
environment = load_config(Path(sys.argv[1]), sys.argv[2], variables=os.environ)
imported = set(sys.modules)
class NoChild(Exception): pass
def refuse(event, args):
    if event == "subprocess.Popen": raise NoChild
if sys.argv[3] == "alone": sys.addaudithook(refuse)
begun = time.process_time()
runs = resolve(environment, sys.argv[4:])
seconds = time.process_time() - begun
heavy = {"mlflow", "pandas", "pyarrow", "numpy", "sklearn", "sqlalchemy", "requests"}
print(json.dumps([[run.run_id for run in runs], seconds, sorted(heavy & set(sys.modules))]))
"""


def resolved(remote: RemoteProject, how: str, *references: str) -> Any:  # noqa: ANN401 -- JSON
    command = [sys.executable, "-c", RESOLVE, str(remote.folder), ENV, how, *references]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_known_here_takes_no_child_and_no_time(
    remote: RemoteProject, run: SavedRun
) -> None:
    store_of(remote.environment).located(run.run_id)
    remote.proxy.refuse()
    runs, seconds, heavy = resolved(remote, "alone", run.run_id, run.digest)
    assert runs == [run.run_id, run.run_id]
    assert heavy == []
    assert seconds < 0.5  # of a processor; it takes 0.02


def test_an_alias_is_looked_up_and_fetched_by_a_child(remote: RemoteProject, run: SavedRun) -> None:
    runs, _, heavy = resolved(remote, "with a child", "champion", run.run_id[:9])
    assert runs == [run.run_id, run.run_id]
    assert heavy == []
    assert [path.name for path in remote.cached] == [run.digest]


def test_the_runs_come_in_order_with_verified_folders(
    remote: RemoteProject, run: SavedRun, other: SavedRun
) -> None:
    found = resolve(remote.environment, [other.run_id, "wine@champion"])
    assert [item.run_name for item in found] == ["other", "one"]
    assert [item.folder.name for item in found] == [other.digest, run.digest]


@pytest.mark.faults
def test_without_the_server_the_child_says_what_was_last_known(
    remote: RemoteProject, run: SavedRun
) -> None:
    resolve(remote.environment, ["champion"])
    remote.proxy.refuse()
    (known,) = resolve(remote.environment, ["champion"])
    assert known.run_id == run.run_id
    assert "does not answer" in known.notes[0]
    with pytest.raises(UnreachableError, match="does not answer"):
        resolve(remote.environment, ["stable"])  # never asked for before


def test_the_childs_errors_are_ours(remote: RemoteProject, run: SavedRun) -> None:
    with pytest.raises(UsageError, match="no alias") as usage:
        resolve(remote.environment, ["champion", "nobody"])
    assert "wine@champion" in str(usage.value.hint)
    client = remote.asked()
    client.delete_tag(run.run_id, "lodestar.artifact_digest")
    try:
        with pytest.raises(ArtifactError, match="has no complete artifact"):
            resolve(remote.environment, ["champion"])
    finally:
        client.set_tag(run.run_id, "lodestar.artifact_digest", run.digest)
    wrong = remote.folder / "config" / "wrong.yaml"
    wrong.write_text("nothing: {known: 1}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="nothing") as settings:
        resolve(replace(remote.environment, name="wrong"), ["champion"])
    assert settings.value.problems[0].where.startswith("config/wrong.yaml:1")


@pytest.mark.parametrize(
    ("line", "code", "kind"),
    [
        ("", 2, "UsageError"),
        ("[]", 2, "UsageError"),
        ('{"project": "/nowhere"}', 2, "UsageError"),
        ('{"project": "%s", "environment": "none", "references": []}', 2, "UsageError"),
        ('{"project": "%s", "environment": null, "references": ["../x"]}', 2, "UsageError"),
    ],
)
def test_a_request_that_makes_no_sense_ends_with_its_exit_code(
    sample_project: Path, line: str, code: int, kind: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lodestar.serving.fetch"],
        input=line.replace("%s", str(sample_project)) + "\n",
        env={name: value for name, value in os.environ.items() if name != "APP_ENV"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == code, done.stderr
    (said,) = done.stdout.splitlines()
    assert json.loads(said)["error"]["kind"] == kind
    assert done.stderr == ""


def test_a_local_run_is_found_by_any_prefix_without_a_child(
    sample_project: Path, trained: Callable[..., Trained]
) -> None:
    known = trained("wine", *SMALL)
    local = load_config(sample_project, "local", variables={})
    (found,) = resolve(local, [known.run_id[:10]])
    assert found.run_id == known.run_id
    assert children() == []


def test_what_is_in_use_is_held(remote: RemoteProject, run: SavedRun) -> None:
    from lodestar.artifact.folders import held

    (found,) = resolve(remote.environment, [run.run_id])
    with in_use(remote.environment, [found]), held(found.folder, alone=True) as alone:
        assert not alone
    with held(found.folder, alone=True) as alone:
        assert alone


async def following(changes: AsyncIterator[Change]) -> Change:
    return await asyncio.wait_for(anext(changes), WITHIN)


@pytest.mark.faults
def test_a_watcher_follows_an_alias(remote: RemoteProject, run: SavedRun, other: SavedRun) -> None:
    async def follow() -> None:
        changes = Watcher(remote.environment, ["champion"], seconds=0.2).changes()
        first = await following(changes)
        assert first.runs is not None
        assert [item.run_id for item in first.runs] == [run.run_id]
        store = store_of(remote.environment)
        await asyncio.to_thread(store.promote, other.run_id, "champion")
        second = await following(changes)
        assert second.runs is not None
        assert [item.folder.name for item in second.runs] == [other.digest]
        await asyncio.to_thread(store.rollback, "champion", None)
        third = await following(changes)
        assert third.runs == first.runs
        await changes.aclose()

    asyncio.run(follow())
    assert children() == []


@pytest.mark.faults
def test_a_watcher_survives_a_server_that_goes_and_comes_back(
    remote: RemoteProject, run: SavedRun, other: SavedRun
) -> None:
    async def follow() -> None:
        changes = Watcher(remote.environment, ["champion"], seconds=0.2).changes()
        assert (await following(changes)).runs is not None
        remote.proxy.refuse()
        assert (await following(changes)).unreachable is True
        client = remote.asked()
        client.set_registered_model_alias(f"{remote.experiment}.wine", "champion", "2")
        remote.proxy.mend()
        seen = [await following(changes), await following(changes)]
        assert {change.unreachable for change in seen} == {None, False}
        (moved,) = [change.runs for change in seen if change.runs is not None]
        assert [item.run_id for item in moved] == [other.run_id]
        await changes.aclose()

    asyncio.run(follow())


def test_a_watcher_begins_with_what_was_last_known(remote: RemoteProject, run: SavedRun) -> None:
    resolve(remote.environment, ["champion"])
    remote.proxy.refuse()

    async def follow() -> None:
        changes = Watcher(remote.environment, ["champion"], seconds=0.2).changes()
        first, second = await following(changes), await following(changes)
        assert first.runs is not None
        assert first.runs[0].run_id == run.run_id
        assert first.runs[0].notes
        assert second.unreachable is True
        remote.proxy.mend()
        assert (await following(changes)).unreachable is False
        await changes.aclose()

    asyncio.run(follow())


@pytest.mark.faults
def test_a_watcher_tells_of_an_alias_that_is_gone_once_and_goes_on(
    remote: RemoteProject, run: SavedRun
) -> None:
    model = f"{remote.experiment}.wine"

    async def follow() -> None:
        changes = Watcher(remote.environment, ["champion"], seconds=0.2).changes()
        first = await following(changes)
        client = remote.asked()
        client.delete_registered_model_alias(model, "champion")
        gone = await following(changes)
        assert isinstance(gone.error, UsageError)
        await asyncio.sleep(1)
        client.set_registered_model_alias(model, "champion", "1")
        pending = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(1)
        assert not pending.done()  # the same run as before: nothing to tell
        pending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pending
        assert first.runs is not None

    asyncio.run(follow())


@pytest.mark.faults
def test_a_killed_child_is_replaced(remote: RemoteProject, run: SavedRun, other: SavedRun) -> None:
    async def follow() -> None:
        changes = Watcher(remote.environment, ["champion"], seconds=0.2).changes()
        await following(changes)
        (child,) = children()
        child.kill()
        store = store_of(remote.environment)
        await asyncio.to_thread(store.promote, other.run_id, "champion")
        moved = await following(changes)
        assert moved.runs is not None
        assert moved.runs[0].run_id == other.run_id
        await changes.aclose()

    asyncio.run(follow())


def test_a_watching_child_ends_with_whoever_asked(remote: RemoteProject, run: SavedRun) -> None:
    code = (
        "import asyncio, sys; from pathlib import Path\n"
        "from lodestar.serving.references import Watcher\n"
        "from lodestar.settings.loading import load_config\n"
        "async def follow():\n"
        "    environment = load_config(Path(sys.argv[1]), sys.argv[2], variables={})\n"
        "    async for change in Watcher(environment, ['champion'], seconds=30).changes():\n"
        "        print(change.runs[0].run_id, flush=True)\n"
        "asyncio.run(follow())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, remote.folder, ENV], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().decode().strip() == run.run_id
        (child,) = psutil.Process(parent.pid).children()
        assert child.memory_info().rss < 100e6  # it has not imported MLflow
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
