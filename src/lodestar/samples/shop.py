"""A web shop that runs an experiment, made up from a seed, with an effect that is known exactly.

A voucher is offered in half of the sessions, at random (`grp`), and a session ends in a purchase or
not (`outcome`). Four feature tables keep every version of their values, with the time that each
was true (`event_timestamp`) and the time that it arrived (`created_timestamp`, 0 to 6 hours later;
a few versions are restated). The outcome is drawn from the values known when the offer was made:

    P(outcome = 1) = sigmoid(base(features)) + (grp is "treatment") * true_uplift(features)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from lodestar.errors import UsageError
from lodestar.samples.bundled import named, numbered, write_parquet

__all__ = ["true_uplift", "write_shop"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Times are whole microseconds since 1970, in UTC.
MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
OPENED, LOYALTY_SINCE, FIRST_SESSION, LAST_SESSION = (
    int(np.datetime64(day, "us").astype(np.int64))
    for day in ("2023-01-01", "2024-07-01", "2025-01-01", "2025-04-01")
)

HALF = 0.5
SHARE_LATE = 0.1
SHARE_RESTATED = 0.03
SHARE_AGE_UNKNOWN = 0.03
LATEST_ARRIVAL = 6 * HOUR
PRICE_CHANGES = 7

CATEGORIES = ("beauty", "books", "electronics", "fashion", "home", "toys")
TYPICAL_PRICE = np.array([28.0, 18.0, 140.0, 55.0, 70.0, 30.0])
CATEGORY_APPEAL = np.array([0.2, 0.3, -0.4, 0.1, -0.1, 0.0])
BRANDS = tuple(f"brand_{number:02d}" for number in range(1, 25))
COUNTRIES = ("KR", "US", "JP", "DE", "FR", "GB", "IN", "BR")
COUNTRY_SHARES = (0.34, 0.2, 0.12, 0.09, 0.08, 0.07, 0.06, 0.04)


def true_uplift(frame: pd.DataFrame) -> Floats:
    """By how much the voucher raises the probability of a purchase, row by row, exactly.

    Young users of cheap products gain up to 0.25; the older the user or the dearer the product, the
    nearer it comes to -0.05:

        uplift = -0.05 + 0.30 * sigmoid((40 - age) / 5) * sigmoid((70 - price) / 10)

    An unknown age counts as 45, an unknown price as 70. Reads the columns `age` and `price`;
    returns shape (rows,).
    """
    young = _sigmoid((40.0 - _known(frame["age"], 45.0)) / 5.0)
    cheap = _sigmoid((70.0 - _known(frame["price"], 70.0)) / 10.0)
    return -0.05 + 0.30 * young * cheap


def write_shop(
    root: Path, *, sessions: int = 20_000, users: int = 5_000, products: int = 500, seed: int = 7
) -> list[Path]:
    """Write the shop's tables to `root`, and its training set to `root/snapshots`.

    `snapshots/uplift_model_exp3.parquet` is the spine with the nine features joined point in time:
    of the versions with both timestamps at or before the session's, the latest by (event, created).
    The same sizes and seed write the same bytes.

    Raises:
        UsageError: A size is below one, or the seed below zero.
        ExternalError: The folder cannot be written.
    """
    if min(sessions, users, products) < 1 or seed < 0:
        raise UsageError("a shop needs one session, user and product at least, and a seed from 0")
    shop = _open_shop(users, products, _stream(seed, 0))
    offers = _offers(shop, sessions, _stream(seed, 1))
    features = {
        "user_demographics": _user_demographics(shop, _stream(seed, 2)),
        "user_purchase_summary": _user_purchase_summary(shop, _stream(seed, 3)),
        "product_details": _product_details(shop, _stream(seed, 4)),
        "session_summary": _session_summary(offers, _stream(seed, 5)),
    }
    known = _join_known(offers, features)
    spine = offers.append_column("outcome", _outcome(offers, known, _stream(seed, 6)))
    features["session_summary"] = pa.concat_tables(
        [features["session_summary"], _last_words(spine, _stream(seed, 7))]
    )
    tables = {
        "users": shop.users,
        "products": shop.products,
        "sessions": spine,
        "purchases": _purchases(shop, spine, known),
        **features,
        "snapshots/uplift_model_exp3": pa.table(
            [*spine.columns, *known.columns], names=[*spine.column_names, *known.column_names]
        ),
    }
    return [write_parquet(table, root / f"{name}.parquet") for name, table in tables.items()]


@dataclass(frozen=True)
class _Shop:
    """Who is there, and `history`: purchases outside of the experiment, by user, then time.

    In `history`, users and products are row numbers of their tables.
    """

    users: pa.Table
    products: pa.Table
    popularity: Floats
    history: pa.Table


def _open_shop(users: int, products: int, draw: np.random.Generator) -> _Shop:
    signup = draw.integers(OPENED, FIRST_SESSION - 30 * DAY, users)
    category = draw.integers(0, len(CATEGORIES), products)
    list_price = np.round(TYPICAL_PRICE[category] * np.exp(draw.normal(0.0, 0.6, products)), 2)
    product_columns = {
        "product_id": numbered("prod", products, width=5),
        "category": named(category, CATEGORIES),
        "brand": named(draw.integers(0, len(BRANDS), products), BRANDS),
        "list_price": list_price,
    }
    popularity = _shares(draw.gamma(0.8, size=products))
    user = np.repeat(np.arange(users), draw.poisson(draw.gamma(1.5, 4.0, users)))
    at = draw.integers(np.maximum(signup, LOYALTY_SINCE)[user], LAST_SESSION)
    product = draw.choice(products, len(user), p=popularity)
    amount = np.round(list_price[product] * draw.uniform(0.8, 1.0, len(user)), 2)
    history = pa.table({"user": user, "product": product, "amount": amount, "at": at})
    return _Shop(
        users=pa.table(
            {"user_id": numbered("user", users, width=6), "signup_timestamp": _timestamps(signup)}
        ),
        products=pa.table(product_columns),
        popularity=popularity,
        history=history.take(pa.array(np.lexsort((at, user)))),
    )


def _offers(shop: _Shop, count: int, draw: np.random.Generator) -> pa.Table:
    """The spine without its outcome, in the order of time."""
    users = len(shop.users)
    user = draw.choice(users, count, p=_shares(draw.gamma(1.2, size=users)))
    product = draw.choice(len(shop.products), count, p=shop.popularity)
    treated = draw.random(count) < HALF
    at = np.sort(draw.integers(FIRST_SESSION, LAST_SESSION, count))
    columns = {
        "user_id": shop.users["user_id"].take(pa.array(user)),
        "product_id": shop.products["product_id"].take(pa.array(product)),
        "session_id": numbered("sess", count, width=7),
        "event_timestamp": _timestamps(at),
        "grp": named(treated.astype(np.int64), ("control", "treatment")),
    }
    return pa.table(columns)


def _user_demographics(shop: _Shop, draw: np.random.Generator) -> pa.Table:
    """One version at sign-up; half of the users edit their profile later, a year older."""
    users = len(shop.users)
    signup = _micros(shop.users, "signup")
    edited = np.flatnonzero(draw.random(users) < HALF)
    user = np.concatenate([np.arange(users), edited])
    at = np.concatenate([signup, draw.integers(signup[edited], LAST_SESSION)])
    first = np.clip(np.round(18 + draw.gamma(2.4, 9.5, users)), 18, 90).astype(np.int64)
    age = np.concatenate([first, first[edited] + 1])
    unknown = (draw.random(users) < SHARE_AGE_UNKNOWN)[user]
    country = draw.choice(len(COUNTRIES), users, p=COUNTRY_SHARES)
    moved = np.where(draw.random(len(edited)) < SHARE_LATE, 0, country[edited])
    versions = {
        "age": pa.array(age, mask=unknown),
        "country_code": named(np.concatenate([country, moved]), COUNTRIES),
    }
    corrected = {"age": pa.array(np.maximum(age - 1, 18), mask=unknown)}
    return _arrive(shop.users.select(["user_id"]), user, at, versions, corrected, draw)


def _user_purchase_summary(shop: _Shop, draw: np.random.Generator) -> pa.Table:
    """Nothing bought at sign-up, then one version per purchase outside of the experiment."""
    users = len(shop.users)
    buyer = shop.history["user"].to_numpy()
    first = np.searchsorted(buyer, np.arange(users))[buyer]
    spent = np.concatenate([[0.0], np.cumsum(shop.history["amount"].to_numpy())])
    ltv = np.concatenate([np.zeros(users), np.round(spent[1:] - spent[first], 2)])
    count = np.concatenate([np.zeros(users, np.int64), np.arange(len(buyer)) - first + 1])
    user = np.concatenate([np.arange(users), buyer])
    at = np.concatenate([_micros(shop.users, "signup"), shop.history["at"].to_numpy()])
    versions = {"ltv": pa.array(ltv), "total_purchase_count": pa.array(count)}
    refunded = {"ltv": pa.array(np.round(ltv * 0.9, 2))}
    return _arrive(shop.users.select(["user_id"]), user, at, versions, refunded, draw)


def _product_details(shop: _Shop, draw: np.random.Generator) -> pa.Table:
    """The list price from the opening on, then a new price now and then."""
    products = len(shop.products)
    product = np.tile(np.arange(products), PRICE_CHANGES + 1)
    changes = draw.integers(FIRST_SESSION - 30 * DAY, LAST_SESSION, products * PRICE_CHANGES)
    at = np.concatenate([np.full(products, OPENED), changes])
    factor = np.concatenate([np.ones(products), draw.uniform(0.75, 1.15, len(changes))])
    price = np.round(shop.products["list_price"].to_numpy()[product] * factor, 2)
    versions = {
        "price": pa.array(price),
        "category": shop.products["category"].take(pa.array(product)),
        "brand": shop.products["brand"].take(pa.array(product)),
    }
    corrected = {"price": pa.array(np.round(price * 0.95, 2))}
    return _arrive(shop.products.select(["product_id"]), product, at, versions, corrected, draw)


def _session_summary(offers: pa.Table, draw: np.random.Generator) -> pa.Table:
    """What the session looked like minutes before the offer; one that arrives late is unknown."""
    count = len(offers)
    at = _micros(offers, "event") - draw.integers(2 * MINUTE, 45 * MINUTE, count)
    interest = draw.gamma(2.0, 1.0, count)
    clicks = 1 + draw.poisson(3.0 * interest)
    seconds = np.round(20 + 60 * interest * draw.uniform(0.7, 1.3, count), 1)
    versions = {"time_on_page_seconds": pa.array(seconds), "click_count": pa.array(clicks)}
    corrected = {"click_count": pa.array(clicks + 1)}
    ids = offers.select(["session_id"])
    return _arrive(ids, np.arange(count), at, versions, corrected, draw)


def _last_words(spine: pa.Table, draw: np.random.Generator) -> pa.Table:
    """Each session's final summary, written after the offer: it gives the outcome away."""
    count = len(spine)
    at = _micros(spine, "event") + draw.integers(MINUTE, 30 * MINUTE, count)
    clicks = 4 + draw.poisson(4.0, count) + 12 * spine["outcome"].to_numpy()
    columns = {
        "session_id": spine["session_id"],
        "event_timestamp": _timestamps(at),
        "created_timestamp": _timestamps(at + draw.integers(0, MINUTE, count)),
        "time_on_page_seconds": np.round(40.0 + clicks * draw.uniform(10.0, 20.0, count), 1),
        "click_count": clicks,
    }
    return pa.table(columns)


