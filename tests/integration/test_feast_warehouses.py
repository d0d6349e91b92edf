"""Feast's own joins for BigQuery and Snowflake: its very statements, translated by sqlglot, in DuckDB.

Why the join in a warehouse is ours: docs/adr/0019. A test that fails because Feast has become right is
good news: mend that page, then the test. Ours is held to the same cases, and more, by its contract.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import pandas as pd
import pytest
import sqlglot

pytestmark = pytest.mark.faults  # importing Feast's stores takes its time
EVENT, CREATED = "event_timestamp", "created_timestamp"
NOON = pd.Timestamp("2025-03-01 12:00Z")


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def put(database: duckdb.DuckDBPyConnection, name: str, rows: pd.DataFrame) -> None:
    """Make a table of these rows."""
    database.register("rows_to_be", rows)
    database.execute(f"CREATE TABLE {name} AS FROM rows_to_be")
    database.unregister("rows_to_be")


def versions(*rows: Sequence[Any], keys: Sequence[str] = ("user_id",)) -> pd.DataFrame:
    """Rows of keys, event time, created time, a value."""
    frame = pd.DataFrame(rows, columns=[*keys, EVENT, CREATED, "points"])
    for name in (EVENT, CREATED):
        frame[name] = pd.to_datetime(frame[name]).astype("datetime64[us, UTC]")
    return frame


def asked(keys: Sequence[str], *rows: Sequence[Any]) -> pd.DataFrame:
    """Rows of keys that all ask at noon."""
    frame = pd.DataFrame(rows, columns=list(keys))
    at = pd.Series([NOON] * len(rows)).astype("datetime64[us, UTC]")
    return frame.assign(offer=range(1, len(rows) + 1), at=at)


def answers(
    database: duckdb.DuckDBPyConnection, dialect: str, keys: Sequence[str], **options: bool
) -> list[tuple[int, Any]]:
    """Number of the row that asked and its points, as Feast's statement says."""
    from feast.infra.offline_stores import bigquery, snowflake
    from feast.infra.offline_stores.offline_utils import (
        FeatureViewQueryContext,
        build_point_in_time_query,
    )

    store = bigquery if dialect == "bigquery" else snowflake
    quote = "`" if dialect == "bigquery" else '"'
    context = FeatureViewQueryContext(
        name="facts",
        ttl=30 * 86_400,
        entities=list(keys),
        features=["points"],
        field_mapping={},
        timestamp_field=EVENT,
        created_timestamp_column=CREATED,
        table_subquery=f"{quote}facts{quote}",
        entity_selections=[f"{quote}{key}{quote} AS {quote}{key}{quote}" for key in keys],
        min_event_timestamp="2025-01-01T00:00:00+00:00",
        max_event_timestamp=NOON.isoformat(),
        date_partition_column=None,
        timestamp_field_type=None,
    )
    script = build_point_in_time_query(
        [context],
        left_table_query_string="asked",
        entity_df_event_timestamp_col="at",
        entity_df_columns=dict.fromkeys([*keys, "offer", "at"]).keys(),
        query_template=store.MULTIPLE_FEATURE_VIEW_POINT_IN_TIME_JOIN,
        **options,
    )
    *before, last = sqlglot.transpile(script, read=dialect, write="duckdb")
    same = " AND ".join(f'e."{key}" = v."{key}"' for key in keys)  # which sqlglot leaves as it is
    last = re.sub(r"MATCH_CONDITION \((.*?)\)\s+USING \(.*?\)", rf"ON \1 AND {same}", last)
    for statement in before:
        database.execute(statement)
    frame = database.sql(last).df()
    found = frame["points"].astype(object).where(frame["points"].notna(), None)
    return sorted(zip(frame["offer"], found, strict=True))


LATE = versions(
    ("ann", "2025-03-01 11:00Z", "2025-03-01 11:01Z", 150),
    ("ann", "2025-03-01 11:30Z", "2025-03-01 18:00Z", 480),  # arrived after noon
)


@pytest.mark.parametrize("dialect", ["bigquery", "snowflake"])
def test_late_arrivals_leak(database: duckdb.DuckDBPyConnection, dialect: str) -> None:
    put(database, "facts", LATE)
    put(database, "asked", asked(["user_id"], ["ann"]))
    assert answers(database, dialect, ["user_id"]) == [(1, 480)]


def test_in_bigquery_they_do_not_if_feast_is_asked_not_to(
    database: duckdb.DuckDBPyConnection,
) -> None:
    put(database, "facts", LATE)
    put(database, "asked", asked(["user_id"], ["ann"]))
    told = answers(database, "bigquery", ["user_id"], filter_by_created_timestamp=True)
    assert told == [(1, 150)]


def test_in_snowflake_there_is_no_asking() -> None:
    from feast.infra.offline_stores.bigquery import BigQueryOfflineStore
    from feast.infra.offline_stores.snowflake import SnowflakeOfflineStore

    assert BigQueryOfflineStore.supports_filter_by_created_timestamp
    assert not SnowflakeOfflineStore.supports_filter_by_created_timestamp


@pytest.mark.parametrize("dialect", ["bigquery", "snowflake"])
def test_entities_of_two_keys_meet_and_rows_multiply(
    database: duckdb.DuckDBPyConnection, dialect: str
) -> None:
    keys = ["from_id", "to_id"]
    at = "2025-03-01 09:00Z"
    put(database, "facts", versions((1, 11, at, at, 12), (11, 1, at, at, 50), keys=keys))
    put(database, "asked", asked(keys, [1, 11], [11, 1]))
    assert answers(database, dialect, keys) == [(1, 12), (1, 50), (2, 12), (2, 50)]


def test_versions_equal_in_both_times_multiply_rows_in_bigquery(
    database: duckdb.DuckDBPyConnection,
) -> None:
    at = "2025-03-01 09:00Z"
    put(database, "facts", versions(("ann", at, at, 1), ("ann", at, at, 2)))
    put(database, "asked", asked(["user_id"], ["ann"]))
    assert answers(database, "bigquery", ["user_id"]) == [(1, 1), (1, 2)]
