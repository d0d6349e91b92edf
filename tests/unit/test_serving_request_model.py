"""JSON becomes rows only where it is exactly what the artifact's SQL says."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lodestar.schema import Column
from lodestar.serving.problems import ProblemError
from lodestar.serving.request_model import RequestField, RequestModel

SENT = "Geheimnis-4711"


def _field(name: str, kind: str, *, required: bool = True, nullable: bool = False) -> RequestField:
    return RequestField(Column(name, kind, nullable), required, nullable, key=kind == "string")


@pytest.fixture
def model() -> RequestModel:
    return RequestModel(
        [
            _field("user_id", "string"),
            _field("note", "string", required=False, nullable=True),
            _field("visits", "int"),
            _field("mean radius", "float", nullable=True),
            _field("known", "bool"),
            _field("since", "timestamp"),
            _field("day", "date"),
        ]
    )


def _body(**changed: object) -> dict[str, Any]:
    return {
        "user_id": "u-1",
        "visits": 3,
        "mean radius": 1,
        "known": True,
        "since": "1970-01-01T01:00:00.000001+01:00",
        "day": "1970-01-03",
        **changed,
    }


def _refused(model: RequestModel, body: bytes) -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        model.one(body)
    return caught.value


def test_a_row_has_the_order_of_the_sql_and_plain_values(model: RequestModel) -> None:
    row = model.one(json.dumps(_body()).encode())
    assert row == ("u-1", None, 3, 1.0, True, 1, 2)
    assert type(row[3]) is float


def test_null_is_taken_where_training_saw_nulls(model: RequestModel) -> None:
    assert model.one(json.dumps(_body(**{"mean radius": None})).encode())[3] is None


def test_a_time_before_1970_is_exact() -> None:
    model = RequestModel([_field("since", "timestamp")])
    (value,) = model.one(b'{"since": "1969-12-31T23:59:59.999999Z"}')
    assert value == -1
    assert datetime.fromtimestamp(value / 1e6, UTC).year == 1969


@pytest.mark.parametrize(
    ("changed", "field", "reason"),
    [
        ({"visits": SENT}, "visits", "whole number"),
        ({"visits": 1.5}, "visits", "whole number"),
        ({"visits": True}, "visits", "whole number"),
        ({"visits": 2**63}, "visits", "whole number"),
        ({"visits": int("9" * 400)}, "visits", "whole number"),
        ({"visits": None}, "visits", "must not be null"),
        ({"user_id": 17}, "user_id", "must be text"),
        ({"user_id": [SENT]}, "user_id", "must be text"),
        ({"known": "true"}, "known", "true or false"),
        ({"mean radius": "1.0"}, "mean radius", "must be a number"),
        ({"since": "2025-01-01T00:00:00"}, "since", "with its zone"),
        ({"since": SENT}, "since", "with its zone"),
        ({"day": "2025-02-30"}, "day", "must be a date"),
        ({"usr_id": SENT}, "usr_id", "no field of this model; it has: user_id, note"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not(
    model: RequestModel, changed: dict[str, Any], field: str, reason: str
) -> None:
    problem = _refused(model, json.dumps(_body(**changed)).encode())
    assert problem.status == 422
    assert [item.field for item in problem.fields] == [field]
    assert reason in problem.fields[0].reason
    assert SENT not in json.dumps(problem.plain("id"))


def test_every_wrong_field_is_named_at_once(model: RequestModel) -> None:
    problem = _refused(model, b'{"visits": "x", "known": 1, "other": 2}')
    assert [item.field for item in problem.fields] == [
        *("user_id", "visits", "mean radius", "known", "since", "day", "other")
    ]


def test_a_name_that_was_sent_comes_back_short_and_printable(model: RequestModel) -> None:
    problem = _refused(model, json.dumps(_body(**{"\x1b[31m\r\n" + "x" * 500: 1})).encode())
    (shown,) = [item.field for item in problem.fields]
    assert len(shown) <= 65
    assert shown.isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"user_id": "\\ud800"}',
        b'{"user_id": NaN}',
        b'{"user_id": "\xff"}',
        b"{'user_id': 1}",
        b'{"other": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_no_json_is_a_400(model: RequestModel, body: bytes) -> None:
    assert _refused(model, body).status == 400


@pytest.mark.parametrize("body", [b"[]", b"7", b'"x"', b"null"])
def test_json_that_is_no_object_is_a_422(model: RequestModel, body: bytes) -> None:
    assert _refused(model, body).status == 422


@pytest.mark.parametrize("again", ['"visits": 4', '"visit\\u0073": 4'])
def test_a_field_that_stands_twice_is_refused(model: RequestModel, again: str) -> None:
    body = json.dumps(_body()).removesuffix("}") + f", {again}}}"
    problem = _refused(model, body.encode())
    assert [(item.field, item.reason) for item in problem.fields] == [("visits", "stands twice")]


def test_a_name_within_a_value_is_no_second_field(model: RequestModel) -> None:
    row = model.one(json.dumps(_body(user_id='"visits"', note='\\"visits": 1')).encode())
    assert row[:2] == ('"visits"', '\\"visits": 1')


def test_rows_of_a_batch_keep_their_places_and_their_problems(model: RequestModel) -> None:
    good, bad = _body(user_id="u-2"), _body(visits="x")
    found = model.rows(json.dumps({"rows": [good, bad, good]}).encode(), most=3)
    assert [isinstance(row, ProblemError) for row in found] == [False, True, False]
    assert found[0] == found[2] == model.one(json.dumps(good).encode())


@pytest.mark.parametrize("body", ['{"row": []}', '{"rows": {}}', "[]", '{"rows": [], "x": 1}'])
def test_a_batch_is_one_list_of_rows(model: RequestModel, body: str) -> None:
    with pytest.raises(ProblemError) as caught:
        model.rows(body.encode(), most=10)
    assert caught.value.status == 422


@pytest.mark.parametrize("row", [_body(), {"visits": "x"}])
def test_a_batch_of_too_many_rows_is_a_413(model: RequestModel, row: dict[str, Any]) -> None:
    with pytest.raises(ProblemError) as caught:
        model.rows(json.dumps({"rows": [row] * 4}).encode(), most=3)
    assert caught.value.status == 413


def test_the_schema_shows_types_and_examples_that_the_model_takes(model: RequestModel) -> None:
    schema = model.json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {field.name for field in model.fields if field.required}
    assert schema["properties"]["visits"]["type"] == "integer"
    assert schema["properties"]["since"]["format"] == "date-time"
    assert model.one(json.dumps(schema["example"]).encode())[0] == "user_id-1"
