"""What a request must hold, read off the artifact's own SQL, and how its JSON becomes rows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, NoReturn

import msgspec

from lodestar.artifact.contents import ArtifactContents
from lodestar.schema import Column
from lodestar.serving.problems import FieldProblem, ProblemError
from lodestar.serving.scoring import Row
from lodestar.sql import parse_query

__all__ = ["RequestField", "RequestModel"]

WHOLE = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
MOMENT = Annotated[datetime, msgspec.Meta(tz=True)]
TYPES: dict[str, Any] = {
    "bool": bool,
    "int": WHOLE,
    "float": float,
    "string": str,
    "date": date,
    "timestamp": MOMENT,
}
REASONS = {
    "bool": "must be true or false",
    "int": "must be a whole number of at most 64 bits",
    "float": "must be a number",
    "string": "must be text",
    "date": "must be a date such as 2025-01-31",
    "timestamp": "must be a time with its zone, such as 2025-01-31T12:00:00Z",
}
EXAMPLES: dict[str, Any] = {
    "bool": True,
    "int": 1,
    "float": 0.5,
    "date": "2025-01-31",
    "timestamp": "2025-01-31T12:00:00Z",
}
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY = date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
MOST_PROBLEMS = 20
LONGEST_NAME = 64


@dataclass(frozen=True)
class RequestField:
    """One field: its type as in training, whether it must be there, and whether it may be null.

    `key`: it names an entity, and features are looked up by it; else the model takes it as it is.
    """

    column: Column
    required: bool
    nullable: bool
    key: bool

    @property
    def name(self) -> str:
        """As in the SQL."""
        return self.column.name

    @property
    def example(self) -> object:
        """A value of the right type; no row of anybody's data."""
        return EXAMPLES.get(self.column.type, f"{self.name}-1")


class RequestModel:
    """The fields of one row, in the order of the SQL; decodes JSON to tuples of plain values."""

    def __init__(self, fields: Sequence[RequestField]) -> None:
        self.fields = tuple(fields)
        self.names = tuple(field.name for field in self.fields)
        self._one = msgspec.json.Decoder(self._struct)
        self._rows = msgspec.json.Decoder(_body_of(list[self._struct]))  # type: ignore[name-defined]  # made at run time
        self._raw_rows = msgspec.json.Decoder(_body_of(list[msgspec.Raw]))
        self._timed = [
            at for at, field in enumerate(self.fields) if field.column.type in {"date", "timestamp"}
        ]
        self._quoted = [json.dumps(name, ensure_ascii=False).encode() for name in self.names]

    @classmethod
    def of(cls, contents: ArtifactContents, keys: Sequence[str], *, joined: bool) -> "RequestModel":
        """The columns of the top-level SELECT, less event timestamp, target and treatment.

        `keys` are the columns that features are looked up by. A column that neither they nor the model
        need may be left out. Where features are not `joined` here, clients send them too.
        """
        roles = contents.roles
        timestamp = contents.training_methodology["event_timestamp_col"]
        hidden = {timestamp, roles.timestamp, roles.target, roles.treatment}
        known = {column.name: column for column in contents.spine_schema.columns}
        return cls(
            [
                RequestField(
                    known[name],
                    required=name in roles.inputs or name in keys,
                    nullable=known[name].nullable or name not in {*roles.inputs, *keys},
                    key=name in keys or name in roles.entity_keys,
                )
                for name in (*_selected(contents), *(() if joined else _features(contents)))
                if name not in hidden
            ]
        )

    def ordered_as(self, other: "RequestModel") -> "RequestModel":
        """The same fields in the order of another model, where that has them all; else as it is."""
        if self.names == other.names or set(self.names) != set(other.names):
            return self
        return RequestModel(sorted(self.fields, key=lambda field: other.names.index(field.name)))

    @cached_property
    def _struct(self) -> type[msgspec.Struct]:
        inner = {f"f{at}": field for at, field in enumerate(self.fields)}
        required = [(name, _type_of(field)) for name, field in inner.items() if field.required]
        optional = [
            (name, _type_of(field), None) for name, field in inner.items() if not field.required
        ]
        return msgspec.defstruct(
            "PredictionRequest",
            [*required, *optional],
            rename={name: field.name for name, field in inner.items()},
            forbid_unknown_fields=True,
            kw_only=True,
            gc=False,
        )

    @cached_property
    def _values(self) -> Any:  # noqa: ANN401 -- an attrgetter's result has as many types
        names = [f"f{at}" for at in range(len(self.fields))]
        return lambda one: tuple([getattr(one, name) for name in names])

    def one(self, body: bytes) -> Row:
        """Read `{field: value, …}`.

        Raises:
            ProblemError: 400 where it is no JSON, 422 with every field that is wrong.
        """
        try:
            decoded = self._one.decode(body)
        except msgspec.ValidationError:
            self._refuse(_plain(body))
        except MALFORMED as error:
            raise _no_json() from error
        if self._may_repeat(body, 1):
            _refuse_twice(body)
        return self._row(decoded)

    def rows(self, body: bytes, *, most: int) -> list[Row | ProblemError]:
        """Read `{"rows": [{field: value, …}, …]}`; a row that is wrong is a problem in its place.

        Raises:
            ProblemError: 400 or 422 where it is no such body, 413 where it has more than `most` rows.
        """
        try:
            decoded: list[Any] = self._rows.decode(body).rows
        except msgspec.ValidationError:
            return self._one_by_one(body, most)
        except MALFORMED as error:
            raise _no_json() from error
        _refuse_many(len(decoded), most)
        if self._may_repeat(body, len(decoded)):
            _refuse_twice(body)
        return [self._row(one) for one in decoded]

    def of_mapping(self, value: Mapping[str, Any]) -> Row:
        """Read one row of plain values, as other protocols bring them.

        Raises:
            ProblemError: 422 with every field that is wrong.
        """
        try:
            decoded = msgspec.convert(dict(value), self._struct)
        except msgspec.ValidationError:
            self._refuse(value)
        return self._row(decoded)

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of one row, with examples."""
        (schema,), parts = msgspec.json.schema_components([self._struct], ref_template="{name}")
        made: dict[str, Any] = parts[schema["$ref"]]
        for field in self.fields:
            shown = made["properties"][field.name]
            shown["examples"] = [field.example]
            shown["description"] = (
                "entity key: features are looked up by it" if field.key else "taken by the model"
            )
        made["example"] = {field.name: field.example for field in self.fields if field.required}
        return made

    def _row(self, decoded: msgspec.Struct) -> Row:
        values: tuple[Any, ...] = self._values(decoded)
        if not self._timed:
            return values
        timed = list(values)
        for at in self._timed:
            if timed[at] is not None:
                timed[at] = _since_epoch(timed[at])
        return tuple(timed)

    def _one_by_one(self, body: bytes, most: int) -> list[Row | ProblemError]:
        try:
            raw = self._raw_rows.decode(body).rows
        except msgspec.ValidationError as error:
            raise ProblemError(
                422,
                "invalid-request",
                'The body must be an object with one field, "rows": a list of rows.',
            ) from error
        _refuse_many(len(raw), most)
        found: list[Row | ProblemError] = []
        for part in raw:
            try:
                found.append(self.one(bytes(part)))
            except ProblemError as problem:
                found.append(problem)
        return found

    def _may_repeat(self, body: bytes, rows: int) -> bool:
        """Whether a field may stand twice in a row: parsers differ in which of them they take."""
        return b"\\" in body or any(body.count(name) > rows for name in self._quoted)

    def _refuse(self, value: object) -> NoReturn:
        """Say every problem of a row that did not decode."""
        if not isinstance(value, Mapping):
            raise ProblemError(422, "invalid-request", "A row must be an object.")
        problems = [*self._missing_or_wrong(value), *self._unknown(value)]
        raise ProblemError(
            422,
            "invalid-request",
            "The request does not have the fields that this model takes.",
            fields=problems[:MOST_PROBLEMS],
        )

    def _missing_or_wrong(self, value: Mapping[str, Any]) -> list[FieldProblem]:
        problems = []
        for field in self.fields:
            if field.name not in value:
                if field.required:
                    problems.append(FieldProblem(field.name, "is missing"))
                continue
            given = value[field.name]
            if given is None:
                if not field.nullable:
                    problems.append(FieldProblem(field.name, "must not be null"))
                continue
            try:
                msgspec.convert(given, TYPES[field.column.type])
            except msgspec.ValidationError:
                problems.append(FieldProblem(field.name, REASONS[field.column.type]))
        return problems

    def _unknown(self, value: Mapping[str, Any]) -> list[FieldProblem]:
        known = ", ".join(self.names)
        return [
            FieldProblem(_shown(name), f"is no field of this model; it has: {known}")
            for name in value
            if name not in self.names
        ]


def _selected(contents: ArtifactContents) -> list[str]:
    """The spine's columns: those of the SELECT, or where a `*` hides them, those of training."""
    features = _features(contents)
    known = [name for name in contents.spine_schema.names if name not in features]
    if contents.loader_sql_snapshot is None:
        return known
    query = parse_query(
        contents.loader_sql_snapshot, contents.loader_dialect, where="loader_sql_snapshot"
    )
    names = query.columns()
    return known if names is None else [name for name in names if name in known]


