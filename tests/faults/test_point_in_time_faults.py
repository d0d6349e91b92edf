"""The point-in-time join with no room for its temporary file, killed, and on a long spine."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.contract.test_data_ports import put
from tests.small_disks import small_disk

from lodestar.testing.known import some_versions

pytestmark = pytest.mark.faults

ROWS = 300_000  # some 9 MB in the temporary file
# Joins ROWS rows in a process of its own: folder, scratch folder, rows, and what to do at the half.
JOIN = """
import resource, sys, time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from lodestar.adapters.files.features import FileFeatureTables
from lodestar.adapters.joins.point_in_time import PointInTimeJoin
from lodestar.errors import LodestarError
from lodestar.interface.features import SelectedFeatures
from lodestar.testing.known import asking, some_view

folder, scratch, rows, halt = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
users = pa.array([f"u{number}" for number in range(1_000)])
noon = int(datetime(2025, 6, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000

def batches():
    for first in range(0, rows, 10_000):
        row = np.arange(first, first + 10_000)
        at = pa.array(noon + row).cast(pa.timestamp("us", "UTC"))
        yield pa.record_batch([users.take(pa.array(row % 1_000)), at], names=["user_id", "asked_at"])

spine = pa.RecordBatchReader.from_batches(asking().schema, batches())
join = PointInTimeJoin(FileFeatureTables(folder), scratch)
try:
    selection = [SelectedFeatures(some_view(), ("points",))]
    with join.historical(spine, selection, timestamp="asked_at") as joined:
        seen = joined.read_next_batch().num_rows
        if halt == "halt":
            print("half way", flush=True)
            time.sleep(60)
        seen += sum(batch.num_rows for batch in joined)
    print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
except LodestarError as error:
    print(f"{type(error).__name__}: {error}")
    raise SystemExit(error.exit_code)
"""
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    stored = some_versions([(f"u{number}", NOON, NOON, number) for number in range(1_000)])
    put(stored.table, tmp_path / "tables" / "user_facts.parquet")
    return tmp_path / "tables"


def command(tables: Path, scratch: Path, rows: int = ROWS, halt: str = "") -> list[str]:
    return [sys.executable, "-c", JOIN, str(tables), str(scratch), str(rows), halt]


def join(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", megabytes=2) as place:
        yield place


def test_a_full_disk_is_our_error_and_leaves_nothing(tables: Path, tiny_disk: Path) -> None:
    done = join(*command(tables, tiny_disk))
    assert done.returncode == 4, done.stderr
    assert f"ExternalError: no space left in {tiny_disk}" in done.stdout
    assert "Traceback" not in done.stderr
    assert not list(tiny_disk.iterdir())
    # The injector fired: fewer rows fit.
    assert join(*command(tables, tiny_disk, rows=20_000)).returncode == 0


def test_a_quota_is_our_error_and_leaves_nothing(tables: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    done = join("prlimit", "--fsize=2000000", *command(tables, scratch))
    assert done.returncode == 4, done.stderr
    assert f"ExternalError: no space left in {scratch}" in done.stdout
    assert not list(scratch.iterdir())
    assert join("prlimit", "--fsize=2000000", *command(tables, scratch, 20_000)).returncode == 0


def test_a_join_that_is_killed_leaves_nothing(tables: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    with subprocess.Popen(
        command(tables, scratch, halt="halt"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL
    assert not list(scratch.iterdir())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_spine(tables: Path, tmp_path: Path) -> None:
    peaks = []
    for rows in (500_000, 4_000_000):
        done = join(*command(tables, tmp_path / "scratch", rows))
        assert done.returncode == 0, done.stderr
        seen, peak = map(int, done.stdout.split())
        assert seen == rows
        peaks.append(peak)
    # The rows alone are 100 MB more.
    assert peaks[1] < peaks[0] + 40, peaks
