"""The sample project's spine, untouched, on warehouses."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema


@pytest.fixture(params=["bigquery", "snowflake"])
def place(request: pytest.FixtureRequest) -> Iterator[BigQueryDataset | SnowflakeSchema]:
    server: EmulatedBigQuery | EmulatedSnowflake
    server = request.getfixturevalue(f"{request.param}_server")
    server.faults()
    yield (
        BigQueryDataset(server) if isinstance(server, EmulatedBigQuery) else SnowflakeSchema(server)
    )
    server.faults()


def test_it_runs_with_its_window_of_times_as_it_stands(
    place: BigQueryDataset | SnowflakeSchema, sample_project: Path
) -> None:
    sessions = pq.read_table(sample_project / "data" / "sessions.parquet").slice(0, 500)
    place.put(sessions, "sessions")
    sql = (sample_project / "recipes" / "sql" / "loaders" / "user_session_spine.sql").read_text()
    times = sessions.column("event_timestamp")
    start, end = times[100].as_py(), times[400].as_py()
    window = {"start_date": f"{start:%F %T.%f}", "end_date": f"{end:%F %T.%f}"}
    wanted = sessions.filter(pc.and_(pc.greater_equal(times, start), pc.less(times, end)))
    read = place.reader(sql, window).read(chunk_rows=100).read_all()
    assert read.num_rows == 300
    for name in ("session_id", "event_timestamp"):
        assert read.column(name).to_pylist() == wanted.column(name).to_pylist()
