"""How Feast lays features out in Redis, in bytes: read and written without importing Feast.

One hash per entity and project holds the features of all views under murmur3 hashes of
`view:feature`, each value as Feast's protobuf `Value`, and each view's event time under `_ts:view`.
The encodings are Feast's entity key serialization 3, which it documents as stable; the tests hold
them against Feast's own. Two things are ours: a timestamp is an int of µs, because Feast's own
timestamps are whole seconds; and `_created:view` says when the version was created.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import mmh3
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # its types are published apart
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]  # its types are published apart

from lodestar.adapters.online.columns import ColumnParsers
from lodestar.adapters.online.rows import EVENT, Entity
from lodestar.settings.features import FeatureView

__all__ = [
    "COLUMN_PARSERS",
    "PARSERS",
    "created_field",
    "entity_key",
    "entity_key_writer",
    "event_field",
    "feature_field",
    "field_of",
    "is_entity_key",
    "key_head",
    "time_bytes",
    "value_bytes",
]

STRING, INT64 = 2, 4  # Feast's ValueType
# Tags of the protobuf message Value: field number × 8 + wire type.
TEXT_TAG, INT32_TAG, INT64_TAG, DOUBLE_TAG, FLOAT_TAG, BOOL_TAG, SECONDS_TAG = (
    0x12, 0x18, 0x20, 0x29, 0x35, 0x38, 0x40,
)  # fmt: skip
MILLION = 1_000_000
ONE_BYTE = 0x80  # the first number that a varint needs two bytes for
SIGN, SPAN = 1 << 63, 1 << 64
_SIZE, _TEXT, _NUMBER = struct.Struct("<I"), struct.Struct("<II"), struct.Struct("<IIq")
_DOUBLE = struct.Struct("<Bd")


def entity_key(view: FeatureView, entity: Entity, project: str) -> bytes:
    """The Redis key of an entity's hash."""
    return entity_key_writer(view, project)(entity)


def entity_key_writer(view: FeatureView, project: str) -> Callable[[Entity], bytes]:
    """Makes the Redis keys of one view's entities."""
    names = sorted(view.keys)
    order = [view.keys.index(name) for name in names]
    head = key_head(names)
    tail = project.encode()

    def write(entity: Entity) -> bytes:
        parts = [head]
        for at in order:
            value = entity[at]
            parts.append(
                _NUMBER.pack(INT64, 8, value) if isinstance(value, int) else _sized(value.encode())
            )
        parts.append(tail)
        return b"".join(parts)

    return write


def key_head(names: Sequence[str]) -> bytes:
    """What the Redis keys of all entities with these key columns, sorted, begin with."""
    return _SIZE.pack(len(names)) + b"".join([_sized(name.encode()) for name in names])


def is_entity_key(key: bytes, names: Sequence[str], project: str) -> bool:
    """Whether a Redis key is one of an entity with these key columns, sorted, in this project."""
    head = key_head(names)
    if not key.startswith(head):
        return False
    at = len(head)
    for _ in names:
        if len(key) < at + _TEXT.size:
            return False
        at += _TEXT.size + _TEXT.unpack_from(key, at)[1]
    return key[at:] == project.encode()


def feature_field(view: FeatureView, feature: str) -> bytes:
    """The field of a feature in its entity's hash."""
    return field_of(view.namespace, feature)


def field_of(view: str, feature: str) -> bytes:
    """The same by the view's name."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def event_field(view: FeatureView) -> bytes:
    """The field of a view's event time."""
    return f"_ts:{view.namespace}".encode()


def created_field(view: FeatureView) -> bytes:
    """The field of when a view's version was created; Feast does not look at it."""
    return f"_created:{view.namespace}".encode()


def time_bytes(micros: int) -> bytes:
    """An event time as protobuf's Timestamp."""
    seconds, rest = divmod(micros, MILLION)
    return bytes(Timestamp(seconds=seconds, nanos=rest * 1000).SerializeToString())


def value_bytes(kind: str, value: Any) -> bytes:  # noqa: ANN401 -- of the feature's type
    """A feature's value as Feast's protobuf; null is an empty message."""
    return b"" if value is None else WRITERS[kind](value)


def _sized(text: bytes) -> bytes:
    return _TEXT.pack(STRING, len(text)) + text


