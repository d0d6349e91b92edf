"""Ray actors on several nodes: workers and nodes that go, and clusters that cannot."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Lodestar
from tests.databases import fresh_database
from tests.ray_places import ray_nodes
from tests.scoring_projects import SIZES, Scoring, copied, with_postgres
from tests.searching import between, problem_of, searched, searching, whole

from lodestar.core.tuning.problem import TrialProblem
from lodestar.core.tuning.result import SearchLimits, TuningResult
from lodestar.core.tuning.search import SearchProgress
from lodestar.errors import ExternalError, UnreachableError, UsageError
from lodestar.execution.ray_cluster import connected
from lodestar.execution.ray_parts import RayParts
from lodestar.execution.ray_trials import RayTrials
from lodestar.execution.ray_worker import PartWorker
from lodestar.interface.parts import FailedPart, PartTask, ScoredPart, ScorerSource
from lodestar.settings.execution import RayCluster
from lodestar.testing.parts import DeedSource, PartExecutorContract, deeds, tasks_of
from lodestar.testing.trials import DEADLY, TrialExecutorContract, deed_problem

Ray: TypeAlias = Any  # the module, which tests import late
Cluster: TypeAlias = Any
PartsOf: TypeAlias = Callable[[ScorerSource], RayParts]
TrialsOf: TypeAlias = Callable[[TrialProblem], "closing[RayTrials]"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ray]:
    with ray_nodes(1, 1) as found:
        yield found


@pytest.fixture(scope="module")
def ray(cluster: Cluster) -> Iterator[Ray]:
    with connected(RayCluster(address=cluster.address)) as module:
        yield module


class TestParts(PartExecutorContract):
    @pytest.fixture
    def executor_of(self, ray: Ray) -> PartsOf:
        return lambda source: RayParts(ray, source, RayCluster())

    # Two workers begin for each: what is simple of the contract runs among the faults.
    @pytest.mark.faults
    def test_nothing_to_score_is_no_error(self, executor_of: PartsOf) -> None:
        super().test_nothing_to_score_is_no_error(executor_of)

    @pytest.mark.faults
    def test_parts_are_asked_for_when_somebody_is_free(self, executor_of: PartsOf) -> None:
        super().test_parts_are_asked_for_when_somebody_is_free(executor_of)

    @pytest.mark.faults
    def test_what_cannot_be_loaded_says_why(self, executor_of: PartsOf) -> None:
        super().test_what_cannot_be_loaded_says_why(executor_of)


def trials(ray: Ray, problem: TrialProblem, workers: int) -> RayTrials:
    return RayTrials(ray, problem, RayCluster(), workers=workers)


class TestTrials(TrialExecutorContract):
    @pytest.fixture
    def trials_of(self, ray: Ray) -> TrialsOf:
        return lambda problem: closing(trials(ray, problem, 2))

    @pytest.mark.faults
    def test_a_fit_that_fails_says_why(self, trials_of: TrialsOf) -> None:
        super().test_a_fit_that_fails_says_why(trials_of)

    @pytest.mark.faults
    def test_a_fit_that_does_not_look_at_the_clock_is_ended(self, trials_of: TrialsOf) -> None:
        super().test_a_fit_that_does_not_look_at_the_clock_is_ended(trials_of)

    @pytest.mark.faults
    def test_halting_stops_what_runs(self, trials_of: TrialsOf) -> None:
        super().test_halting_stops_what_runs(trials_of)


def outcomes(
    ray: Ray,
    tasks: list[PartTask],
    source: DeedSource | None = None,
    attempts: int = 3,
    cpus_per_worker: int = 1,
    timeout: int = 60,
) -> list[ScoredPart | FailedPart]:
    chosen = RayCluster(
        workers=1, attempts=attempts, cpus_per_worker=cpus_per_worker, timeout=timeout
    )
    with RayParts(ray, source or DeedSource(), chosen) as executor:
        return list(executor.scored(iter(tasks)))


def numbers(found: list[ScoredPart | FailedPart]) -> list[int]:
    return sorted(part.number for part in found if isinstance(part, ScoredPart))


def test_what_a_killed_worker_had_to_do_is_done_by_the_next(ray: Ray, tmp_path: Path) -> None:
    tasks = deeds("", "", "killed once", *[""] * 5)
    found = outcomes(ray, tasks, DeedSource(tmp_path))
    assert numbers(found) == list(range(8))
    assert len(found) == 8
    assert (tmp_path / "killed").exists()


@pytest.mark.faults
def test_a_part_that_ends_its_workers_is_given_up_and_the_rest_is_scored(ray: Ray) -> None:
    found = outcomes(ray, deeds("", "killed", *[""] * 4), attempts=2)
    (failed,) = [part for part in found if isinstance(part, FailedPart)]
    assert (failed.task.number, failed.attempts) == (1, 2)
    assert "each worker that scores it ends" in str(failed.error)
    assert numbers(found) == [0, 2, 3, 4, 5]


def test_what_is_not_about_the_rows_is_tried_again(ray: Ray) -> None:
    found = outcomes(ray, deeds("raise", ""), attempts=3)
    (failed,) = [part for part in found if isinstance(part, FailedPart)]
    assert failed.attempts == 3
    assert str(failed.error).startswith("ValueError: no such thing (parts.py, line ")


@pytest.mark.faults
def test_a_node_that_dies_in_the_middle_loses_nothing(cluster: Cluster, ray: Ray) -> None:
    node = list(cluster.worker_nodes)[-1]
    count = 14
    with RayParts(ray, DeedSource(), RayCluster()) as executor:
        assert executor.workers == 2
        found = []
        for outcome in executor.scored(iter(deeds(*["wait 0.3"] * count))):
            found.append(outcome)
            if len(found) == 4:
                cluster.remove_node(node, allow_graceful=False)
    try:
        assert numbers(found) == list(range(count))
        assert len(found) == count
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        cluster.wait_for_nodes()


def test_too_few_processors_are_an_error_before_anything_is_scored(ray: Ray) -> None:
    with pytest.raises(ExternalError, match="the cluster has 2 processors, and a worker takes 3"):
        outcomes(ray, tasks_of(1), cpus_per_worker=3)


@pytest.mark.faults
def test_workers_that_never_come_are_an_error_in_time(ray: Ray) -> None:
    words = "no worker was ready within 2 s"
    with pytest.raises(UnreachableError, match=words):  # two processors, and never on one node
        outcomes(ray, tasks_of(1), cpus_per_worker=2, timeout=2)


class Older(PartWorker):
    """Answers what a node with another version does."""

    def identity(self) -> str:
        return "Lodestar 0.0.1 on Python 3.9.1"


def test_a_node_with_another_lodestar_is_named(ray: Ray) -> None:
    with (
        pytest.raises(ExternalError, match=r"a node of the cluster has Lodestar 0\.0\.1") as caught,
        RayParts(ray, DeedSource(), RayCluster(workers=1), worker=Older) as executor,
    ):
        list(executor.scored(iter(tasks_of(1))))
    assert caught.value.hint == "install the same version on all of them"


CONNECT = """
import sys, time
from lodestar.errors import described, LodestarError
from lodestar.execution.ray_cluster import connected
from lodestar.settings.execution import RayCluster
if sys.argv[2:]:
    import ray
    ray.__version__ = sys.argv[2]
