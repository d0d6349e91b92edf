"""Which rows are refused: exactly those that the artifact does not take."""

import math
from typing import Any

import numpy as np
import pytest
from tests.planning import LGBM_VALUE, XGB_BINARY, Model, artifact

from lodestar.core.preprocessor import SimpleScaler
from lodestar.errors import DataError
from lodestar.schema import Column, FrameSchema
from lodestar.serving.plan.encoding import encoder_of
from lodestar.serving.plan.generic import batch_of
from lodestar.serving.plan.refusals import RowCheck
from lodestar.serving.scoring import RowRefusal

COLUMNS = FrameSchema(
    tuple(
        Column(f"{kind}{'?' * nullable}", kind, nullable)
        for kind in ("float", "int", "bool", "string", "date", "timestamp")
        for nullable in (False, True)
    )
)
FINE: dict[str, Any] = {
    "float": 1.5,
    "int": 7,
    "bool": True,
    "string": "a",
    "date": 20_000,
    "timestamp": 1_741_000_000_000_001,
}


def refused(column: str, value: object) -> RowRefusal | None:
    """What is said of a row in which one column has this value and all others are fine."""
    row = tuple(
        value if item.name == column else FINE[item.name.rstrip("?")] for item in COLUMNS.columns
    )
    return RowCheck(COLUMNS).refusal(row)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("float", 0),
        ("float", 2**53),
        ("float", True),
        ("float", -0.0),
        ("float", 1.7976931348623157e308),
        ("float?", math.nan),
        ("int", 2**63 - 1),
        ("int", -(2**63)),
        ("int", 3.0),
        ("int", -(2.0**63)),
        ("int", False),
        ("bool", False),
        ("string", ""),
        ("string", "日本\x00語"),
        ("date", -(2**31)),
        ("timestamp", -(2**63)),
        *[(f"{kind}?", None) for kind in FINE],
    ],
)
def test_what_training_could_have_seen_is_taken(column: str, value: object) -> None:
    assert refused(column, value) is None


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        *[(kind, None, "is null, and training saw no null") for kind in FINE],
        ("float", math.nan, "is NaN, and training saw none"),
        ("float", math.inf, "is infinite"),
        ("float?", -math.inf, "is infinite"),
        ("float", 2**53 + 1, "is a whole number too large to be exact as float"),
        ("float", "1.5", "is no number"),
        ("int", 1.5, "is not a whole number of 64 bits"),
        ("int?", math.nan, "is not a whole number of 64 bits"),
        ("int", math.inf, "is not a whole number of 64 bits"),
        ("int", 2.0**63, "is not a whole number of 64 bits"),
        ("int", 2**63, "is not a whole number of 64 bits"),
        ("int", 10**400, "is not a whole number of 64 bits"),
        ("int", "7", "is no number"),
        ("bool", 1, "is neither true nor false"),
        ("bool", "true", "is neither true nor false"),
        ("string", 5, "is no text"),
        ("string", "\ud800", "is text that is no Unicode"),
        ("date", 2**31, "is no date"),
        ("date", 1.0, "is no date"),
        ("timestamp", 2**63, "is no timestamp"),
        ("timestamp", True, "is no timestamp"),
    ],
)
def test_what_training_could_not_have_seen_is_refused_with_its_column(
    column: str, value: object, reason: str
) -> None:
    assert refused(column, value) == RowRefusal(column, reason)


def test_the_first_column_that_is_wrong_is_named() -> None:
    row = [None] * len(COLUMNS.columns)
    assert RowCheck(COLUMNS).refusal(row) == RowRefusal(
        "float", "is null, and training saw no null"
    )


@pytest.mark.parametrize("model", [XGB_BINARY, LGBM_VALUE])
@pytest.mark.parametrize("criterion", [None, "device"])
def test_a_number_is_refused_from_just_where_scaling_it_overflows(
    model: Model, criterion: str | None
) -> None:
    served = artifact(*model, criterion)
    fitted = served.wrapper.fitted
    assert isinstance(fitted.preprocessor, SimpleScaler)
    check = RowCheck(
        served.schema, encoder_of(fitted.preprocessor, served.schema, fitted.family.dtype)
    )
    at = served.schema.names.index("score")
    taken = set()
    for row in served.rows[:6]:
        for sign in (1.0, -1.0):
            low, high = 0.0, float(np.finfo(np.float64).max)
            while low < (middle := low + (high - low) / 2) < high:
                given = (*row[:at], sign * middle, *row[at + 1 :])
                low, high = (low, middle) if check.refusal(given) else (middle, high)
            assert served.bits([(*row[:at], sign * low, *row[at + 1 :])])
            last = (*row[:at], sign * high, *row[at + 1 :])
            if check.refusal(last) is None:
                continue  # a deviation of more than 1: the largest float can be scaled
            assert check.refusal(last) == RowRefusal("score", "is too large to be scaled")
            with pytest.raises(DataError, match="too large to be scaled"):
                served.wrapper.score(batch_of(served.schema, [last]))
            taken.add(low)
    assert (len(taken) > 1) == (criterion is not None)
