"""MLflow's scoring protocol, so that clients of `mlflow models serve` work as they are.

https://mlflow.org/docs/latest/ml/deployment: `POST /invocations` with `dataframe_split`,
`dataframe_records`, `inputs` or `instances`; `GET /ping` and `GET /version`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from lodestar.serving.documented import json_body
from lodestar.serving.fleet import HasFleet
from lodestar.serving.problems import ProblemError
from lodestar.serving.tabular import answered, prediction_record

__all__ = ["add_mlflow_protocol"]

Records = list[Mapping[str, Any]]
BODY = json_body(
    {
        "type": "object",
        "description": "One of the four, as MLflow takes them.",
        "properties": {
            "dataframe_split": {"type": "object"},
            "dataframe_records": {"type": "array", "items": {"type": "object"}},
            "inputs": {},
            "instances": {"type": "array"},
        },
    }
)


def add_mlflow_protocol(app: FastAPI, served: HasFleet, *, most_rows: int, version: str) -> None:
    """Add its routes but `/ping`, which load balancers ask without a key: that is the desk's."""

    @app.post("/invocations", tags=["MLflow"], summary="Predict rows", openapi_extra=BODY)
    async def invocations(request: Request) -> Response:
        records = records_of(await request.body())
        replies = await answered(served.fleet, records, most=most_rows)
        body = {"predictions": [prediction_record(answer) for _, answer in replies]}
        runs = sorted({lane.version.run.run_id for lane, _ in replies})
        return Response(
            msgspec.json.encode(body),
            media_type="application/json",
            headers={"x-run-id": ",".join(runs)},
        )

    @app.get("/version", tags=["MLflow"], summary="Its version", response_class=PlainTextResponse)
    async def lodestar_version() -> str:
        return version


def records_of(body: bytes) -> Records:
    """Rows of a request in one of MLflow's four forms.

    Raises:
        ProblemError: it is none of them.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, "malformed-json", "The body is not valid JSON in UTF-8.") from error
    forms = set(FORMS) & value.keys() if isinstance(value, dict) else set()
    if len(forms) != 1 or value.keys() - forms - {"params"}:
        raise _no_form()
    (form,) = forms
    records = FORMS[form](value[form])
    if records is None:
        raise _no_form()
    return records


def _no_form() -> ProblemError:
    return ProblemError(
        422,
        "invalid-request",
        "The body must have one of dataframe_split (columns and data), dataframe_records (a list of "
        "objects), inputs (lists by column) or instances (a list of objects).",
    )


def _of_split(value: object) -> Records | None:
    if not isinstance(value, dict):
        return None
    columns, data = value.get("columns", ()), value.get("data", ())
    if not _is_list_of(str, columns) or not _is_list_of(list, data):
        return None
    if any(len(row) != len(columns) for row in data):
        return None
    return [dict(zip(columns, row, strict=True)) for row in data]


def _of_records(value: object) -> Records | None:
    return value if isinstance(value, list) and _is_list_of(dict, value) else None


def _of_columns(value: object) -> Records | None:
    """Lists by column; also a list of objects, which MLflow takes as well."""
    if isinstance(value, list):
        return _of_records(value)
    if not isinstance(value, dict) or not value:
        return None
    columns = [one if isinstance(one, list) else [one] for one in value.values()]
    if len({len(column) for column in columns}) != 1:
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


FORMS: dict[str, Callable[[object], Records | None]] = {
    "dataframe_split": _of_split,
    "dataframe_records": _of_records,
    "inputs": _of_columns,
    "instances": _of_records,
}


def _is_list_of(kind: type, value: Sequence[object] | object) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)
