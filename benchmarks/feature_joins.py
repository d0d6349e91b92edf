# ruff: noqa: S608 -- the names in the SQL are those of this file
"""Ways to join features to a spine point in time, parquet to parquet; each runs in its own process.

Every way adds the nine features of the shop's four namespaces, with their ttl. The leaky ways look at
event times alone, as people write them; the safe ones leave out what had not arrived by then.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from measure import ROOT

__all__ = ["CHILDREN", "FEATURES", "TABLES"]

# namespace → key, ttl in days, features
TABLES: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "product_details": ("product_id", 3650, ("price", "category", "brand")),
    "session_summary": ("session_id", 1, ("time_on_page_seconds", "click_count")),
    "user_demographics": ("user_id", 3650, ("age", "country_code")),
    "user_purchase_summary": ("user_id", 3650, ("ltv", "total_purchase_count")),
}
FEATURES = tuple(feature for _, _, features in TABLES.values() for feature in features)
CHUNK = 65_536


def ours(spine: str, output: str) -> None:
    """Ours: late arrivals left out, rows in the spine's order."""
    from lodestar.adapters.files.features import FileFeatureTables
    from lodestar.adapters.files.rows import FileReader, FileWriter
    from lodestar.adapters.joins.point_in_time import PointInTimeJoin
    from lodestar.interface.features import SelectedFeatures
    from lodestar.settings.features import load_features

    catalog = load_features(ROOT)
    selection = [SelectedFeatures(catalog.view(name), TABLES[name][2]) for name in TABLES]
    join = PointInTimeJoin(FileFeatureTables(Path.cwd()))
    rows = FileReader(Path(spine)).read(chunk_rows=CHUNK)
    with (
        join.historical(rows, selection, timestamp="event_timestamp") as joined,
        FileWriter(Path.cwd()).sink(output, joined.schema) as sink,
    ):
        for batch in joined:
            sink.write(batch)


def duckdb_leaky(spine: str, output: str) -> None:
    """DuckDB's ASOF join on event times; of equal ones, any."""
    _duckdb(spine, output, {name: f"FROM '{name}.parquet'" for name in TABLES}, "event_timestamp")


def duckdb_safe(spine: str, output: str) -> None:
    """DuckDB's ASOF join on when a version became visible, over the running record of versions."""
    _duckdb(spine, output, {name: _running(name) for name in TABLES}, "visible")


def _running(name: str) -> str:
    key = TABLES[name][0]
    return f"""
        SELECT * FROM (
            SELECT *, row_number() OVER (ORDER BY event_timestamp, created_timestamp) AS version,
                greatest(event_timestamp, created_timestamp) AS visible
            FROM '{name}.parquet')
        QUALIFY version = max(version) OVER (PARTITION BY {key} ORDER BY visible)"""


def _duckdb(spine: str, output: str, versions: dict[str, str], at: str) -> None:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"COPY ({_joined(spine, versions, at)}) TO '{output}'")


def _joined(spine: str, versions: dict[str, str], at: str, *, more: str = "") -> str:
    values, joins = [], []
    for name, (key, days, features) in TABLES.items():
        fresh = f"s.event_timestamp - {name}.event_timestamp <= INTERVAL {days} DAY"
        values += [f"CASE WHEN {fresh} THEN {name}.{it} END AS {it}" for it in features]
        values += [more.format(name=name)] if more else []
        joins.append(
            f"ASOF LEFT JOIN ({versions[name]}) AS {name} "
            f"ON s.{key} = {name}.{key} AND s.event_timestamp >= {name}.{at}"
        )
    return f"SELECT s.*, {', '.join(values)} FROM '{spine}' AS s {' '.join(joins)}"