try:
    with connected(RayCluster(address=sys.argv[1], timeout=2)):
        print("connected")
except LodestarError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.faults
def test_a_cluster_of_another_ray_is_refused_in_words(cluster: Cluster, ray: Ray) -> None:
    del ray
    words = [sys.executable, "-c", CONNECT, cluster.address, "2.0.0"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    assert said.startswith("ExternalError"), said
    assert "the cluster is of another version" in said
    assert "2.0.0" in said
    assert "install the cluster's versions of Ray and Python here" in said


def test_a_cluster_that_is_not_there_is_an_error_at_once() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with (
            pytest.raises(UnreachableError, match="no Ray cluster answers") as caught,
            connected(RayCluster(address=address)),
        ):
            pass
    assert caught.value.where == f"execution.ray.address {address}"


@pytest.mark.faults
def test_somebody_else_at_the_address_is_an_error_in_time() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        words = [sys.executable, "-c", CONNECT, f"127.0.0.1:{other.getsockname()[1]}"]
        said = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    assert said.startswith("UnreachableError"), said
    assert "the Ray cluster does not answer" in said


def test_one_connection_at_a_time(cluster: Cluster, ray: Ray) -> None:
    del ray
    with (
        pytest.raises(UsageError, match="connected to a Ray cluster already"),
        connected(RayCluster(address=cluster.address)),
    ):
        pass


def test_ray_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UsageError, match="the Python package ray is not installed") as caught,
        connected(RayCluster()),
    ):
        pass
    assert caught.value.hint == "pip install 'lodestar-ml[ray]'"


