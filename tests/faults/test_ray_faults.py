"""A command on its own Ray, killed or interrupted, or its workers are: nothing is lost or left over."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar, ended
from tests.databases import Database, fresh_database
from tests.ray_commands import HERE, RAY, family, gone, started, until_kept
from tests.scoring_projects import SERVED, Scoring, copied, scoring_project, with_postgres

pytestmark = pytest.mark.faults

OWN = ("raylet", "gcs_server", "ray::")


@pytest.fixture(scope="module")
def template(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scoring:
    target = tmp_path_factory.mktemp("ray") / "project"
    scoring = scoring_project(lodestar, sample_project, target)
    (target / "config/ray.yaml").write_text(RAY, encoding="utf-8")
    (target / "config/here.yaml").write_text(HERE, encoding="utf-8")
    return scoring


@pytest.fixture
def scoring(template: Scoring, tmp_path: Path) -> Scoring:
    return copied(template, tmp_path / "project")


@pytest.fixture
def whole(scoring: Scoring) -> Iterator[bytes]:
    scoring.score("breast_cancer", "whole.parquet", env="here")
    yield scoring.written("whole.parquet").read_bytes()
    assert not list((scoring.project / ".lodestar/batches").glob("*/part-*"))


def test_a_killed_command_leaves_no_process_and_its_parts_are_gone_on_with(
    lodestar: Lodestar, scoring: Scoring, whole: bytes
) -> None:
    command = started(lodestar, scoring)
    until_kept(scoring, command, 3)
    processes = family(command)
    assert any(process.name().startswith(OWN) for process in processes)
    command.kill()
    ended(command)
    assert gone(processes)
    kept = scoring.kept()
    assert 3 <= len(kept) < 114
    assert not scoring.written("ray.parquet").exists()
    words = ("batch-inference", "--run-id", scoring.runs["breast_cancer"], "--env", "ray")
    place = str(scoring.written("ray.parquet"))
    done = lodestar(*words, "--resume", "--output", place, cwd=scoring.project).succeeded()
    assert f"going on with a batch of which {len(kept)} parts are there" in done.stderr
    assert scoring.written("ray.parquet").read_bytes() == whole


SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lodestar batch %'"


@pytest.fixture
def database(postgres_uri: str, scoring: Scoring) -> Iterator[Database]:
    """The rows in PostgreSQL; `ray_pg` has Ray's workers read them, `pg` this process."""
    with fresh_database(postgres_uri) as found:
        with_postgres(scoring, found)
        place = scoring.project / "config"
        here = (place / "pg.yaml").read_text(encoding="utf-8").replace(SERVED, HERE)
        (place / "pg.yaml").write_text(here, encoding="utf-8")
        (place / "ray_pg.yaml").write_text(here.replace(HERE, RAY), encoding="utf-8")
        yield found


def test_a_killed_command_leaves_no_session_and_its_parts_are_gone_on_with(
    lodestar: Lodestar, scoring: Scoring, database: Database
) -> None:
    command = started(lodestar, scoring, "ray_pg")
    until_kept(scoring, command, 3)
    assert database.run(SESSIONS)[0][0] >= 1
    processes = family(command)
    command.kill()
    ended(command)
    assert gone(processes)
    assert database.run(SESSIONS) == [(0,)]
    kept = scoring.kept()
    assert 3 <= len(kept) < 100
    # The snapshot is gone; a row that was scored has changed, and moved to another block.
    database.run("UPDATE breast_cancer SET mean_radius = 20 WHERE sample_id = 's000005'")
    scoring.score("breast_cancer", "ray.parquet", env="pg", resume=True)
    scoring.score("breast_cancer", "fresh.parquet", env="pg")
    found, fresh = (
        sorted(map(str, pq.read_table(scoring.written(name)).to_pylist()))
        for name in ("ray.parquet", "fresh.parquet")
    )
    assert found == fresh


def test_a_worker_that_is_killed_reads_its_part_again_under_the_same_snapshot(
    lodestar: Lodestar, scoring: Scoring, database: Database
) -> None:
    scoring.score("breast_cancer", "whole.parquet", env="pg", resume=True)
    command = started(lodestar, scoring, "ray_pg")
    until_kept(scoring, command, 3)
    database.run("UPDATE breast_cancer SET mean_radius = 20")
    workers = [p for p in family(command) if p.name().startswith("ray::PartWorker")]
    os.kill(workers[0].pid, signal.SIGKILL)
    said = ended(command)
    assert said.code == 0, said.stderr
    expected = scoring.written("whole.parquet").read_bytes()
    assert scoring.written("ray.parquet").read_bytes() == expected


