"""Local times as moments, stretch by stretch, held to how pyarrow reads the time zone database."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.examples import examples

from lodestar.core.clock_changes import Stretch, stretches
from lodestar.errors import DataError

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Seoul",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kathmandu",
    "Pacific/Apia",  # skipped a day
    "Africa/Casablanca",
    "America/Caracas",
]
NO_END = datetime.max  # noqa: DTZ901 -- local
FIRST, LAST = datetime(1850, 1, 1), datetime(2037, 6, 1)  # noqa: DTZ001 -- local; pyarrow knows no later changes
HOUR = timedelta(hours=1)


def meant(local: datetime, parts: tuple[Stretch, ...]) -> datetime:
    """As the SQL has it: the first stretch that the time is before."""
    part = next(one for one in parts if local < one.before)
    if isinstance(part.meaning, datetime):
        return part.meaning
    return (local - part.meaning).replace(tzinfo=UTC)


def by_pyarrow(local: datetime, zone: str) -> datetime:
    column = pa.array([local], pa.timestamp("us"))
    found = pc.assume_timezone(column, zone, ambiguous="latest", nonexistent="latest")
    moment: datetime = found.cast(pa.timestamp("us", "UTC"))[0].as_py()
    return moment


@settings(deadline=None, max_examples=examples(100))
@given(zone=st.sampled_from(ZONES), local=st.datetimes(FIRST, LAST))
def test_any_local_time_means_what_pyarrow_says(zone: str, local: datetime) -> None:
    parts = stretches(zone, None, LAST.replace(tzinfo=UTC))
    assert meant(local, parts) == by_pyarrow(local, zone)


@settings(deadline=None, max_examples=examples(100))
@given(zone=st.sampled_from(ZONES[1:4]), data=st.data())
def test_around_a_change_of_the_clock_too(zone: str, data: st.DataObject) -> None:
    parts = stretches(zone, None, LAST.replace(tzinfo=UTC))
    ends = [one.before for one in parts[:-1] if one.before.year > 1920]
    micros = data.draw(st.integers(-2 * 3_600_000_000, 2 * 3_600_000_000))
    local = data.draw(st.sampled_from(ends)) + timedelta(microseconds=micros)
    assert meant(local, parts) == by_pyarrow(local, zone)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Seoul"])
def test_a_window_is_exact_within_and_a_little_around(zone: str) -> None:
    since, until = (datetime(2025, month, 30, 1, 0, 0, 123, tzinfo=UTC) for month in (3, 10))
    parts = stretches(zone, since, until)
    assert len(parts) < 6
    local = since.replace(tzinfo=None) - 20 * HOUR
    while local < until.replace(tzinfo=None) + 20 * HOUR:
        assert meant(local, parts) == by_pyarrow(local, zone)
        local += HOUR / 3


def test_the_ends_of_the_calendar_are_no_ends_of_the_code() -> None:
    assert stretches("UTC", datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)) == (
        Stretch(NO_END, timedelta(0)),
    )
    assert stretches("Asia/Seoul", None, datetime(1, 1, 1, tzinfo=UTC))[-1].before == NO_END
    assert len(stretches("Asia/Seoul", None, datetime(9999, 1, 1, tzinfo=UTC))) > 10


def test_a_clock_that_changes_for_ever_is_refused_in_words() -> None:
    with pytest.raises(DataError, match="Europe/Berlin changes for ever, and times until 9000"):
        stretches("Europe/Berlin", None, datetime(9000, 1, 1, tzinfo=UTC))