def test_without_ray_asked_for_nothing_imports_it() -> None:
    program = (
        "import sys; import lodestar.pipelines.batch_inference, lodestar.pipelines.tuning;"
        "import lodestar.execution.ray_parts; assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.faults
def test_a_batch_on_a_cluster_is_the_same_file_and_is_gone_on_with_here(
    lodestar: Lodestar,
    scoring_template: Scoring,
    cluster: Cluster,
    tmp_path: Path,
    postgres_uri: str,
) -> None:
    scoring = copied(scoring_template, tmp_path / "project")
    config = f"execution: {{engine: ray, ray: {{address: '{cluster.address}'}}}}\n{SIZES}"
    (scoring.project / "config/ray.yaml").write_text(config, encoding="utf-8")

    def on_ray(recipe: str, output: str) -> tuple[str, ...]:
        words = ("batch-inference", "--run-id", scoring.runs[recipe], "--env", "ray", "--json")
        place = str(scoring.written(output)) + "/" * output.endswith("/")
        return (*words, "--output", place)

    for recipe in ("wine", "breast_cancer"):  # read by the workers; run as SQL and handed to them
        whole = scoring.score(recipe, "whole.parquet")
        done = lodestar(*on_ray(recipe, "ray.parquet"), cwd=scoring.project).succeeded()
        assert done.json["rows"] == whole.rows
        assert done.stderr == ""
        expected = scoring.written("whole.parquet").read_bytes()
        assert scoring.written("ray.parquet").read_bytes() == expected
    right = scoring.data("wine").read_bytes()
    scoring.spoil("wine", 777)
    failed = lodestar(*on_ray("wine", "kept.parquet"), cwd=scoring.project)
    failed.refused(3, "1 of 8 parts cannot be scored", "part 1 (rows 500 to 999)", "in row 777")
    assert len(scoring.kept()) == 7
    scoring.data("wine").write_bytes(right)
    scoring.score("wine", "whole.parquet")
    scoring.score("wine", "kept.parquet", resume=True)
    same = scoring.written("kept.parquet").read_bytes()
    assert same == scoring.written("whole.parquet").read_bytes()

    # Written by the workers themselves; the command lists them.
    lodestar(*on_ray("wine", "parts/"), cwd=scoring.project).succeeded()
    parts = sorted(scoring.written("parts").glob("part-*.parquet"))
    assert len(parts) == 8
    together = pa.concat_tables([pq.read_table(path) for path in parts])
    assert together.equals(pq.read_table(scoring.written("whole.parquet")))

    with fresh_database(postgres_uri) as database:  # divided by the server, read by the workers
        with_postgres(scoring, database)
        here = (scoring.project / "config/pg.yaml").read_text(encoding="utf-8")
        there = here + config.removesuffix(SIZES)
        (scoring.project / "config/ray.yaml").write_text(there, encoding="utf-8")
        scoring.score("breast_cancer", "here.parquet", env="pg", resume=True)
        lodestar(*on_ray("breast_cancer", "ray.parquet"), cwd=scoring.project).succeeded()
    expected = scoring.written("here.parquet").read_bytes()
    assert scoring.written("ray.parquet").read_bytes() == expected


def search_on(
    ray: Ray,
    problem: TrialProblem,
    space: dict[str, Any],
    limits: SearchLimits,
    workers: int,
    listener: Callable[[SearchProgress], None] = lambda progress: None,
) -> TuningResult:
    name = problem.learner.family.rounds_name(space)
    with closing(trials(ray, problem, workers)) as executor:
        search = searching(
            executor, space, problem.metric, limits, rounds_name=name, listener=listener
        )
        return search.run()


def test_a_search_with_one_worker_is_that_of_this_machine(ray: Ray) -> None:
    space = {"n_estimators": whole(5, 40), "max_depth": whole(2, 5), "n_jobs": 1}
    # Whether a trial is watched depends on how long the last ones took, on either engine.
    limits = SearchLimits(n_trials=6, seconds=120, candidates=2, splits=2, pruning=False)
    here = searched(problem_of(), space, limits)
    there = search_on(ray, problem_of(), space, limits, workers=1)
    assert [(r.state, r.params, r.value) for r in there.history] == [
        (r.state, r.params, r.value) for r in here.history
    ]
    assert there.best_params == here.best_params
    assert there.best_score == here.best_score


@pytest.mark.faults
def test_a_search_with_dying_workers_has_its_exact_budget(ray: Ray) -> None:
    space = {"deed": "sometimes", "x": between(0.0, 1.0)}
    limits = SearchLimits(n_trials=10, seconds=120, candidates=1, splits=1)
    result = search_on(ray, deed_problem(), space, limits, workers=2)
    assert [record.number for record in result.history] == list(range(10))
    failed = [record for record in result.history if record.state == "failed"]
    assert failed
    assert all(record.params["x"] > DEADLY for record in failed)
    assert result.best_params["x"] <= DEADLY


@pytest.mark.faults
def test_a_search_whose_node_dies_loses_what_ran_there(cluster: Cluster, ray: Ray) -> None:
    node = list(cluster.worker_nodes)[-1]
    removed: list[Cluster] = []

    def listener(progress: SearchProgress) -> None:
        if progress.done >= 4 and not removed:
            removed.append(node)
            cluster.remove_node(node, allow_graceful=False)

    space = {"seconds": 0.3, "x": between(0.0, 1.0)}
    limits = SearchLimits(n_trials=12, seconds=120, candidates=1, splits=1)
    try:
        result = search_on(ray, deed_problem(), space, limits, 2, listener)
    finally:
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        cluster.wait_for_nodes()
    assert removed
    assert [record.number for record in result.history] == list(range(12))
    failed = [record for record in result.history if record.state == "failed"]
    assert len(failed) <= 1
