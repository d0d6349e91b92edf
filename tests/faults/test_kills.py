"""kill -9 in `batch-inference` and `train`: at exact moments by an audit hook, and at random ones."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Lodestar, Trained, copy_of, ended, outbox

from lodestar.artifact.wrapper import load_wrapper
from lodestar.errors import ArtifactError

INJECTOR = Path(__file__).parent / "injector"
ROWS = 178 * 400


@pytest.fixture(scope="module")
def scoring(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> "tuple[Trained, Trained]":
    """Two runs of one project, and a table of 71,200 rows that both of them score."""
    project = lodestar.stocked(
        copy_of(sample_project, tmp_path_factory.mktemp("kills") / "project")
    )
    small = ("--set", "model.hyperparameters.n_estimators=3")
    train = ("train", "-r", "wine", "--json")
    old = Trained(project, lodestar(*train, *SMALL, cwd=project).succeeded().json)
    new = Trained(project, lodestar(*train, *small, cwd=project).succeeded().json)
    wines = pq.read_table(project / "data/wine.parquet")
    many = pa.concat_tables([wines] * (ROWS // len(wines)))
    keys = pa.array([f"w{number:06d}" for number in range(ROWS)])
    pq.write_table(many.set_column(0, "sample_id", keys), project / "data/wine.parquet")
    (project / "config/small.yaml").write_text("batch: {chunk_rows: 512}\n", encoding="utf-8")
    return old, new


def every_row_once(path: Path, *runs: Trained) -> str:
    """The one run that wrote the whole file."""
    table = pq.read_table(path)
    assert table.column("sample_id").to_pylist() == [f"w{number:06d}" for number in range(ROWS)]
    (writer,) = set(table.column("run_id").to_pylist())
    assert writer in {run.run_id for run in runs}
    return str(writer)


def orphans(output: Path) -> list[Path]:
    return list(output.parent.glob(f".{output.name}.*.tmp"))


def batch_of(run: Trained, output: Path) -> tuple[str, ...]:
    return ("batch-inference", "--run-id", run.run_id, "--output", str(output), "--env", "small")


@pytest.mark.parametrize(
    ("moment", "published"),
    [
        ("os.rename|.tmp|1", False),  # everything is written, nothing is published
        # The temporary file is about to be synced.
        pytest.param("open|scores.parquet.|1", False, marks=pytest.mark.faults),
        # Never: proves that an injector that does not fire is seen.
        pytest.param("os.listdir|none|1", None, marks=pytest.mark.faults),
    ],
)
def test_a_batch_killed_at_the_worst_moment_leaves_the_old_output(
    lodestar: Lodestar,
    scoring: "tuple[Trained, Trained]",
    tmp_path: Path,
    moment: str,
    published: bool | None,
) -> None:
    old, new = scoring
    output = outbox(old.project, tmp_path) / "scores.parquet"
    fired = tmp_path / "fired"
    lodestar(*batch_of(old, output), cwd=old.project).succeeded()
    killed = lodestar(*batch_of(new, output), cwd=new.project, env=injected(moment, fired))
    if published is None:
        assert not fired.exists()
        assert every_row_once(output, new) == new.run_id
        return
    assert fired.exists()
    assert killed.code == -signal.SIGKILL
    assert every_row_once(output, old) == old.run_id
    assert orphans(output)
    lodestar(*batch_of(new, output), cwd=new.project).succeeded()
    assert every_row_once(output, new) == new.run_id
    assert list(output.parent.iterdir()) == [output]


def injected(moment: str, fired: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(INJECTOR), "KILL_AT": moment, "KILL_FIRED": str(fired)}


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, 10))]
)
def test_a_batch_killed_while_it_writes_leaves_the_old_output_or_the_new(
    lodestar: Lodestar, scoring: "tuple[Trained, Trained]", tmp_path: Path, seed: int
) -> None:
    old, new = scoring
    output = outbox(old.project, tmp_path) / "scores.parquet"
    lodestar(*batch_of(old, output), cwd=old.project).succeeded()
    process = lodestar.start(*batch_of(new, output), cwd=new.project)
    deadline = time.monotonic() + 60
    while not (writing := orphans(output)) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert writing  # the moment drawn counts from here
    time.sleep(random.Random(seed).uniform(0, 0.3))  # noqa: S311 -- a moment, no secret
    process.kill()
    done = ended(process)
    assert done.code in {-signal.SIGKILL, 0}, done.stderr
    left = orphans(output)
    writer = every_row_once(output, old, new)
    if done.code == -signal.SIGKILL and left:
        assert writer == old.run_id
    lodestar(*batch_of(new, output), cwd=new.project).succeeded()
    assert every_row_once(output, new) == new.run_id
    assert orphans(output) == []


def test_the_temporary_file_of_a_living_writer_is_left_alone(
    lodestar: Lodestar, scoring: "tuple[Trained, Trained]", tmp_path: Path
) -> None:
    _, new = scoring
    output = outbox(new.project, tmp_path) / "scores.parquet"
    living = output.parent / f".scores.parquet.{os.getpid()}-00000000.tmp"
    dead = output.parent / ".scores.parquet.4194305-00000000.tmp"  # above the largest process id
    living.touch()
    dead.touch()
    lodestar(*batch_of(new, output), cwd=new.project).succeeded()
    assert living.exists()
    assert not dead.exists()


@pytest.fixture(scope="module")
def training(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A project to kill trainings in."""
    return lodestar.stocked(
        copy_of(sample_project, tmp_path_factory.mktemp("training") / "project")
    )


