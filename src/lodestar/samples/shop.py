"""A web shop that runs an experiment, made up from a seed, with an effect that is known exactly.

A voucher is offered in half of the sessions, at random (`grp`), and a session ends in a purchase or
not (`outcome`). Four feature tables keep every version of their values, with the time that each
was true (`event_timestamp`) and the time that it arrived (`created_timestamp`, 0 to 6 hours later;
a few versions are restated). The outcome is drawn from the values known when the offer was made:

    P(outcome = 1) = sigmoid(base(features)) + (grp is "treatment") * true_uplift(features)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.errors import UsageError
from lodestar.samples.bundled import write_parquet

__all__ = ["true_uplift", "write_shop"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
TIMESTAMP = pa.timestamp("us", tz="UTC")


def _us(day: str) -> int:
    return int(np.datetime64(day, "us").astype(np.int64))


OPENED = _us("2023-01-01")
LOYALTY_SINCE = _us("2024-07-01")
FIRST_SESSION = _us("2025-01-01")
LAST_SESSION = _us("2025-04-01")

LATEST_ARRIVAL = 6 * HOUR
SHARE_LATE = 0.1
SHARE_RESTATED = 0.03
SHARE_AGE_UNKNOWN = 0.03
PRICE_CHANGES = 7

CATEGORIES = ("beauty", "books", "electronics", "fashion", "home", "toys")
TYPICAL_PRICE = np.array([28.0, 18.0, 140.0, 55.0, 70.0, 30.0])
CATEGORY_APPEAL = np.array([0.2, 0.3, -0.4, 0.1, -0.1, 0.0])
BRANDS = tuple(f"brand_{number:02d}" for number in range(1, 25))
COUNTRIES = ("KR", "US", "JP", "DE", "FR", "GB", "IN", "BR")
COUNTRY_SHARES = np.array([0.34, 0.2, 0.12, 0.09, 0.08, 0.07, 0.06, 0.04])

MIDDLE_AGE = 45.0
MIDDLE_PRICE = 60.0


def true_uplift(frame: pd.DataFrame) -> Floats:
    """By how much the voucher raises the probability of a purchase, row by row, exactly.

    Young users of cheap products gain up to 0.25; users past about 40 are put off a little, down to
    -0.05; young users of dear products do not care:

        young = sigmoid((38 - age) / 3)      cheap = sigmoid((55 - price) / 6)
        uplift = 0.25 * young * cheap - 0.05 * (1 - young)

    An unknown age counts as 45, an unknown price as 60. Reads the columns `age` and `price`;
    returns shape (rows,).
    """
    age = _known(frame["age"], MIDDLE_AGE)
    price = _known(frame["price"], MIDDLE_PRICE)
    young = _sigmoid((38.0 - age) / 3.0)
    cheap = _sigmoid((55.0 - price) / 6.0)
    return 0.25 * young * cheap - 0.05 * (1.0 - young)


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
    shop = _open_shop(users, products, seed)
    spine = _sessions(shop, sessions, seed)
    features = _features(shop, spine, seed)
    known = _join_known(spine.table, features)
    outcome = _outcome(spine, known, seed)
    final = spine.table.append_column("outcome", pa.array(outcome))
    tables = {
        "users": shop.users,
        "products": shop.products,
        "sessions": final,
        "purchases": _purchases(shop, spine, known, outcome),
        **{name: feature.table for name, feature in features.items()},
        "session_summary": _with_last_word(features["session_summary"].table, spine, outcome, seed),
    }
    paths = [write_parquet(table, root / f"{name}.parquet") for name, table in tables.items()]
    training = final
    for name in known.column_names:
        training = training.append_column(name, known[name])
    return [*paths, write_parquet(training, root / "snapshots" / "uplift_model_exp3.parquet")]


@dataclass(frozen=True)
class _Shop:
    """Users, products and their purchases outside of the experiment; positions are row numbers."""

    users: pa.Table
    products: pa.Table
    signup: Ints
    category: Ints
    popularity: Floats
    list_price: Floats
    history: pa.Table


@dataclass(frozen=True)
class _Sessions:
    """The spine without its outcome, and what it was made of."""

    table: pa.Table
    at: Ints
    treated: npt.NDArray[np.bool_]
    product: Ints


@dataclass(frozen=True)
class _FeatureTable:
    """Versions of one entity's features."""

    key: str
    table: pa.Table