def _arrive(
    ids: pa.Table,
    entity: Ints,
    at: Ints,
    versions: Mapping[str, pa.Array],
    corrected: Mapping[str, pa.Array],
    draw: np.random.Generator,
) -> pa.Table:
    """Let each version arrive, a tenth of them late, and a few again with corrected values."""
    late = draw.random(len(at)) < SHARE_LATE
    lag = draw.integers(0, np.where(late, LATEST_ARRIVAL, MINUTE))
    again = np.flatnonzero(draw.random(len(at)) < SHARE_RESTATED)
    lag_again = draw.integers(lag[again], LATEST_ARRIVAL, endpoint=True)
    event = np.concatenate([at, at[again]])
    columns = {
        **_dict(ids.take(pa.array(np.concatenate([entity, entity[again]])))),
        "event_timestamp": _timestamps(event),
        "created_timestamp": _timestamps(event + np.concatenate([lag, lag_again])),
    }
    for name, values in versions.items():
        restated = corrected.get(name, values).take(pa.array(again))
        columns[name] = _one_after_the_other(values, restated)
    return pa.table(columns)


# Versions are numbered by (event, created); of those visible at a time, only the highest number so
# far can be the latest, so one ASOF join over the time of visibility is exact.
LATEST_KNOWN = """
WITH running AS (
    SELECT key, visible_us, version
    FROM versions
    QUALIFY version = max(version) OVER (PARTITION BY key ORDER BY visible_us)
)
SELECT running.version
FROM spine ASOF LEFT JOIN running
ON spine.key = running.key AND spine.at_us >= running.visible_us
ORDER BY spine.position
"""


