"""Requests are judged by their headers and bytes, before anything parses them."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lodestar.serving.limits import check_headers, deeper_than
from lodestar.serving.problems import ProblemError

JSON = (b"content-type", b"application/json")
LEAVES = st.none() | st.booleans() | st.integers() | st.text(alphabet='ab[]{}"\\:,')
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=30,
)


def refused(*headers: tuple[bytes, bytes]) -> int:
    """The status that these headers get; 0 if they pass."""
    try:
        check_headers(headers, dict(headers), body_bytes=100)
    except ProblemError as problem:
        return problem.status
    return 0


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (b"0", 0),
        (b"100", 0),
        (b"101", 413),
        (b"9" * 400, 413),
        (b"-1", 400),
        (b"+1", 400),
        (b"1_0", 400),
        (b"0x10", 400),
        (b"", 400),
    ],
)
def test_a_body_too_long_is_refused_by_what_it_announces(length: bytes, status: int) -> None:
    assert refused((b"content-length", length), JSON) == status


@pytest.mark.parametrize(
    ("media", "status"),
    [
        (b"application/json", 0),
        (b"Application/JSON; charset=UTF-8", 0),
        (b'application/json;charset="utf-8"', 0),
        (b"application/vnd.api+json", 0),
        (b"application/json; charset=utf-16", 415),
        (b"application/x-www-form-urlencoded", 415),
        (b"text/json", 415),
        (b"image/svg+json", 415),
        (b"application/jsonx", 415),
        (b"", 415),
        (b";", 415),
    ],
)
def test_a_body_must_be_json_in_utf_8(media: bytes, status: int) -> None:
    assert refused((b"content-length", b"5"), (b"content-type", media)) == status


def test_a_request_without_body_needs_no_media_type() -> None:
    assert refused((b"host", b"x")) == 0
    assert refused((b"content-length", b"0"), (b"content-type", b"text/plain")) == 0


@pytest.mark.parametrize(
    ("coding", "status"), [(b"identity", 0), (b"gzip", 415), (b"br", 415), (b"identity, gzip", 415)]
)
def test_compressed_bodies_are_not_opened(coding: bytes, status: int) -> None:
    assert refused((b"content-length", b"5"), JSON, (b"content-encoding", coding)) == status


def test_a_chunked_body_may_not_be_encoded_otherwise_too() -> None:
    assert refused((b"transfer-encoding", b"Chunked"), JSON) == 0
    assert refused((b"transfer-encoding", b"gzip, chunked"), JSON) == 415
    assert refused((b"transfer-encoding", b"chunked"), (b"content-type", b"text/csv")) == 415


def test_headers_that_may_stand_once_stand_once() -> None:
    assert refused((b"host", b"a"), (b"host", b"a")) == 400
    assert refused((b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")) == 400
    assert refused((b"accept", b"a"), (b"accept", b"b")) == 0


@given(VALUES, st.integers(1, 6))
@example({"a": "]", "b": [["[", {"c": [{}]}]]}, 4)
@example(['\\"[', [[]]], 2)
@example(["\\", [[["]"]]]], 3)
def test_depth_is_what_a_parser_would_find(value: object, most: int) -> None:
    text = json.dumps(value).encode()
    assert deeper_than(text, most) == (depth_of(value) > most)


@given(st.binary(max_size=200) | st.text('[]{}"\\,:a1 ').map(str.encode), st.integers(1, 4))
def test_text_that_passes_is_not_deep_for_any_parser(text: bytes, most: int) -> None:
    if deeper_than(text, most):
        return
    try:
        value = json.loads(text)
    except (ValueError, UnicodeDecodeError):
        return
    assert depth_of(value) <= most


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"[}" * 20 + b"[" * 100_000,
        b"]" * 100_000 + b"[" * 17,
        b'["]",' * 100_000,
    ],
)
def test_bombs_are_seen_whether_they_are_well_formed_or_not(bomb: bytes) -> None:
    assert deeper_than(bomb, 16)


def test_many_rows_are_not_deep() -> None:
    assert not deeper_than(json.dumps({"rows": [{"a": 1, "b": "[["}] * 5_000}).encode(), 16)
