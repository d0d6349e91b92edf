"""How old features are: what the online store has, what waits for it, and what holds no longer."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["Ages", "Freshness", "StalenessLimits", "ViewStatus", "ages_of", "status_of"]

# How a namespace stands; all but the first are bad news.
Freshness: TypeAlias = Literal["fresh", "behind", "expired", "never materialised", "unknown"]
QUANTILES = (0.0, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class Ages:
    """How long ago (seconds) the entities' newest values happened, of so many entities.

    `expired` is the share of them older than the view's ttl, `too_old` than the recipe's `max_age`; None
    where there is no such limit.
    """

    entities: int
    newest: float
    median: float
    p95: float
    oldest: float
    expired: float | None
    too_old: float | None


@dataclass(frozen=True)
class StalenessLimits:
    """`lag`: how long versions may wait to be materialised; `expired`: the share that may be too old.

    All of them never may. Where entities are sessions or orders, most are old by nature.
    """

    lag: timedelta
    expired: float


@dataclass(frozen=True)
class ViewStatus:
    """One namespace at a moment.

    `materialised_until` (event time) is None where it never was; `newest_event` is the offline store's;
    `waiting` its versions that the online store does not have, and `lag` (seconds) how long the oldest
    of them has. `ages` are those of the values that are served (offline ones where nothing is served).
    """

    namespace: str
    state: Freshness
    why: str
    materialised_until: datetime | None = None
    newest_event: datetime | None = None
    waiting: int = 0
    lag: float = 0.0
    ages: Ages | None = None
    ttl: float | None = None
    max_age: float | None = None


def ages_of(
    events: pa.ChunkedArray, now: datetime, *, ttl: timedelta | None, max_age: timedelta | None
) -> Ages | None:
    """The ages at `now` of event times (µs, UTC), one per entity; None where there is none."""
    micros = events.cast(pa.int64()).to_numpy()
    if not len(micros):
        return None
    seconds = now.timestamp() - micros / 1e6
    newest, median, p95, oldest = (float(value) for value in np.quantile(seconds, QUANTILES))
    return Ages(
        len(seconds), newest, median, p95, oldest, _beyond(seconds, ttl), _beyond(seconds, max_age)
    )


def status_of(status: ViewStatus, limits: StalenessLimits, *, served: bool) -> ViewStatus:
    """Say how the namespace stands; `served`: there is an online store for it."""
    state, why = _judged(status, limits, served=served)
    return replace(status, state=state, why=why)


def _judged(status: ViewStatus, limits: StalenessLimits, *, served: bool) -> tuple[Freshness, str]:
    if served and status.materialised_until is None and status.newest_event is not None:
        return "never materialised", "lodestar features materialize has not run here"
    if status.lag > limits.lag.total_seconds():
        many = f"{status.waiting:,} version{'' if status.waiting == 1 else 's'}"
        waits = "waits" if status.waiting == 1 else "wait"
        return "behind", f"{many} {waits} for lodestar features materialize"
    for share, limit in (
        (_share(status, "expired"), "ttl"),
        (_share(status, "too_old"), "max_age"),
    ):
        if share is not None and (share >= 1 or share > limits.expired):
            return "expired", f"{share:.0%} of the entities are older than the {limit}"
    if status.newest_event is None:
        return "unknown", "the offline store has no version"
    return "fresh", ""


def _share(status: ViewStatus, name: Literal["expired", "too_old"]) -> float | None:
    if status.ages is None:
        return None
    return status.ages.expired if name == "expired" else status.ages.too_old


def _beyond(seconds: NDArray[np.float64], limit: timedelta | None) -> float | None:
    return None if limit is None else float((seconds > limit.total_seconds()).mean())