def _join_known(spine: pa.Table, features: Mapping[str, pa.Table]) -> pa.Table:
    """The features' values known at each row's `event_timestamp`, in the spine's order."""
    columns: dict[str, pa.ChunkedArray] = {}
    for feature in features.values():
        columns |= _dict(feature.drop_columns(feature.column_names[:3]).take(_rows(spine, feature)))
    return pa.table(columns)


def _rows(spine: pa.Table, feature: pa.Table) -> pa.ChunkedArray:
    """The latest row of `feature` known to each row of the spine; null where none was."""
    import duckdb

    key = feature.column_names[0]
    event, created = _micros(feature, "event"), _micros(feature, "created")
    order = np.lexsort((created, event))
    versions = {
        "key": feature[key].take(pa.array(order)),
        "visible_us": np.maximum(event, created)[order],
        "version": np.arange(len(order)),
    }
    asked = {"key": spine[key], "at_us": _micros(spine, "event"), "position": np.arange(len(spine))}
    with duckdb.connect() as connection:
        connection.register("versions", pa.table(versions))
        connection.register("spine", pa.table(asked))
        version = connection.sql(LATEST_KNOWN).to_arrow_table()["version"]
    return pa.chunked_array([pa.array(order)]).take(version)


def _outcome(offers: pa.Table, known: pa.Table, draw: np.random.Generator) -> pa.Array:
    """Draw who buys. The base stays within 0.069 and 0.378, so that the effect is never cut off."""
    frame = known.to_pandas()
    treated = offers["grp"].to_pandas().to_numpy() == "treatment"
    appeal = pd.Series(CATEGORY_APPEAL, index=list(CATEGORIES))
    base = (
        -3.2
        + 0.09 * np.minimum(_known(frame["click_count"], 7.0), 16.0)
        + 0.10 * np.minimum(_known(frame["total_purchase_count"], 0.0), 8.0)
        - 0.25 * np.log1p(_known(frame["price"], 70.0) / 60.0)
        + _known(frame["category"].map(appeal), 0.0)
    )
    chance = _sigmoid(np.clip(base, -2.6, -0.5)) + treated * true_uplift(frame)
    return pa.array((draw.random(len(chance)) < chance).astype(np.int64))


