"""A join in a warehouse holds a few batches here, however many rows ask."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 200_000, 700_000
MEGABYTES = 80  # to hold all rows would take 200 more, all answers 140
CHUNK_ROWS = 5_000  # the driver fetches several chunks ahead: many rows take many more than those
JOIN = """\
import resource, sys
from pathlib import Path
import pyarrow as pa
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema
from lodestar.adapters.bigquery.features import BigQueryWarehouse
from lodestar.adapters.snowflake.features import SnowflakeWarehouse
from lodestar.adapters.warehouse.features import WarehouseFeatures
from lodestar.interface.features import SelectedFeatures
from lodestar.testing.known import some_view

kind, address, name, file, storage, rows, at = sys.argv[1:]
if kind == "bigquery":
    dataset = BigQueryDataset(EmulatedBigQuery(address, Path(file), storage), name, made=True)
    api = {"storage_api": True, "storage_endpoint_url": storage}
    warehouse = BigQueryWarehouse(dataset.config(job_timeout=300, request_timeout=300, **api), Path())
else:
    schema = SnowflakeSchema(EmulatedSnowflake(address, None), name)
    warehouse = SnowflakeWarehouse(schema.config(statement_timeout=300, network_timeout=60), Path())
moment = pa.timestamp("us", "UTC")
kinds = pa.schema([("user_id", pa.string()), ("asked_at", moment), ("note", pa.string())])
notes = pa.array(["n" * 400] * 20_000)
times = pa.array([int(at)] * 20_000).cast(moment)
def asking():
    for start in range(0, int(rows), 20_000):
        users = [f"u{number % 7_000}" for number in range(start, start + 20_000)]
        yield pa.record_batch([pa.array(users), times, notes], schema=kinds)
selection = [SelectedFeatures(some_view(), ("city",))]
spine = pa.RecordBatchReader.from_batches(kinds, asking())
came = known = 0
with WarehouseFeatures(warehouse).historical(spine, selection, timestamp="asked_at") as joined:
    for batch in joined:
        came += batch.num_rows
        known += batch.num_rows - batch.column("city").null_count
print(came, known, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("kind", ["bigquery", "snowflake"])
def test_memory_does_not_grow_with_the_rows(request: pytest.FixtureRequest, kind: str) -> None:
    moment = datetime(2025, 6, 1, tzinfo=UTC)
    times = pa.array([moment] * 5_000, pa.timestamp("us", "UTC"))
    facts = pa.table(
        {
            "user_id": [f"u{number}" for number in range(5_000)],
            "event_timestamp": times,
            "created_timestamp": times,
            "points": range(5_000),
            "city": ["c" * 400] * 5_000,
        }
    )
    if kind == "bigquery":
        server: EmulatedBigQuery = request.getfixturevalue("bigquery_server")
        place: BigQueryDataset | SnowflakeSchema = BigQueryDataset(server)
        words = [server.address, place.name, str(server.credentials_file), server.storage]
    else:
        account: EmulatedSnowflake = request.getfixturevalue("snowflake_server")
        account.faults(chunk_rows=CHUNK_ROWS)
        request.addfinalizer(account.faults)
        place = SnowflakeSchema(account)
        words = [account.address, place.name, "", ""]
    place.put(facts, "user_facts")
    peaks = []
    for rows in (FEW, MANY):
        at = str(int(moment.timestamp()) * 1_000_000 + 1)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", JOIN, kind, *words, str(rows), at],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        came, known, peak = map(int, done.stdout.split())
        whole, rest = divmod(rows, 7_000)
        assert (came, known) == (rows, whole * 5_000 + min(rest, 5_000))
        peaks.append(peak)
    assert peaks[1] - peaks[0] < MEGABYTES, peaks