def _varint(value: int) -> bytes:
    value %= SPAN  # two's complement
    found = bytearray()
    while value > 0x7F:  # noqa: PLR2004 -- seven bits per byte
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(start, len(data)):
        value |= (data[position] & 0x7F) << shift
        shift += 7
        if data[position] < 0x80:  # noqa: PLR2004 -- the last byte has no top bit
            return (value if value < SIGN else value - SPAN), position + 1
    raise ValueError("a number is cut off")


def _time(data: bytes) -> int:
    if data[:1] == b"\x08" and len(data) == 6:  # noqa: PLR2004 -- whole seconds of our days
        one, two, three, four, five = data[1:]
        if five < ONE_BYTE and one & two & three & four & ONE_BYTE:
            seconds = one & 127 | (two & 127) << 7 | (three & 127) << 14 | (four & 127) << 21
            return (seconds | five << 28) * MILLION
    try:
        time = Timestamp.FromString(data)
    except DecodeError as error:
        raise ValueError("no Timestamp") from error
    return int(time.seconds * MILLION + time.nanos // 1000)


def _int(data: bytes) -> int:
    if data[0] not in {INT64_TAG, INT32_TAG}:
        raise ValueError("no int")
    return _read_varint(data, 1)[0]


def _float(data: bytes) -> float:
    if data[0] == DOUBLE_TAG and len(data) == 9:  # noqa: PLR2004 -- tag and eight bytes
        return float(struct.unpack_from("<d", data, 1)[0])
    if data[0] == FLOAT_TAG and len(data) == 5:  # noqa: PLR2004 -- tag and four bytes
        return float(struct.unpack_from("<f", data, 1)[0])
    raise ValueError("no float")


def _bool(data: bytes) -> bool:
    if data[0] != BOOL_TAG:
        raise ValueError("no bool")
    return _read_varint(data, 1)[0] != 0


def _text(data: bytes) -> str:
    length, start = _read_varint(data, 1)
    if data[0] != TEXT_TAG or len(data) != start + length:
        raise ValueError("no text")
    return data[start:].decode()


def _moment(data: bytes) -> int:
    if data[0] == SECONDS_TAG:  # another's: Feast's own timestamps are whole seconds
        return _read_varint(data, 1)[0] * MILLION
    return _int(data)


def _or_null(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda data: parse(data) if data else None


def _text_bytes(value: str) -> bytes:
    content = value.encode()
    return bytes([TEXT_TAG]) + _varint(len(content)) + content


def _int_bytes(value: int) -> bytes:
    return bytes([INT64_TAG]) + _varint(value)


WRITERS: dict[str, Callable[[Any], bytes]] = {
    "bool": lambda value: bytes([BOOL_TAG, value]),
    "int": _int_bytes,
    "float": lambda value: bytes([DOUBLE_TAG]) + struct.pack("<d", value),
    "string": _text_bytes,
    "timestamp": _int_bytes,
}
PARSERS: dict[str, Callable[[bytes], Any]] = {
    EVENT: _time,
    "bool": _or_null(_bool),
    "int": _or_null(_int),
    "float": _or_null(_float),
    "string": _or_null(_text),
    "timestamp": _or_null(_moment),
}


def _doubles(column: Sequence[bytes]) -> Sequence[float | None]:
    if set(map(len, column)) != {_DOUBLE.size}:
        return [PARSERS["float"](value) for value in column]
    pairs = list(_DOUBLE.iter_unpack(b"".join(column)))
    if any(tag != DOUBLE_TAG for tag, _ in pairs):
        raise ValueError("no float")
    return [value for _, value in pairs]


def _texts(column: Sequence[bytes]) -> Sequence[str | None]:
    parse = PARSERS["string"]
    return [
        # What is short, as most texts are, without a call.
        value[2:].decode()
        if value and value[0] == TEXT_TAG and len(value) - 2 == value[1] < ONE_BYTE
        else parse(value)
        for value in column
    ]


def _whole_numbers(column: Sequence[bytes]) -> Sequence[int | None]:
    parse = PARSERS["int"]
    return [
        value[1]
        if len(value) == 2 and value[0] == INT64_TAG and value[1] < ONE_BYTE  # noqa: PLR2004 -- tag and one byte
        else parse(value)
        for value in column
    ]


COLUMN_PARSERS: ColumnParsers = {"float": _doubles, "string": _texts, "int": _whole_numbers}