def _open_shop(users: int, products: int, seed: int) -> _Shop:
    draw = _stream(seed, 0)
    user_ids = _ids("user", users, 6)
    product_ids = _ids("prod", products, 5)
    signup = draw.integers(OPENED, FIRST_SESSION - 30 * DAY, users)
    category = draw.integers(0, len(CATEGORIES), products)
    list_price = np.round(TYPICAL_PRICE[category] * np.exp(draw.normal(0.0, 0.6, products)), 2)
    popularity = _shares(draw.gamma(0.8, size=products) + 1e-3)

    bought = np.repeat(np.arange(users), draw.poisson(draw.gamma(1.5, 4.0, users)))
    since = np.maximum(signup, LOYALTY_SINCE)[bought]
    at = draw.integers(since, LAST_SESSION)
    product = draw.choice(products, len(bought), p=popularity)
    order = np.lexsort((at, bought))
    amount = np.round(list_price[product] * draw.uniform(0.8, 1.0, len(bought)), 2)
    return _Shop(
        users=pa.table({"user_id": user_ids, "signup_timestamp": _timestamps(signup)}),
        products=pa.table(
            {
                "product_id": product_ids,
                "category": _names(CATEGORIES, category),
                "brand": _names(BRANDS, draw.integers(0, len(BRANDS), products)),
                "list_price": list_price,
            }
        ),
        signup=signup,
        category=category,
        popularity=popularity,
        list_price=list_price,
        history=pa.table(
            {
                "user": bought[order],
                "product": product[order],
                "amount": amount[order],
                "at": at[order],
            }
        ),
    )


def _sessions(shop: _Shop, count: int, seed: int) -> _Sessions:
    draw = _stream(seed, 1)
    at = np.sort(draw.integers(FIRST_SESSION, LAST_SESSION, count))
    user = draw.choice(
        len(shop.users), count, p=_shares(draw.gamma(1.2, size=len(shop.users)) + 1e-3)
    )
    product = draw.choice(len(shop.products), count, p=shop.popularity)
    treated = draw.random(count) < 0.5  # noqa: PLR2004 - a coin
    table = pa.table(
        {
            "user_id": shop.users["user_id"].take(pa.array(user)),
            "product_id": shop.products["product_id"].take(pa.array(product)),
            "session_id": _ids("sess", count, 7),
            "event_timestamp": _timestamps(at),
            "grp": _names(("control", "treatment"), treated.astype(np.int64)),
        }
    )
    return _Sessions(table=table, at=at, treated=treated, product=product)


def _features(shop: _Shop, spine: _Sessions, seed: int) -> dict[str, _FeatureTable]:
    return {
        "user_demographics": _user_demographics(shop, _stream(seed, 2)),
        "user_purchase_summary": _user_purchase_summary(shop, _stream(seed, 3)),
        "product_details": _product_details(shop, _stream(seed, 4)),
        "session_summary": _session_summary(spine, _stream(seed, 5)),
    }


def _user_demographics(shop: _Shop, draw: np.random.Generator) -> _FeatureTable:
    """One version at sign-up; half of the users edit their profile later, a year older."""
    users = len(shop.users)
    edited = np.flatnonzero(draw.random(users) < 0.5)  # noqa: PLR2004 - half of them
    user = np.concatenate([np.arange(users), edited])
    at = np.concatenate([shop.signup, draw.integers(shop.signup[edited], LAST_SESSION)])
    age = np.clip(np.round(18 + draw.gamma(2.4, 9.5, users)), 18, 90).astype(np.int64)
    unknown = draw.random(users) < SHARE_AGE_UNKNOWN
    country = draw.choice(len(COUNTRIES), users, p=COUNTRY_SHARES)
    moved = np.where(draw.random(len(edited)) < SHARE_LATE, 0, country[edited])
    ages = np.concatenate([age, age[edited] + 1])
    versions = {
        "age": pa.array(ages, mask=unknown[user]),
        "country_code": _names(COUNTRIES, np.concatenate([country, moved])),
    }
    restated = {"age": pa.array(np.maximum(ages - 1, 18), mask=unknown[user])}
    return _versioned("user_id", shop.users["user_id"], user, at, versions, restated, draw)


