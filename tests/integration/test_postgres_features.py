"""Feature tables in PostgreSQL: versions in a range, the latest known, held to their declaration."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from tests.databases import Database, fresh_database

from lodestar.adapters.postgres.features import PostgresFeatureTables
from lodestar.errors import DataError, SchemaError
from lodestar.interface.features import TimeRange
from lodestar.settings.features import FeatureView

NEW_YEAR = datetime(2025, 1, 1, tzinfo=UTC)
MICRO, HOUR = timedelta(microseconds=1), timedelta(hours=1)
UTC_MICROS = pa.timestamp("us", tz="UTC")


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        yield database


def view(**changes: Any) -> FeatureView:  # noqa: ANN401 -- parts of a declaration
    source = {"table": "prices", "created_col": "created_timestamp"} | changes.pop("source", {})
    plain = {
        "namespace": "prices",
        "entity_keys": {"shop": "int", "product_id": "string"},
        "source": source,
        "features": {"price": "float", "brand": "string"},
    }
    return FeatureView.model_validate(plain | changes)


def make(
    database: Database, *rows: Sequence[object], moment: str = "timestamptz", more: str = ""
) -> None:
    database.run(
        f"CREATE TABLE prices (brand text, price numeric(10, 2), shop int, product_id text, "
        f"event_timestamp {moment}, created_timestamp {moment}, secret bytea{more})"
    )
    for row in rows:
        database.run(
            "INSERT INTO prices (shop, product_id, event_timestamp, created_timestamp, price, brand)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            *row,
        )


def until(moment: datetime, since: datetime | None = None) -> TimeRange:
    return TimeRange(since, moment)


def test_versions_are_those_in_the_range_with_both_its_ends(database: Database) -> None:
    moments = [NEW_YEAR - MICRO, NEW_YEAR, NEW_YEAR + HOUR, NEW_YEAR + HOUR + MICRO]
    make(database, *((1, "p", at, at + HOUR, number, "b") for number, at in enumerate(moments)))
    tables = PostgresFeatureTables(database.connection())
    read = tables.versions(view(), ["price"], until(NEW_YEAR + HOUR, NEW_YEAR)).read_all()
    assert read.schema == pa.schema(
        [
            ("shop", pa.int64()),
            ("product_id", pa.string()),
            ("event_timestamp", UTC_MICROS),
            ("created_timestamp", UTC_MICROS),
            ("price", pa.float64()),
        ]
    )
    assert sorted(read.column("price").to_pylist()) == [1.0, 2.0]
    assert tables.versions(view(), ["price"], until(NEW_YEAR)).read_all().num_rows == 2
    assert tables.versions(view(), ["price"], until(NEW_YEAR - HOUR)).read_all().num_rows == 0


def test_only_what_is_asked_for_is_read(database: Database) -> None:
    make(database, (1, "p", NEW_YEAR, NEW_YEAR, 1, "b"))
    # Whatever read this column would fail on it.
    database.run("ALTER TABLE prices ADD COLUMN odd int[] DEFAULT '{1}'")
    plain = view(source={"created_col": None})
    read = PostgresFeatureTables(database.connection()).versions(plain, [], until(NEW_YEAR))
    assert read.read_all().column_names == ["shop", "product_id", "event_timestamp"]


def test_the_latest_is_the_last_event_then_the_last_created_of_those_that_had_arrived(
    database: Database,
) -> None:
    later = NEW_YEAR + HOUR
    make(
        database,
        (1, "tie", NEW_YEAR, NEW_YEAR, 1, "old"),
        (1, "tie", NEW_YEAR, NEW_YEAR + MICRO, 2, "restated"),
        (1, "late", NEW_YEAR, NEW_YEAR, 3, "known"),
        (1, "late", later, later + MICRO, 4, "arrives too late"),
        (11, "late", later, later, 5, "another shop's"),
        (1, "after", later + MICRO, NEW_YEAR, 6, "in the future"),
        (1, None, NEW_YEAR, NEW_YEAR, 7, "nobody's"),
        (1, "no arrival", NEW_YEAR, None, 8, "never arrived"),
        (1, "null", NEW_YEAR, NEW_YEAR, None, None),
    )
    tables = PostgresFeatureTables(database.connection())
    read = tables.latest(view(), until(later), known_by=later).read_all()
    found = {(row["shop"], row["product_id"]): row["brand"] for row in read.to_pylist()}
    assert found == {
        (1, "tie"): "restated",
        (1, "late"): "known",
        (11, "late"): "another shop's",
        (1, "null"): None,
    }
    read = tables.latest(view(), until(later, later), known_by=later).read_all()
    assert read.column("shop").to_pylist() == [11]


def test_without_a_created_column_everything_has_arrived(database: Database) -> None:
    make(database, (1, "p", NEW_YEAR, NEW_YEAR + HOUR, 1, "b"))
    plain = view(source={"created_col": None})
    tables = PostgresFeatureTables(database.connection())
    assert tables.latest(plain, until(NEW_YEAR), known_by=NEW_YEAR).read_all().num_rows == 1
    assert tables.latest(view(), until(NEW_YEAR), known_by=NEW_YEAR).read_all().num_rows == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_latest_is_what_a_plain_search_finds(database: Database, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 -- repeatable on purpose
    rows = [
        (
            draw.randrange(3),
            draw.choice("ab"),
            NEW_YEAR + draw.randrange(6) * MICRO,
            NEW_YEAR + draw.randrange(9) * MICRO,
            number,
            "b",
        )
        for number in range(60)
    ]
    make(database, *rows)
    bound, known_by = NEW_YEAR + 4 * MICRO, NEW_YEAR + 6 * MICRO
    wanted: dict[tuple[int, str], tuple[datetime, datetime]] = {}
    for shop, product, event, created, _, _ in rows:
        if event <= bound and created <= known_by:
            wanted[shop, product] = max(
                wanted.get((shop, product), (event, created)), (event, created)
            )
    read = PostgresFeatureTables(database.connection()).latest(
        view(), until(bound), known_by=known_by
    )
    found = {
        (row["shop"], row["product_id"]): (row["event_timestamp"], row["created_timestamp"])
        for row in read.read_all().to_pylist()
    }
    assert found == wanted


def test_times_without_a_zone_are_refused_until_one_is_declared(database: Database) -> None:
    plain = datetime(2025, 1, 1, 9)  # noqa: DTZ001 -- its zone is what the test is about
    make(database, (1, "p", plain, plain, 1, "b"), moment="timestamp")
    tables = PostgresFeatureTables(database.connection())
    with pytest.raises(SchemaError, match="'event_timestamp' have no time zone") as said:
        tables.versions(view(), ["price"], until(NEW_YEAR))
    assert "timezone" in str(said.value)
    in_seoul = view(source={"timezone": "Asia/Seoul"})
    for read in (
        tables.versions(in_seoul, ["price"], until(NEW_YEAR, NEW_YEAR)),
        tables.latest(in_seoul, until(NEW_YEAR, NEW_YEAR), known_by=NEW_YEAR),
    ):
        assert read.read_all().column("event_timestamp").to_pylist() == [NEW_YEAR]
    assert tables.versions(in_seoul, ["price"], until(NEW_YEAR - MICRO)).read_all().num_rows == 0


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Seoul", "UTC"])
def test_local_times_through_a_year_of_clock_changes(database: Database, zone: str) -> None:
    there = ZoneInfo(zone)
    instants = [NEW_YEAR + number * HOUR for number in range(0, 365 * 24, 7)]
    # What a clock shows twice does not say which of the two it was.
    plain = [
        at
        for at in instants
        if len(
            {
                at.astimezone(there).utcoffset(),
                (at + HOUR).astimezone(there).utcoffset(),
                (at - HOUR).astimezone(there).utcoffset(),
            }
        )
        == 1
    ]
    local = [at.astimezone(there).replace(tzinfo=None) for at in plain]
    make(database, moment="timestamp")
    table = {"shop": [1] * len(local), "product_id": ["p"] * len(local), "event_timestamp": local}
    database.put(pa.table(table), "copied")
    database.run("INSERT INTO prices (shop, product_id, event_timestamp) SELECT * FROM copied")
    zoned = view(source={"timezone": zone, "created_col": None})
    tables = PostgresFeatureTables(database.connection())
    for since, last in [(None, plain[-1]), (plain[400], plain[900]), (plain[-1], plain[-1])]:
        read = tables.versions(zoned, [], until(last, since)).read_all()
        wanted = [at for at in plain if (since or at) <= at <= last]
        assert sorted(read.column("event_timestamp").to_pylist()) == wanted


def test_the_servers_own_zone_changes_nothing(database: Database) -> None:
    make(database, (1, "p", NEW_YEAR, NEW_YEAR, 1, "b"))
    seoul = database.connection(uri=f"{database.uri}%20-cTimeZone%3DAsia/Seoul")
    read = PostgresFeatureTables(seoul).versions(view(), ["price"], until(NEW_YEAR, NEW_YEAR))
    assert read.read_all().column("event_timestamp").to_pylist() == [NEW_YEAR]


def test_times_before_1970_are_in_order(database: Database) -> None:
    old = datetime(1969, 7, 20, 20, 17, 40, 1, tzinfo=UTC)
    make(database, (1, "p", old, old, 1, "first"), (1, "p", old + MICRO, old, 2, "second"))
    tables = PostgresFeatureTables(database.connection())
    read = tables.latest(view(), until(old + MICRO, old), known_by=old).read_all()
    assert read.column("brand").to_pylist() == ["second"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"features": {"price": "int"}},
            "column 'price' is declared int, and the table has double",
        ),
        (
            {"features": {"brand": "float"}},
            "column 'brand' is declared float, and the table has string",
        ),
        (
            {"features": {"secret": "string"}},
            "column 'secret' is declared string, and the table has binary",
        ),
        (
            {"entity_keys": {"shop": "string"}},
            "column 'shop' is declared string, and the table has int32",
        ),
        (
            {"source": {"timestamp_col": "price"}, "features": {"brand": "string"}},
            "column 'price' is declared timestamp, and the table has double",
        ),
        ({"features": {"prize": "float"}}, "no column 'prize'\n  hint: did you mean 'price'"),
        ({"source": {"created_col": "made"}}, "no column 'made'"),
        ({"source": {"table": "price"}}, "is not in the database\n  hint: did you mean 'prices'"),
        ({"source": {"table": "other.prices"}}, "table 'other.prices'"),
    ],
)
def test_a_table_that_is_not_as_declared_is_refused_by_name(
    database: Database, changes: dict[str, Any], words: str
) -> None:
    make(database)
    declared = view(**changes)
    with pytest.raises(SchemaError) as caught:
        PostgresFeatureTables(database.connection()).versions(
            declared, list(declared.features), until(NEW_YEAR)
        )
    assert "namespace 'prices'" in str(caught.value)
    assert words in str(caught.value)


def test_money_is_no_whole_number(database: Database) -> None:
    make(database, more=", cost money")
    costs = view(features={"cost": "int"})
    with pytest.raises(SchemaError, match="namespace 'prices': column 'cost' has the type money"):
        PostgresFeatureTables(database.connection()).versions(costs, ["cost"], until(NEW_YEAR))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("float8", ["-inf", "-1", "-0.0", "0.0", "inf", "nan"]),
        ("text", ["", "A", "Z", "a", "é", "🚀"]),
        ("bool", ["false", "true"]),
        ("int", ["-2", "1", "10"]),
        ("uuid", ["0f9619ff-8b86-d011-b42d-00c04fc964ff", "f00019ff-8b86-d011-b42d-00c04fc964ff"]),
        ("json", ['{"a": 1}', '{"b": 1}']),
    ],
)
def test_of_versions_equal_in_both_times_the_one_with_the_greater_values_counts(
    database: Database, kind: str, values: list[str]
) -> None:
    declared = {"float8": "float", "bool": "bool", "int": "int"}.get(kind, "string")
    make(database, more=f", first int DEFAULT 1, v {kind}")
    valued = view(features={"first": "int", "v": declared})
    tables = PostgresFeatureTables(database.connection())
    for number, value in enumerate([None, *values]):
        # A text without a type takes the column's.
        database.run(
            "INSERT INTO prices (shop, product_id, event_timestamp, created_timestamp, v)"
            " VALUES (1, 'p', '2025-01-01', '2025-01-01', %s)",
            value,
        )
        (row,) = tables.latest(valued, until(NEW_YEAR), known_by=NEW_YEAR).read_all().to_pylist()
        wanted = database.run(f"SELECT %s::{kind}::text", value)[0][0]
        found = database.run(
            f"SELECT (%s::text)::{kind}::text", None if number == 0 else str(row["v"])
        )
        assert found[0][0] == wanted


def test_texts_stand_in_the_order_of_their_signs_whatever_the_column_says(
    database: Database,
) -> None:
    if not database.run("SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu'"):
        pytest.skip("this server has no collations of another order")
    make(database, more=', v text COLLATE "und-x-icu"')
    rows = "SELECT 1, 'p', timestamptz '2025-01-01', timestamptz '2025-01-01', unnest(%s::text[])"
    names = "shop, product_id, event_timestamp, created_timestamp, v"
    database.run(f"INSERT INTO prices ({names}) {rows}", ["Z", "a", "B"])
    valued = view(features={"v": "string"})
    read = PostgresFeatureTables(database.connection()).latest(
        valued, until(NEW_YEAR), known_by=NEW_YEAR
    )
    assert read.read_all().column("v").to_pylist() == ["a"]


def test_a_table_of_another_schema_is_read_by_its_full_name(database: Database) -> None:
    make(database, (1, "p", NEW_YEAR, NEW_YEAR, 1, "b"))
    elsewhere = database.connection(uri=database.server)
    full = view(source={"table": f"{database.schema}.prices"})
    read = PostgresFeatureTables(elsewhere).versions(full, ["price"], until(NEW_YEAR))
    assert read.read_all().num_rows == 1


def test_an_infinite_time_is_an_error(database: Database) -> None:
    make(database, (1, "p", NEW_YEAR, "infinity", 1, "b"))
    read = PostgresFeatureTables(database.connection()).versions(view(), [], until(NEW_YEAR))
    with pytest.raises(DataError, match="'created_timestamp' has an infinite time"):
        read.read_all()
