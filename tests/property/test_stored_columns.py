"""Columns of stored values parse as each value does by itself, in both layouts, whatever lies there."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its types are published apart
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]  # its types are published apart
from hypothesis import given, settings
from tests.examples import examples

from lodestar.adapters.feast import layout as feast_layout
from lodestar.adapters.online import entities as names
from lodestar.adapters.online.columns import ColumnParsers
from lodestar.adapters.online.rows import EVENT, Parsers
from lodestar.adapters.redis import layout as redis_layout

SOME = settings(max_examples=examples(100))
WHOLE = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 300))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": WHOLE,
    "timestamp": WHOLE,
    "float": st.floats(),
    "string": st.text(max_size=200),
}
Write = Callable[[str, Any], bytes]
LAYOUTS: dict[str, tuple[Parsers, ColumnParsers, Write]] = {
    "direct": (
        redis_layout.PARSERS,
        redis_layout.COLUMN_PARSERS,
        lambda kind, value: redis_layout.WRITERS[kind](value).encode(),
    ),
    "feast": (feast_layout.PARSERS, feast_layout.COLUMN_PARSERS, feast_layout.value_bytes),
}
# Now and then something else lies there: nothing, another type's value, garbage.
STRANGE = st.one_of(
    st.just(b""),
    st.binary(max_size=12),
    st.sampled_from([b"9223372036854775808", b"-9223372036854775809", b"1" * 40, b"1.5", b"\\"]),
)


def outcome(parse: Callable[[], Sequence[Any]]) -> str:
    try:
        return repr(list(parse()))
    except ValueError:
        return "refused"


@pytest.mark.parametrize(
    ("layout", "kind"),
    [(name, kind) for name, parts in LAYOUTS.items() for kind in parts[1] if kind != EVENT],
)
@SOME
@given(data=st.data())
def test_a_column_is_parsed_as_its_values_are(layout: str, kind: str, data: st.DataObject) -> None:
    parsers, columns, write = LAYOUTS[layout]
    values = data.draw(st.lists(VALUES[kind], min_size=1, max_size=6))
    column = [write(kind, value) for value in values]
    assert repr(list(columns[kind](column))) == repr(values)
    for strange in data.draw(st.lists(STRANGE, max_size=2)):
        column.insert(data.draw(st.integers(0, len(column))), strange)
    parse = parsers[kind]
    assert outcome(lambda: columns[kind](column)) == outcome(lambda: [parse(v) for v in column])


@SOME
@given(st.integers(-(2**60), 2**60), st.one_of(st.none(), st.integers(-(2**60), 2**60)))
def test_an_event_time_in_text_is_what_stands_before_the_time_of_creation(
    event: int, created: int | None
) -> None:
    text = f"{event}" if created is None else f"{event} {created}"
    assert redis_layout.COLUMN_PARSERS[EVENT]([text.encode()]) == [event]


@SOME
@given(
    st.one_of(
        st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
        st.binary(max_size=14),
        st.binary(min_size=5, max_size=5).map(lambda rest: b"\x08" + rest),
    )
)
def test_feast_s_event_times_are_read_as_protobuf_reads_them(given_time: int | bytes) -> None:
    data = given_time if isinstance(given_time, bytes) else feast_layout.time_bytes(given_time)
    try:
        time = Timestamp.FromString(data)
        wanted = [time.seconds * 1_000_000 + time.nanos // 1000]
    except DecodeError:
        wanted = []
    said = outcome(lambda: [feast_layout.PARSERS[EVENT](data)])
    assert said == (repr(wanted) if wanted else "refused")
    if isinstance(given_time, int):
        assert wanted == [given_time]


@SOME
@given(st.lists(st.tuples(st.text(max_size=9), st.integers(-(2**63), 2**63 - 1)), min_size=1))
def test_no_two_entities_share_a_key(entities: list[tuple[str, int]]) -> None:
    from lodestar.settings.features import FeatureView

    view = FeatureView.model_validate(
        {
            "namespace": "n",
            "entity_keys": {"b": "string", "a": "int"},
            "source": {"table": "t"},
            "features": {"x": "int"},
        }
    )
    write = feast_layout.entity_key_writer(view, "shop")
    assert len({write(entity) for entity in entities}) == len(set(entities))
    assert len(set(names.entity_texts(entities))) == len(set(entities))
    texts = [(text,) for text, _ in entities]
    assert names.entity_texts(texts) == [names.entity_text(text).encode() for text in texts]
    ((text, number), *_) = entities
    assert write((text, number)).endswith(
        struct.pack("<IIq", 4, 8, number)
        + struct.pack("<II", 2, len(text.encode()))
        + text.encode()
        + b"shop"
    )
