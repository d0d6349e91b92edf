"""Networks to the warehouses that freeze or break at any byte; writers killed while they publish."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from tests.faults.injector.proxy import Proxy
from tests.warehouses import BigQueryDataset, EmulatedBigQuery, EmulatedSnowflake, SnowflakeSchema

from lodestar.adapters.bigquery.writer import BigQueryWriter
from lodestar.adapters.snowflake.writer import SnowflakeWriter
from lodestar.errors import ExternalError
from lodestar.interface.data import FrameWriter, SpineReader

pytestmark = pytest.mark.faults

WITHIN = 30.0  # seconds, with timeouts of two
ROWS = 100_000
JANUARY = {"batch_key": "january"}
WRITER = """
import pickle, sys
import pyarrow as pa
make, config, uri, value = pickle.load(sys.stdin.buffer)
from pathlib import Path
rows = pa.table({"batch_key": ["january"], "score": [value]})
with make(config, Path()).sink(uri, rows.schema, replace={"batch_key": "january"}) as sink:
    sink.write(rows.to_batches()[0])
"""


@dataclass
class Place:
    """A warehouse behind a proxy."""

    proxy: Proxy
    reader: Callable[[], SpineReader]
    writer: type[FrameWriter]
    config: Any
    uri: str
    faults: Callable[..., None]
    hold: dict[str, object]
    reached: Callable[[], bool]
    run: Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(params=["snowflake", "bigquery"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    table = pa.table({"row": range(ROWS)})
    if request.param == "snowflake":
        server: EmulatedSnowflake = request.getfixturevalue("snowflake_server")
        server.faults()
        schema = SnowflakeSchema(server)
        schema.put(table, "many")
        with Proxy("127.0.0.1", server.port) as proxy:
            slow: dict[str, Any] = {
                "statement_timeout": 5,
                "login_timeout": 5,
                "network_timeout": 2,
                "attempts": 2,
            }
            address = f"http://127.0.0.1:{proxy.port}"
            yield Place(
                proxy,
                lambda: schema.reader("SELECT * FROM many", endpoint_url=address, **slow),
                SnowflakeWriter,
                schema.config(),
                f"snowflake://shop.{schema.name}.scores",
                server.faults,
                {"hold": "INSERT INTO"},
                lambda: any(sql.startswith("INSERT INTO") for sql in server.statements()),
                schema.run,
            )
        server.faults()
        return
    emulator: EmulatedBigQuery = request.getfixturevalue("bigquery_server")
    emulator.faults()
    dataset = BigQueryDataset(emulator)
    dataset.put(table, "many")
    with Proxy("127.0.0.1", int(emulator.address.rpartition(":")[2])) as proxy:
        slow = {"request_timeout": 2, "retry_timeout": 3, "job_timeout": 3}
        address = f"http://127.0.0.1:{proxy.port}"
        yield Place(
            proxy,
            lambda: dataset.reader("SELECT * FROM many", endpoint_url=address, **slow),
            BigQueryWriter,
            dataset.config(),
            f"bq://{emulator.project}.{dataset.name}.scores",
            emulator.faults,
            {"hold_upload": True},
            lambda: any("upload" in one for one in emulator.said()),
            dataset.run,
        )
    emulator.faults()


def test_a_network_that_freezes_is_not_waited_for_for_ever(place: Place) -> None:
    reader = place.reader()
    began = time.monotonic()
    with reader.read(chunk_rows=1_000) as batches:
        batches.read_next_batch()
        place.proxy.frozen = True
        with pytest.raises(ExternalError):
            batches.read_all()
        with pytest.raises(ExternalError):
            reader.schema()
    place.proxy.frozen = False
    assert time.monotonic() - began < WITHIN
    assert place.reader().read(chunk_rows=1_000).read_all().num_rows == ROWS


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_result_cut_at_any_byte_is_whole_or_an_error(place: Place, share: float) -> None:
    place.reader().read(chunk_rows=1_000).read_all()
    place.proxy.cut_after = int(place.proxy.most * share)
    try:
        rows = place.reader().read(chunk_rows=1_000).read_all().num_rows
    except ExternalError:
        rows = ROWS
    assert rows == ROWS
    assert place.proxy.cuts


def test_a_writer_that_is_killed_while_it_publishes_leaves_what_was_there(place: Place) -> None:
    _write(place, 1.0).communicate(_sent(place, 1.0), timeout=60)
    place.faults(**place.hold)
    writer = _write(place, 2.0)
    assert writer.stdin is not None
    writer.stdin.write(_sent(place, 2.0))
    writer.stdin.close()
    _until(place.reached, writer)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    place.faults()
    assert place.run("SELECT score FROM scores") == [(1.0,)]


def _write(place: Place, value: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", WRITER], stdin=subprocess.PIPE)


def _sent(place: Place, value: float) -> bytes:
    import pickle

    return pickle.dumps((place.writer, place.config, place.uri, value))


def _until(reached: Callable[[], bool], writer: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + WITHIN * 2
    while not reached():
        assert writer.poll() is None, "the writer ended"
        assert time.monotonic() < deadline, "the writer did not come so far"
        time.sleep(0.05)