def test_an_interrupted_command_says_what_it_keeps(
    lodestar: Lodestar, scoring: Scoring, whole: bytes
) -> None:
    command = started(lodestar, scoring)
    until_kept(scoring, command, 3)
    processes = family(command)
    command.send_signal(signal.SIGINT)
    said = ended(command)
    assert said.code == 130, said.stderr
    assert "scored parts are kept: batch-inference --resume goes on" in said.stderr
    assert gone(processes)
    scoring.score("breast_cancer", "ray.parquet", env="here", resume=True)
    # The config of `here` has the same sizes, so that it is the same batch.
    assert scoring.written("ray.parquet").read_bytes() == whole


def test_workers_that_are_killed_one_after_another_lose_nothing(
    lodestar: Lodestar, scoring: Scoring, whole: bytes
) -> None:
    command = started(lodestar, scoring)
    killed = 0
    for count in (2, 20, 40):
        until_kept(scoring, command, count)
        workers = [p for p in family(command) if p.name().startswith("ray::PartWorker")]
        for worker in workers[:1]:
            os.kill(worker.pid, signal.SIGKILL)
            killed += 1
    said = ended(command)
    assert said.code == 0, said.stderr
    assert killed == 3
    assert scoring.written("ray.parquet").read_bytes() == whole


def test_everything_listens_on_this_machine_alone(
    lodestar: Lodestar, scoring: Scoring, whole: bytes
) -> None:
    command = started(lodestar, scoring)
    until_kept(scoring, command, 1)
    addresses = set()
    for process in family(command):
        try:
            listening = process.net_connections()
        except psutil.NoSuchProcess:
            continue
        addresses |= {c.laddr.ip for c in listening if c.status == psutil.CONN_LISTEN and c.laddr}
    assert ended(command).code == 0
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert scoring.written("ray.parquet").read_bytes() == whole


def test_a_full_object_store_says_what_to_do_and_a_disk_with_room_is_used_in_its_place(
    lodestar: Lodestar, scoring: Scoring
) -> None:
    rows = pq.read_table(scoring.data("breast_cancer"))
    many = pa.concat_tables([rows] * 40)
    assert many.nbytes > 100 << 20  # more than the store, in one part
    pq.write_table(many, scoring.data("breast_cancer"))
    tight = "execution: {engine: ray, ray: {object_store_mb: 80}}\nbatch: {part_rows: 500000}\n"
    (scoring.project / "config/tight.yaml").write_text(tight, encoding="utf-8")
    words = ("batch-inference", "--run-id", scoring.runs["breast_cancer"], "--env", "tight")
    place = ("--output", str(scoring.written("tight.parquet")))
    # From here on Ray takes the disk for full.
    full = {"RAY_local_fs_capacity_threshold": "0.01"}
    done = ended(lodestar.start(*words, *place, cwd=scoring.project, env=full))
    done.refused(4, "there is no room in Ray's object store", "batch.part_rows")
    assert not scoring.written("tight.parquet").exists()
    ended(lodestar.start(*words, *place, cwd=scoring.project)).succeeded()
    assert pq.read_metadata(scoring.written("tight.parquet")).num_rows == len(many)


def test_a_training_that_searches_on_ray_finds_what_it_finds_here(
    lodestar: Lodestar, scoring: Scoring
) -> None:
    # Whether a trial is watched depends on how long the last ones took, on either engine.
    search = "hyperparameter_tuning: {enabled: true, timeout: 600, pruning: {enabled: false}}\n"
    engine = "execution: {engine: ray}\n"
    (scoring.project / "config/search.yaml").write_text(search, encoding="utf-8")
    (scoring.project / "config/search_ray.yaml").write_text(search + engine, encoding="utf-8")
    found = []
    for name in ("search", "search_ray"):
        words = ("train", "-r", "breast_cancer", "--env", name, "--json")
        command = lodestar.start(
            *words, "--set", "hyperparameter_tuning.n_trials=5", cwd=scoring.project
        )
        said = ended(command).succeeded().json
        found.append({key: value for key, value in said["tuning"].items() if key != "seconds"})
        found[-1]["metrics"] = said["metrics"]
    assert found[0] == found[1]
    assert found[0]["completed"] + found[0]["pruned"] == 5