def _user_purchase_summary(shop: _Shop, draw: np.random.Generator) -> _FeatureTable:
    """Nothing bought at sign-up, then one version per purchase outside of the experiment."""
    users = len(shop.users)
    buyer = shop.history["user"].to_numpy()
    first = np.searchsorted(buyer, np.arange(users))
    spent = np.concatenate([[0.0], np.cumsum(shop.history["amount"].to_numpy())])
    ltv = np.round(spent[1:] - spent[first[buyer]], 2)
    ltvs = np.concatenate([np.zeros(users), ltv])
    counts = np.concatenate(
        [
            np.zeros(users, dtype=np.int64),
            np.arange(len(buyer)) - first[buyer] + 1,
        ]
    )
    user = np.concatenate([np.arange(users), buyer])
    at = np.concatenate([shop.signup, shop.history["at"].to_numpy()])
    versions = {"ltv": pa.array(ltvs), "total_purchase_count": pa.array(counts)}
    refunded = {"ltv": pa.array(np.round(ltvs * 0.9, 2))}
    return _versioned("user_id", shop.users["user_id"], user, at, versions, refunded, draw)


def _product_details(shop: _Shop, draw: np.random.Generator) -> _FeatureTable:
    """The list price from the opening on, then a new price now and then."""
    products = len(shop.products)
    product = np.tile(np.arange(products), PRICE_CHANGES + 1)
    changes = draw.integers(FIRST_SESSION - 30 * DAY, LAST_SESSION, products * PRICE_CHANGES)
    at = np.concatenate([np.full(products, OPENED), changes])
    factor = np.concatenate([np.ones(products), draw.uniform(0.75, 1.15, len(changes))])
    price = np.round(shop.list_price[product] * factor, 2)
    rows = pa.array(product)
    versions = {
        "price": pa.array(price),
        "category": shop.products["category"].take(rows),
        "brand": shop.products["brand"].take(rows),
    }
    restated = {"price": pa.array(np.round(price * 0.95, 2))}
    return _versioned(
        "product_id", shop.products["product_id"], product, at, versions, restated, draw
    )


def _session_summary(spine: _Sessions, draw: np.random.Generator) -> _FeatureTable:
    """What the session looked like some minutes before the offer; late arrivals are not known yet."""
    count = len(spine.at)
    at = spine.at - draw.integers(2 * MINUTE, 45 * MINUTE, count)
    engaged = draw.gamma(2.0, 1.0, count)
    clicks = 1 + draw.poisson(3.0 * engaged)
    versions = {
        "time_on_page_seconds": pa.array(
            np.round(20 + 60 * engaged * draw.uniform(0.7, 1.3, count), 1)
        ),
        "click_count": pa.array(clicks),
    }
    restated = {"click_count": pa.array(clicks + 1)}
    ids = spine.table["session_id"]
    return _versioned("session_id", ids, np.arange(count), at, versions, restated, draw)


def _versioned(
    key: str,
    ids: pa.ChunkedArray,
    entity: Ints,
    at: Ints,
    versions: Mapping[str, Any],
    restated: Mapping[str, Any],
    draw: np.random.Generator,
) -> _FeatureTable:
    """Let every version arrive, some late; restate a few under the same event, arriving later yet."""
    late = draw.random(len(at)) < SHARE_LATE
    lag = np.where(
        late, draw.integers(0, LATEST_ARRIVAL, len(at)), draw.integers(0, MINUTE, len(at))
    )
    again = np.flatnonzero(draw.random(len(at)) < SHARE_RESTATED)
    lag_again = draw.integers(lag[again], LATEST_ARRIVAL, endpoint=True)

    rows = pa.array(again)
    columns = {
        name: pa.concat_arrays([_flat(values), _flat(restated.get(name, values)).take(rows)])
        for name, values in versions.items()
    }
    event = np.concatenate([at, at[again]])
    table = pa.table(
        {
            key: ids.take(pa.array(np.concatenate([entity, entity[again]]))),
            "event_timestamp": _timestamps(event),
            "created_timestamp": _timestamps(event + np.concatenate([lag, lag_again])),
            **columns,
        }
    )
    return _FeatureTable(key, table)


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


def _join_known(spine: pa.Table, features: Mapping[str, _FeatureTable]) -> pa.Table:
    """The features' values known at each row's `event_timestamp`, in the spine's order."""
    columns = {}
    for feature in features.values():
        names = feature.table.column_names[3:]
        known = _latest_known(spine, feature)
        columns |= {name: feature.table[name].take(known) for name in names}
    return pa.table(columns)


