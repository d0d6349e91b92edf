"""Values lie in DynamoDB as they were, to the bit, and entities under names of their own."""

import struct
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from hypothesis import given, settings
from hypothesis import strategies as st

from lodestar.adapters.dynamodb.layout import PARSERS, WATERMARK, WRITERS, TypedLayout, require_size
from lodestar.adapters.online.entities import entity_text
from lodestar.adapters.online.rows import EVENT, Version
from lodestar.errors import DataError, UsageError
from lodestar.settings.features import FeatureView
from lodestar.testing.online import CONTRACT_VIEWS

KINDS, PAIRS, WORDS, _ = CONTRACT_VIEWS
INTS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=30)


@settings(deadline=None)
@given(bits=st.integers(0, 2**64 - 1))
def test_every_float_comes_back_to_the_bit(bits: int) -> None:
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    back = PARSERS["float"](WRITERS["float"](value))
    if value != value:  # noqa: PLR0124 -- all NaN are one
        assert back != back  # noqa: PLR0124 -- as above
    else:
        assert struct.pack("<d", back) == struct.pack("<d", value)


@settings(deadline=None)
@given(whole=INTS, text=TEXTS, flag=st.booleans())
def test_every_other_value_comes_back_and_is_what_boto3_takes_it_for(
    whole: int, text: str, flag: bool
) -> None:
    read = TypeDeserializer().deserialize
    for kind, value in (("int", whole), ("timestamp", whole), ("string", text), ("bool", flag)):
        stored = WRITERS[kind](value)
        assert PARSERS[kind](stored) == value
        assert read(stored) == value
        assert PARSERS[kind]({"NULL": True}) is None


@given(whole=INTS)
def test_a_number_that_dynamodb_writes_in_another_way_is_the_same(whole: int) -> None:
    exact = Decimal(whole)
    for written in (f"{whole}", f"{exact:E}", f"{exact.normalize():f}", f"{whole}.0"):
        assert PARSERS["int"]({"N": written}) == whole


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("int", {"S": "1"}),
        ("int", {"N": "0.5"}),
        ("int", {"N": "1E+999999"}),
        ("int", {"N": str(2**63)}),
        ("int", {"N": "what"}),
        ("float", {"N": "1"}),
        ("float", {"S": "one"}),
        ("bool", {"N": "1"}),
        ("string", {"B": b"1"}),
        ("string", {"M": {}}),
        (EVENT, {"NULL": True}),
        (EVENT, {"S": "1"}),
    ],
)
def test_a_value_of_another_type_is_never_read_as_if_it_fitted(
    kind: str, stored: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"another type|no |64 bits|convert"):
        PARSERS[kind](stored)


@settings(deadline=None)
@given(entities=st.lists(st.tuples(TEXTS, INTS), min_size=2, max_size=20, unique=True))
def test_no_two_entities_share_a_name_and_none_is_the_watermarks(
    entities: list[tuple[str, int]],
) -> None:
    names = [entity_text(one) for one in entities] + [entity_text((one,)) for one, _ in entities]
    assert len({entity_text(one) for one in entities}) == len(entities)
    assert WATERMARK not in names
    assert "" not in names


@settings(deadline=None)
@given(event=INTS, created=st.none() | INTS, values=st.tuples(TEXTS | st.none()))
def test_a_version_comes_back_whole(
    event: int, created: int | None, values: tuple[str | None]
) -> None:
    layout = TypedLayout("x.")
    row = Version(("a", "b"), event, created, values)
    item = layout.item(WORDS, row, "a:b")
    assert layout.times(item) == (event, created)
    stored = layout.stored(("joined",), item)
    assert PARSERS[EVENT](stored[0]) == event
    assert PARSERS["string"](stored[1]) == values[0]


def test_the_largest_item_that_fits_is_let_through_and_a_byte_more_is_not() -> None:
    layout = TypedLayout("x.")

    def item(length: int) -> tuple[Any, int]:
        made = layout.item(WORDS, Version(("a", "b"), 7, None, ("x" * length,)), "a:b")
        names = len("@entity") + len("@event") + len("joined")
        return made, names + len("a:b") + 2 + length  # an event time of one digit has two bytes

    fits, size = item(1)
    require_size(WORDS, "a:b", item(400 * 1024 - size + 1)[0])
    assert fits
    with pytest.raises(DataError, match="409,601 bytes"):
        require_size(WORDS, "a:b", item(400 * 1024 - size + 2)[0])


def test_an_item_expires_in_the_second_after_its_ttl() -> None:
    view = FeatureView.model_validate(
        {**KINDS.model_dump(exclude_none=True), "ttl": timedelta(hours=1)}
    )
    nothing = (None,) * len(view.features)
    layout = TypedLayout("x.", "@expires")
    item = layout.item(view, Version(("a",), 1_000_000_500_000, None, nothing), "a")
    assert item["@expires"] == {"N": str(1_000_000 + 3_600 + 1)}
    assert "@expires" not in layout.item(KINDS, Version(("a",), 5, None, nothing), "a")


@pytest.mark.parametrize(("prefix", "namespace"), [("", "ab"), ("x" * 100, "y" * 156)])
def test_a_table_whose_name_dynamodb_does_not_take_is_refused(prefix: str, namespace: str) -> None:
    with pytest.raises(UsageError, match="3 to 255"):
        TypedLayout(prefix).table(namespace)