@contextlib.contextmanager
def unchanged_sources(project: Path) -> Iterator[None]:
    before = sorted((project / "recipes").rglob("*"))
    yield
    assert sorted((project / "recipes").rglob("*")) == before


def nothing_half_done(lodestar: Lodestar, project: Path) -> None:
    """No run is RUNNING, and every model directory is whole and loads, or is refused."""
    runs = lodestar("runs", "list", "--json", cwd=project).succeeded().json["runs"]
    assert {run["status"] for run in runs} <= {"FINISHED", "KILLED"}
    for folder in project.glob("mlruns/artifacts/models/*/artifacts"):
        try:
            load_wrapper(folder)
        except ArtifactError:
            continue
        assert (folder / "manifest.json").is_file()
    for run in runs:
        if run["status"] == "KILLED" and run["digest"] is None:
            done = lodestar("verify", "--run-id", run["run_id"], cwd=project)
            done.refused(6, "KILLED", "no complete artifact")


TRAIN = ("train", "-r", "wine", *SMALL)


@pytest.mark.parametrize(
    "moment",
    [
        "shutil.copyfile|/mlruns/artifacts/models/|1",
        pytest.param("shutil.copyfile|/mlruns/artifacts/models/|2", marks=pytest.mark.faults),
        pytest.param("shutil.copyfile|/mlruns/artifacts/models/|30", marks=pytest.mark.faults),
        pytest.param("shutil.copyfile|/mlruns/artifacts/models/|50", marks=pytest.mark.faults),
        pytest.param("open|report.html|1", marks=pytest.mark.faults),
        pytest.param("open|probe_rows.arrow|1", marks=pytest.mark.faults),
    ],
)
def test_a_training_killed_while_its_artifact_is_logged_leaves_none_that_loads(
    lodestar: Lodestar, training: Path, tmp_path: Path, moment: str
) -> None:
    before = set(training.glob("mlruns/artifacts/models/*"))
    fired = tmp_path / "fired"
    with unchanged_sources(training):
        killed = lodestar(*TRAIN, cwd=training, env=injected(moment, fired))
    assert fired.exists(), killed.stderr
    assert killed.code == -signal.SIGKILL
    for folder in set(training.glob("mlruns/artifacts/models/*")) - before:
        files = [path for path in folder.rglob("*") if path.is_file()]
        if "report" in moment:
            continue
        with pytest.raises(ArtifactError):
            load_wrapper(folder / "artifacts")
        assert len(files) < 55
    nothing_half_done(lodestar, training)
    trained = lodestar(*TRAIN, "--json", cwd=training).succeeded()
    lodestar("verify", "--run-id", trained.json["run_id"], cwd=training).succeeded()


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(10))
def test_a_training_killed_at_any_moment_leaves_nothing_half_done(
    lodestar: Lodestar, training: Path, seed: int
) -> None:
    process = lodestar.start(*TRAIN, cwd=training)
    time.sleep(random.Random(seed).uniform(0.3, 4.0))  # noqa: S311 -- a moment, no secret
    process.kill()
    done = ended(process)
    assert done.code in {-signal.SIGKILL, 0}, done.stderr
    nothing_half_done(lodestar, training)
    lodestar(*TRAIN, cwd=training).succeeded()


@pytest.mark.parametrize("size", [100_000, pytest.param(1, marks=pytest.mark.faults)])
def test_a_training_killed_while_it_makes_the_database_does_not_block_the_next(
    lodestar: Lodestar, new_project: Path, size: int
) -> None:
    process = lodestar.start(*TRAIN, cwd=new_project)
    deadline = time.monotonic() + 60
    while _largest(new_project) < size and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    assert ended(process).code == -signal.SIGKILL
    assert size <= _largest(new_project) < 900_000  # the injector fired in the middle
    lodestar(*TRAIN, cwd=new_project).succeeded()
    databases = [path.name for path in (new_project / "mlruns").glob("*mlflow.db*")]
    assert databases == ["mlflow.db"]


def _largest(project: Path) -> int:
    """How far the database has grown, under whatever name."""
    sizes = [0]
    for path in project.glob("mlruns/*mlflow.db*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)