def pandas_leaky(spine: str, output: str) -> None:
    """Sort both sides and `merge_asof`; of equal event times the last created."""
    import pandas as pd

    frame = pd.read_parquet(spine).sort_values("event_timestamp", kind="stable")
    for name, (key, days, features) in TABLES.items():
        times = ["event_timestamp", "created_timestamp"]
        versions = pd.read_parquet(f"{name}.parquet", columns=[key, *times, *features])
        versions = versions.sort_values(times, kind="stable").drop(columns="created_timestamp")
        tolerance = pd.Timedelta(days=days)
        frame = pd.merge_asof(frame, versions, on="event_timestamp", by=key, tolerance=tolerance)
    frame.to_parquet(output, index=False)


def polars_leaky(spine: str, output: str) -> None:
    """Polars' `join_asof`, streaming; of equal event times the last created."""
    import polars as pl  # type: ignore[import-not-found, unused-ignore]  # if installed

    frame = pl.scan_parquet(spine).sort("event_timestamp")
    for name, (key, days, features) in TABLES.items():
        versions = (
            pl.scan_parquet(f"{name}.parquet")
            .sort("event_timestamp", "created_timestamp")
            .select(key, "event_timestamp", *features)
        )
        frame = frame.join_asof(
            versions,
            on="event_timestamp",
            by=key,
            strategy="backward",
            tolerance=timedelta(days=days),
            check_sortedness=False,
        )
    frame.sink_parquet(output, engine="streaming")


def compare(one: str, other: str) -> None:
    """Hold two outputs against each other, value by value; the rows may come in another order."""
    joined = f"'{one}' AS a FULL JOIN '{other}' AS b ON a.row = b.row"
    differing = " OR ".join(f"a.{it} IS DISTINCT FROM b.{it}" for it in FEATURES)
    wrong = f"a.row IS NULL OR b.row IS NULL OR {differing}"
    _report(*_counted(wrong, joined), f"{one} and {other}")


def untied(spine: str, output: str, reference: str) -> None:
    """See that DuckDB's leaky output is the reference's wherever event times do not tie."""
    counted = {
        name: f"SELECT *, count(*) OVER (PARTITION BY {key}, event_timestamp) > 1 AS tied "
        f"FROM '{name}.parquet' QUALIFY row_number() OVER (PARTITION BY {key}, event_timestamp) = 1"
        for name, (key, _, _) in TABLES.items()
    }
    joined = _joined(spine, counted, "event_timestamp", more="{name}.tied AS {name}_tied")
    wrong = [
        f"(NOT coalesce(t.{name}_tied, false) AND a.{it} IS DISTINCT FROM b.{it})"
        for name, (_, _, features) in TABLES.items()
        for it in features
    ]
    both = (
        f"({joined}) AS t LEFT JOIN '{output}' AS a ON a.row = t.row "
        f"LEFT JOIN '{reference}' AS b ON b.row = t.row"
    )
    _report(*_counted(" OR ".join(wrong), both), f"{output} and {reference}")


def leaked(safe: str, leaky: str) -> None:
    """Print the share of rows with a value that had not arrived by then."""
    differing = " OR ".join(f"a.{it} IS DISTINCT FROM b.{it}" for it in FEATURES)
    rows, wrong = _counted(differing, f"'{safe}' AS a JOIN '{leaky}' AS b ON a.row = b.row")
    print(f"{wrong / rows:.1%}")


def _counted(wrong: str, joined: str) -> tuple[int, int]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = f"SELECT count(*), count(*) FILTER (WHERE {wrong}) FROM {joined}"
        rows, differing = connection.execute(query).fetchall()[0]
    return rows, differing


def _report(rows: int, differing: int, what: str) -> None:
    if differing:
        raise SystemExit(f"{what} differ in {differing:,} of {rows:,} rows")
    print(f"{rows:,}")


def make(*arguments: str) -> None:
    """Make the data."""
    from feature_data import make as make_data

    make_data(*arguments)


CHILDREN: dict[str, Callable[..., None]] = {
    way.__name__: way
    for way in (
        make,
        ours,
        duckdb_leaky,
        duckdb_safe,
        pandas_leaky,
        polars_leaky,
        compare,
        untied,
        leaked,
    )
}
