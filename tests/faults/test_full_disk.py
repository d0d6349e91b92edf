"""No space, no permission, two writers: the old file intact, nothing left over, nothing mixed."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Lodestar, Trained, copy_of, digests, ended, outbox
from tests.small_disks import small_disk

ROWS = 178 * 400
LIMIT = 400_000  # bytes: less than the predictions, more than what reading the runs writes


@pytest.fixture(scope="module")
def scoring(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A run, and a table to score whose predictions take some megabytes."""
    project = lodestar.stocked(copy_of(sample_project, tmp_path_factory.mktemp("full") / "project"))
    done = lodestar("train", "-r", "wine", *SMALL, "--json", cwd=project).succeeded()
    wines = pq.read_table(project / "data/wine.parquet")
    many = pa.concat_tables([wines] * (ROWS // len(wines)))
    keys = pa.array([f"w{number * 7919 % ROWS:09d}" for number in range(ROWS)])
    pq.write_table(many.set_column(0, "sample_id", keys), project / "data/wine.parquet")
    (project / "config/small.yaml").write_text("batch: {chunk_rows: 4096}\n", encoding="utf-8")
    return Trained(project, done.json)


def batch_to(run: Trained, output: Path) -> tuple[str, ...]:
    return ("batch-inference", "--run-id", run.run_id, "--env", "small", "--output", str(output))


@pytest.mark.parametrize(
    "suffix",
    ["parquet", *(pytest.param(other, marks=pytest.mark.faults) for other in ("csv", "arrow"))],
)
def test_a_batch_that_outgrows_its_quota_keeps_the_old_output(
    lodestar: Lodestar, scoring: Trained, tmp_path: Path, suffix: str
) -> None:
    output = outbox(scoring.project, tmp_path) / f"scores.{suffix}"
    output.write_bytes(b"what stood there before")
    done = lodestar(
        *batch_to(scoring, output), cwd=scoring.project, under=("prlimit", f"--fsize={LIMIT}")
    )
    done.refused(4, "no space left", output.name)
    assert digests(output.parent).keys() == {output.name}
    assert output.read_bytes() == b"what stood there before"


@pytest.fixture
def tiny_disk(scoring: Trained, tmp_path: Path) -> Iterator[Path]:
    """Below the project."""
    with small_disk(outbox(scoring.project, tmp_path) / "disk", megabytes=1) as place:
        yield place


def test_a_batch_on_a_full_disk_keeps_the_old_output(
    lodestar: Lodestar, scoring: Trained, tiny_disk: Path
) -> None:
    output = tiny_disk / "scores.parquet"
    output.write_bytes(b"what stood there before")
    (tiny_disk / "ballast").write_bytes(bytes(900_000))
    lodestar(*batch_to(scoring, output), cwd=scoring.project).refused(4, "no space left")
    assert digests(tiny_disk).keys() == {"scores.parquet", "ballast"}
    assert output.read_bytes() == b"what stood there before"
    # The injector fired: the same command succeeds when there is room elsewhere.
    (tiny_disk / "ballast").unlink()
    assert shutil.disk_usage(tiny_disk).free > 900_000


def test_a_training_whose_temporary_directory_is_full_saves_nothing(
    lodestar: Lodestar, project: Path, tiny_disk: Path
) -> None:
    (tiny_disk / "ballast").write_bytes(bytes(1_040_000))
    done = lodestar("train", "-r", "wine", *SMALL, cwd=project, env={"TMPDIR": str(tiny_disk)})
    done.refused(4, "o space left")
    assert digests(tiny_disk).keys() == {"ballast"}
    runs = lodestar("runs", "list", "--json", cwd=project).succeeded().json["runs"]
    assert {run["status"] for run in runs} <= {"FAILED"}


@pytest.mark.parametrize("limit", [200_000, pytest.param(5_000, marks=pytest.mark.faults)])
def test_a_training_without_room_for_its_database_or_artifact_says_so(
    lodestar: Lodestar, new_project: Path, limit: int
) -> None:
    train = ("train", "-r", "wine", *SMALL)
    done = lodestar(*train, cwd=new_project, under=("prlimit", f"--fsize={limit}"))
    done.refused(4)
    # And nothing of it stands in the way of the next one.
    lodestar(*train, cwd=new_project).succeeded()


@pytest.mark.faults
def test_a_training_without_room_for_its_artifact_ends_as_failed(
    lodestar: Lodestar, new_project: Path
) -> None:
    lodestar("runs", "list", cwd=new_project).succeeded()  # makes the database
    large = ("--set", "model.hyperparameters.n_estimators=400")
    size = (new_project / "mlruns/mlflow.db").stat().st_size
    limit = size + 200_000
    done = lodestar(
        *("train", "-r", "wine", *large), cwd=new_project, under=("prlimit", f"--fsize={limit}")
    )
    done.refused(4, "cannot be stored")
    runs = lodestar("runs", "list", "--json", cwd=new_project).succeeded().json["runs"]
    assert {run["status"] for run in runs} <= {"FAILED"}


def test_an_output_directory_that_cannot_be_made_or_written_is_named(
    lodestar: Lodestar, scoring: Trained, tmp_path: Path
) -> None:
    blocker = outbox(scoring.project, tmp_path) / "file"
    blocker.write_text("no directory", encoding="utf-8")
    done = lodestar(*batch_to(scoring, blocker / "scores.parquet"), cwd=scoring.project)
    done.refused(4, str(blocker))
    # Not even root can make a directory there.
    (scoring.project / "config/proc.yaml").write_text("output: {root: /proc}\n", encoding="utf-8")
    done = lodestar(
        *("batch-inference", "--run-id", scoring.run_id, "--env", "proc"), cwd=scoring.project
    )
    done.refused(4, "/proc/")
    assert digests(blocker.parent).keys() == {"file"}


def test_two_writers_to_one_output_leave_one_whole_file(
    lodestar: Lodestar, scoring: Trained, tmp_path: Path
) -> None:
    output = outbox(scoring.project, tmp_path) / "scores.parquet"
    other = lodestar(
        *("train", "-r", "wine", *SMALL, "--set", "loader.source_uri=data/old.parquet", "--json"),
        cwd=_with_old_data(scoring.project),
    ).succeeded()
    runs = (scoring, Trained(scoring.project, other.json))
    processes = [lodestar.start(*batch_to(run, output), cwd=run.project) for run in runs]
    done = [ended(process) for process in processes]
    assert [item.code for item in done] == [0, 0], [item.stderr for item in done]
    table = pq.read_table(output)
    assert list(output.parent.iterdir()) == [output]
    (writer,) = set(table.column("run_id").to_pylist())
    assert len(table) == {scoring.run_id: ROWS, runs[1].run_id: 178}[writer]
    assert len(set(table.column("sample_id").to_pylist())) == len(table)


def _with_old_data(project: Path) -> Path:
    wines = pq.read_table(project / "data/wine.parquet").slice(0, 178)
    pq.write_table(wines, project / "data/old.parquet")
    return project


@pytest.mark.faults
def test_two_first_trainings_at_once_both_succeed(lodestar: Lodestar, new_project: Path) -> None:
    train = ("train", "-r", "wine", *SMALL, "--json")
    processes = [lodestar.start(*train, cwd=new_project) for _ in range(2)]
    done = [ended(process).succeeded() for process in processes]
    runs = lodestar("runs", "list", "--json", cwd=new_project).succeeded().json["runs"]
    assert {run["run_id"] for run in runs} == {item.json["run_id"] for item in done}
    assert {run["status"] for run in runs} == {"FINISHED"}


def test_the_quota_of_these_tests_is_a_real_one() -> None:
    done = subprocess.run(
        ("prlimit", f"--fsize={LIMIT}", "bash", "-c", "ulimit -f"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) * 1024 <= LIMIT
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