def _purchases(shop: _Shop, spine: pa.Table, known: pa.Table) -> pa.Table:
    """Those outside of the experiment (no session), then one per session that ended in one."""
    past, bought = shop.history, spine["outcome"].to_numpy() == 1
    won = spine.filter(pa.array(bought))
    at = np.concatenate([past["at"].to_numpy(), _micros(won, "event") + MINUTE])
    user = shop.users["user_id"].take(past["user"])
    product = shop.products["product_id"].take(past["product"])
    no_session = pa.nulls(len(past), pa.string())
    columns = {
        "purchase_id": numbered("buy", len(at), width=7),
        "user_id": _one_after_the_other(user, won["user_id"]),
        "product_id": _one_after_the_other(product, won["product_id"]),
        "session_id": _one_after_the_other(no_session, won["session_id"]),
        "amount": _one_after_the_other(past["amount"], known["price"].filter(pa.array(bought))),
        "event_timestamp": _timestamps(at),
    }
    return pa.table(columns)


def _stream(seed: int, part: int) -> np.random.Generator:
    """One independent stream per part: a change to one part leaves the others' values alone."""
    return np.random.default_rng([seed, part])


def _sigmoid(values: Floats) -> Floats:
    return np.divide(1.0, 1.0 + np.exp(-values))


def _shares(weights: Floats) -> Floats:
    return np.divide(weights + 1e-3, np.sum(weights + 1e-3))


def _known(values: "pd.Series[float]", unknown: float) -> Floats:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(numbers), unknown, numbers)


def _micros(table: pa.Table, which: str) -> Ints:
    return np.asarray(table[f"{which}_timestamp"].cast(pa.int64()), dtype=np.int64)


def _timestamps(micros: Ints) -> pa.Array:
    return pa.array(micros).cast(pa.timestamp("us", tz="UTC"))


def _dict(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _one_after_the_other(*columns: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = (c.chunks if isinstance(c, pa.ChunkedArray) else [c] for c in columns)
    return pa.chunked_array([chunk for several in chunks for chunk in several])