def _latest_known(spine: pa.Table, feature: _FeatureTable) -> pa.ChunkedArray:
    """The feature table's row for each row of the spine; null where nothing was known yet."""
    import duckdb

    event, created = _micros(feature.table, "event"), _micros(feature.table, "created")
    order = np.lexsort((created, event))
    versions = pa.table(
        {
            "key": feature.table[feature.key].take(pa.array(order)),
            "visible_us": np.maximum(event, created)[order],
            "version": np.arange(len(order)),
        }
    )
    asked = pa.table(
        {
            "key": spine[feature.key],
            "at_us": _micros(spine, "event"),
            "position": np.arange(len(spine)),
        }
    )
    with duckdb.connect() as connection:
        connection.register("versions", versions)
        connection.register("spine", asked)
        version = connection.sql(LATEST_KNOWN).to_arrow_table()["version"]
    return pa.chunked_array([pa.array(order)]).take(version)


def _outcome(spine: _Sessions, known: pa.Table, seed: int) -> Ints:
    """Draw who buys. The base never leaves 0.05 to 0.62, so that the effect is never cut off."""
    frame = known.to_pandas()
    appeal = pd.Series(CATEGORY_APPEAL, index=list(CATEGORIES))
    clicks = _known(frame["click_count"], 7.0)
    base = (
        -2.2
        + 0.09 * np.minimum(clicks, 16.0)
        + 0.10 * np.minimum(_known(frame["total_purchase_count"], 0.0), 8.0)
        - 0.25 * np.log1p(_known(frame["price"], MIDDLE_PRICE) / MIDDLE_PRICE)
        + appeal.reindex(frame["category"]).fillna(0.0).to_numpy()
    )
    chance = _sigmoid(np.clip(base, -2.9, 0.5)) + spine.treated * true_uplift(frame)
    return (_stream(seed, 6).random(len(chance)) < chance).astype(np.int64)


def _purchases(shop: _Shop, spine: _Sessions, known: pa.Table, outcome: Ints) -> pa.Table:
    """The sessions that ended in one, after those outside of the experiment (no session)."""
    won = pa.array(np.flatnonzero(outcome))
    listed = pa.array(shop.list_price).take(pa.array(spine.product))
    history = shop.history
    count = len(history) + len(won)
    return pa.table(
        {
            "purchase_id": _ids("buy", count, 7),
            "user_id": _both(
                shop.users["user_id"].take(history["user"]), spine.table["user_id"], won
            ),
            "product_id": _both(
                shop.products["product_id"].take(history["product"]), spine.table["product_id"], won
            ),
            "session_id": _both(
                pa.nulls(len(history), pa.string()), spine.table["session_id"], won
            ),
            "amount": _both(history["amount"], pc.coalesce(known["price"], listed), won),
            "event_timestamp": _timestamps(
                np.concatenate(
                    [history["at"].to_numpy(), spine.at[np.flatnonzero(outcome)] + MINUTE]
                )
            ),
        }
    )


def _with_last_word(early: pa.Table, spine: _Sessions, outcome: Ints, seed: int) -> pa.Table:
    """Add each session's final summary, written after the offer: it gives the outcome away."""
    draw = _stream(seed, 7)
    count = len(outcome)
    at = spine.at + draw.integers(MINUTE, 30 * MINUTE, count)
    clicks = 4 + draw.poisson(4.0, count) + 12 * outcome
    final = pa.table(
        {
            "session_id": spine.table["session_id"],
            "event_timestamp": _timestamps(at),
            "created_timestamp": _timestamps(at + draw.integers(0, MINUTE, count)),
            "time_on_page_seconds": np.round(40.0 + clicks * draw.uniform(10.0, 20.0, count), 1),
            "click_count": clicks,
        }
    )
    return pa.concat_tables([early, final])


def _stream(seed: int, part: int) -> np.random.Generator:
    """One independent stream per part: a change to one part leaves the others' values alone."""
    return np.random.default_rng([seed, part])


def _sigmoid(values: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-values))


def _shares(weights: Floats) -> Floats:
    return weights / weights.sum()


def _known(values: pd.Series, unknown: float) -> Floats:
    return values.astype("float64").fillna(unknown).to_numpy()


def _micros(table: pa.Table, which: str) -> Ints:
    return table[f"{which}_timestamp"].cast(pa.int64()).to_numpy()


def _timestamps(micros: Ints) -> pa.Array:
    return pa.array(micros).cast(TIMESTAMP)


def _names(names: Sequence[str], codes: Ints) -> pa.Array:
    return pa.array(names).take(pa.array(codes))


def _ids(prefix: str, count: int, width: int) -> pa.Array:
    numbers = pc.utf8_lpad(pa.array(np.arange(1, count + 1)).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, numbers, "-")


def _flat(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _both(before: Any, column: Any, won: pa.Array) -> pa.Array:
    return pa.concat_arrays([_flat(before), _flat(column.take(won))])
