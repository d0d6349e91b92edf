"""How fresh a namespace is: what waits, what is too old, and when that is bad news."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pyarrow as pa
import pytest
from rich.console import Console

from lodestar.cli.staleness_views import StatusView
from lodestar.core.staleness import StalenessLimits, ViewStatus, ages_of, status_of
from lodestar.pipelines.staleness import FeatureStatus
from lodestar.schema import TIMESTAMP

NOW = datetime(2026, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
LIMITS = StalenessLimits(6 * HOUR, 0.5)
SERVED = ViewStatus("users", "unknown", "", materialised_until=NOW, newest_event=NOW - HOUR)


def events(*hours: float) -> pa.ChunkedArray:
    return pa.chunked_array([[NOW - at * HOUR for at in hours]], TIMESTAMP)


def test_ages_are_quantiles_over_entities_held_against_both_limits() -> None:
    found = ages_of(events(1, 2, 3, 4, 5), NOW, ttl=4 * HOUR, max_age=2 * HOUR)
    assert found is not None
    assert (found.entities, found.newest, found.median, found.oldest) == (5, 3600, 10_800, 18_000)
    assert (found.expired, found.too_old) == (0.2, 0.6)
    assert ages_of(events(), NOW, ttl=None, max_age=None) is None


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        (SERVED, "fresh", ""),
        (replace(SERVED, lag=6 * 3_600.0, waiting=5), "fresh", ""),
        (replace(SERVED, lag=6 * 3_600.0 + 1, waiting=5), "behind", "5 versions wait"),
        (replace(SERVED, materialised_until=None), "never materialised", "has not run"),
        (replace(SERVED, newest_event=None), "unknown", "no version"),
    ],
)
def test_what_waits_too_long_is_behind(status: ViewStatus, state: str, words: str) -> None:
    found = status_of(status, LIMITS, served=True)
    assert found.state == state
    assert words in found.why


def test_too_many_expired_entities_are_bad_news_and_half_of_them_are_not() -> None:
    half = ages_of(events(1, 9), NOW, ttl=4 * HOUR, max_age=None)
    most = ages_of(events(1, 8, 9), NOW, ttl=4 * HOUR, max_age=None)
    assert status_of(replace(SERVED, ages=half), LIMITS, served=True).state == "fresh"
    found = status_of(replace(SERVED, ages=most), LIMITS, served=True)
    assert (found.state, found.why) == ("expired", "67% of the entities are older than the ttl")
    every = ages_of(events(8, 9), NOW, ttl=4 * HOUR, max_age=None)
    lenient = StalenessLimits(6 * HOUR, 1.0)
    assert status_of(replace(SERVED, ages=most), lenient, served=True).state == "fresh"
    assert status_of(replace(SERVED, ages=every), lenient, served=True).state == "expired"
    aged = ages_of(events(1, 8, 9), NOW, ttl=None, max_age=2 * HOUR)
    assert "max_age" in status_of(replace(SERVED, ages=aged), LIMITS, served=True).why


def test_without_an_online_store_nothing_has_to_be_materialised() -> None:
    offline = replace(SERVED, materialised_until=None)
    assert status_of(offline, LIMITS, served=False).state == "fresh"


def test_people_are_told_what_waits_and_why_it_is_bad_news() -> None:
    behind = status_of(replace(SERVED, lag=90_000.0, waiting=1), LIMITS, served=True)
    console = Console(width=160, record=True, file=StringIO())
    view = StatusView(FeatureStatus(NOW, (behind, replace(SERVED, state="fresh")), LIMITS))
    view.print(console)
    text = console.export_text()
    assert "1.0 d" in text
    assert "users: 1 version waits for" in text
    assert view.json()["stale"] == ["users"]
    assert view.json()["namespaces"][0]["materialised_until"] == "2026-03-10T00:00:00+00:00"
