"""The Open Inference Protocol, version 2, over REST: what KServe, Triton and their clients speak.

https://github.com/kserve/open-inference-protocol. Every column is a tensor of shape [n] or [n, 1];
the model's name is the recipe's, its version the run's id.
"""

from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from lodestar.serving.documented import json_body
from lodestar.serving.fleet import HasFleet
from lodestar.serving.problems import ProblemError
from lodestar.serving.tabular import answered, prediction_record
from lodestar.serving.version import ServedVersion

__all__ = ["add_inference_protocol"]

DATATYPES = {
    "bool": "BOOL",
    "int": "INT64",
    "float": "FP64",
    "string": "BYTES",
    "date": "BYTES",
    "timestamp": "BYTES",
}
NUMBERS = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}


class InputTensor(msgspec.Struct):
    """One column of the rows asked about."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """`POST /v2/models/<name>/infer`; `outputs` names which columns are wanted, all by default."""

    inputs: list[InputTensor]
    id: str = ""
    outputs: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {}


BODY = json_body(
    {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": {"type": "array", "items": {"type": "object"}}},
    }
)
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def add_inference_protocol(app: FastAPI, served: HasFleet, *, most_rows: int, version: str) -> None:
    """Add its routes but those below `/v2/health`, which load balancers ask without a key."""
    tags: list[Any] = ["Open Inference"]

    @app.get("/v2", tags=tags, summary="The server")
    async def server() -> dict[str, Any]:
        return {"name": "lodestar", "version": version, "extensions": []}

    @app.get("/v2/models/{name}", tags=tags, summary="A model's inputs and outputs")
    async def model(name: str) -> dict[str, Any]:
        return _described(_named(served, name))

    @app.get("/v2/models/{name}/ready", tags=tags, summary="A model takes requests")
    async def model_ready(name: str) -> dict[str, Any]:
        _named(served, name)
        return {"name": name, "ready": True}

    @app.post("/v2/models/{name}/infer", tags=tags, summary="Predict rows", openapi_extra=BODY)
    async def infer(name: str, request: Request) -> Response:
        _named(served, name)
        asked = _decoded(await request.body())
        replies = await answered(served.fleet, _records(asked.inputs), most=most_rows)
        records = [prediction_record(answer) for _, answer in replies]
        wanted = {str(output.get("name")) for output in asked.outputs}
        body = {
            "model_name": name,
            "model_version": replies[0][0].version.run.run_id,
            "id": asked.id or request.state.request_id,
            "outputs": [
                tensor for tensor in _tensors(records) if not wanted or tensor["name"] in wanted
            ],
        }
        return Response(msgspec.json.encode(body), media_type="application/json")


def _named(served: HasFleet, name: str) -> ServedVersion:
    version = served.fleet.champion.version
    if name != version.contents.recipe_name:
        raise ProblemError(404, "no-such-model", "There is no model of this name; see /metadata.")
    return version


def _described(version: ServedVersion) -> dict[str, Any]:
    outputs = [
        {"name": "prediction", "datatype": _datatype_of_target(version), "shape": [-1]},
        *[
            {"name": f"probability_{label}", "datatype": "FP64", "shape": [-1]}
            for label in version.contents.target.classes
        ],
    ]
    return {
        "name": version.contents.recipe_name,
        "versions": [version.run.run_id],
        "platform": "lodestar",
        "inputs": [
            {"name": field.name, "datatype": DATATYPES[field.column.type], "shape": [-1]}
            for field in version.request.fields
        ],
        "outputs": outputs,
    }


def _datatype_of_target(version: ServedVersion) -> str:
    classes = version.contents.target.classes
    return NUMBERS[type(classes[0])] if classes else "FP64"


def _decoded(body: bytes) -> InferRequest:
    try:
        asked = msgspec.json.decode(body, type=InferRequest)
    except msgspec.ValidationError as error:
        raise ProblemError(
            422,
            "invalid-request",
            "The body must have inputs: a list of {name, shape, datatype, data}.",
        ) from error
    except MALFORMED as error:
        raise ProblemError(400, "malformed-json", "The body is not valid JSON in UTF-8.") from error
    if not asked.inputs:
        raise ProblemError(422, "invalid-request", "There are no inputs.")
    return asked


def _records(tensors: list[InputTensor]) -> list[dict[str, Any]]:
    """Rows of columns."""
    rows = len(tensors[0].data)
    names = [tensor.name for tensor in tensors]
    for tensor in tensors:
        shape = tensor.shape[:1] if tensor.shape[1:] in ([], [1]) else []
        if shape != [rows] or len(tensor.data) != rows or not rows:
            raise ProblemError(
                422,
                "invalid-request",
                "Every input must have the shape [n] or [n, 1], with the same n, and n values.",
            )
    if len(set(names)) < len(names):
        raise ProblemError(422, "invalid-request", "An input stands twice.")
    columns = [[_flat(value) for value in tensor.data] for tensor in tensors]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _flat(value: object) -> object:
    """A value, also where each stands in a list of its own."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _tensors(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": [len(records)],
            "datatype": NUMBERS[type(records[0][name])],
            "data": [record[name] for record in records],
        }
        for name in records[0]
    ]
