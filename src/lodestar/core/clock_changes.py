"""What a zone's local times mean, stretch by stretch, for engines that know no zones as we do."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from lodestar.errors import DataError

__all__ = ["Stretch", "stretches"]

# No zone of the database changed before: London was the first to leave its own noon, in 1847.
FIRST_CHANGE = datetime(1830, 1, 1, tzinfo=UTC)
# Clocks that still change then change for ever.
LAST_LOOKED_AT = datetime(2100, 1, 1, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@dataclass(frozen=True)
class Stretch:
    """Local times before `before` mean moments: `meaning` before them, or all of them the same one.

    The same one is meant by times that the clock skipped.
    """

    before: datetime
    meaning: timedelta | datetime


@lru_cache(maxsize=64)
def stretches(zone: str, since: datetime | None, until: datetime) -> tuple[Stretch, ...]:
    """Cut the local times that can mean moments from `since` to `until` where the clock changes.

    Of a local time that the clock shows twice, and of one that it skips, the later moment is meant: no
    version counts before it was there.

    Raises:
        DataError: the clock changes for ever, and times are asked for that are too far ahead.
    """
    there = ZoneInfo(zone)
    found: list[Stretch] = []
    at = _whole(FIRST_CHANGE if since is None else max(since, FIRST_CHANGE) - DAY)
    end = _whole(min(until, LAST_LOOKED_AT) + DAY)
    offset = _offset(at, there)
    while at < end:
        following = min(at + DAY, end)
        ahead = _offset(following, there)
        if ahead != offset:
            change = _change(at, following, there)
            if until > LAST_LOOKED_AT and change.year > LAST_LOOKED_AT.year - 2:
                raise DataError(
                    f"the clock of {zone} changes for ever, and times until {until:%Y-%m-%d} are "
                    "asked for",
                    hint="leave out what is so far ahead, or keep timestamps with their zone there",
                )
            found += _around(change, offset, ahead)
        at, offset = following, ahead
    return (*found, Stretch(datetime.max, offset))  # noqa: DTZ901 -- local, as its column


def _around(change: datetime, offset: timedelta, ahead: timedelta) -> list[Stretch]:
    """What local times mean that end with a change of the clock."""
    last, first = (change + by for by in (offset, ahead))  # what the clock shows before and after
    plain = [moment.replace(tzinfo=None) for moment in (last, first)]
    if ahead < offset:  # from `first` to `last` it shows all times twice
        return [Stretch(plain[1], offset)]
    return [Stretch(plain[0], offset), Stretch(plain[1], change)]


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The first second of the new offset."""
    old = _offset(before, zone)
    while (seconds := (after - before) // SECOND) > 1:
        middle = before + seconds // 2 * SECOND
        if _offset(middle, zone) == old:
            before = middle
        else:
            after = middle
    return after


def _whole(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    found = moment.astimezone(zone).utcoffset()
    assert found is not None  # noqa: S101 -- every ZoneInfo has one
    return found