def _features(contents: ArtifactContents) -> tuple[str, ...]:
    """What the feature store adds to the spine."""
    items = contents.augmenter_config_snapshot.get("features", ())
    return tuple(name for item in items for name in item["features"])


def _type_of(field: RequestField) -> Any:  # noqa: ANN401 -- a type, or a union with None
    kind = TYPES[field.column.type]
    return kind | None if field.nullable else kind


def _body_of(rows: Any) -> Any:  # noqa: ANN401 -- a type made at run time
    return msgspec.defstruct("BatchRequest", [("rows", rows)], forbid_unknown_fields=True)


def _plain(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except MALFORMED as error:
        raise _no_json() from error


def _no_json() -> ProblemError:
    return ProblemError(400, "malformed-json", "The body is not valid JSON in UTF-8.")


def _refuse_many(rows: int, most: int) -> None:
    if rows > most:
        raise ProblemError(
            413, "too-many-rows", f"A batch has at most {most:,} rows, and this one has {rows:,}."
        )


def _refuse_twice(body: bytes) -> None:
    """Look once more, slowly, whether a field really stands twice."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ProblemError(
                422,
                "invalid-request",
                "A field stands twice.",
                fields=[FieldProblem(_shown(name), "stands twice") for name in twice],
            )

    json.loads(body, object_pairs_hook=once)


def _shown(name: str) -> str:
    """A name that the client sent: short, and without control characters."""
    clean = "".join(char if char.isprintable() else "\ufffd" for char in name[:LONGEST_NAME])
    return clean + ("…" if len(name) > LONGEST_NAME else "")


def _since_epoch(value: datetime | date) -> int:
    """Whole µs of a time, days of a date."""
    if isinstance(value, datetime):
        return (value - EPOCH) // MICROSECOND
    return (value - FIRST_DAY).days
