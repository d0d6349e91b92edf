"""A writer to an object store that is killed: readers see the old object or the whole new one."""

import json
import random
import signal
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from tests.integration.test_object_stores import box, put, reader
from tests.object_stores import AzureBox, Box, GcsBox, S3Box

from lodestar.errors import DataError

pytestmark = pytest.mark.faults
__all__ = ["box"]

DEADLINE = 120
ROWS, BATCHES = 400_000, 12  # 3.2 MB each as arrow: a part of 8 MB at every third
WRITER = """
import json, sys
from pathlib import Path
import pyarrow as pa
from lodestar.adapters.registry import WRITERS, adapter
from lodestar.settings.config import Data

sections, uri, rows, batches = json.loads(sys.stdin.readline())
place = {"adapter": "duckdb", "root": "data", "snapshots": "data/snapshots"}
data = Data.model_validate({**place, **sections}, strict=False)
writer = adapter(WRITERS, uri.partition("://")[0], what="x")(data, Path())
batch = pa.record_batch({"a": pa.array([7] * rows)})
with writer.sink(uri, batch.schema) as sink:
    for number in range(batches):
        sink.write(batch)
        print(number, flush=True)
    print("closing", flush=True)
print("done", flush=True)
"""


def start(target: Box) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    asked = [target.sections(), target.uri("t.arrow"), ROWS, BATCHES]
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    return process


def await_line(process: "subprocess.Popen[str]", wanted: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == wanted:
            return
    raise AssertionError(f"the writer ended before {wanted}")


def kill(process: "subprocess.Popen[str]", number: int) -> None:
    process.send_signal(number)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == -number


@pytest.mark.parametrize("kind", [S3Box, GcsBox, AzureBox])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["0", "4", "11"])
def test_a_writer_that_is_killed_leaves_the_old_object(box: Box, number: int, moment: str) -> None:
    put(box.data(), box.uri("t.arrow"))
    old = box.get("t.arrow")
    process = start(box)
    await_line(process, moment)
    kill(process, number)
    assert box.get("t.arrow") == old
    assert box.names() == ["t.arrow"]
    if box.scheme == "s3":  # what a lifecycle rule is for; the other stores forget by themselves
        assert box.unfinished() == ["t.arrow"]
    # What was left is in nobody's way.
    put(box.data(), box.uri("t.arrow"), pa.table({"a": [1, 2, 3]}))
    found = reader(box.data(), box.uri("t.arrow")).read(chunk_rows=10).read_all()
    assert found.column("a").to_pylist() == [1, 2, 3]


def whole(target: Box) -> int:
    """The rows of one version; the last request may still be under way when its sender is dead."""
    try:
        stream = reader(target.data(), target.uri("t.arrow")).read(chunk_rows=100_000)
        return int(stream.read_all().num_rows)
    except DataError as error:
        assert "was replaced while it was being read" in str(error)  # noqa: PT017 -- or it is a failure
        return whole(target)


@pytest.mark.parametrize("kind", [S3Box, GcsBox, AzureBox])
def test_a_writer_that_is_killed_while_it_publishes_leaves_one_of_the_two(box: Box) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")  # noqa: T201 -- to repeat a failure
    rng = random.Random(seed)  # noqa: S311 -- moments, no secrets
    seen = set()
    for _ in range(6):
        put(box.data(), box.uri("t.arrow"))
        process = start(box)
        await_line(process, "closing")
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.communicate(timeout=DEADLINE)
        rows = whole(box)
        assert rows in {1_000, ROWS * BATCHES}
        seen.add(rows)
    print(f"seen {seen}")  # noqa: T201 -- which of the two
