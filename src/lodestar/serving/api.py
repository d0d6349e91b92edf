"""The FastAPI application: the routes that need no hurry, and the OpenAPI document of all of them."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline

import lodestar
from lodestar.serving.admin import HasDeployment, add_administration, described_deployment
from lodestar.serving.api_problems import install_problem_handlers
from lodestar.serving.docs_page import add_docs_page
from lodestar.serving.documented import json_body
from lodestar.serving.explanations import add_explanations
from lodestar.serving.fleet import Fleet, HasFleet
from lodestar.serving.inference_v2 import add_inference_protocol
from lodestar.serving.metadata import described_version
from lodestar.serving.mlflow_protocol import add_mlflow_protocol
from lodestar.serving.predict import BatchBody, PredictionBody, RowProblem
from lodestar.settings.serving import Limits

__all__ = ["build_api"]

Lifespan: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]
COMPONENTS = "#/components/schemas/{name}"
PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "A stable name: urn:lodestar:problem:…"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {
                    "field": {"type": "string"},
                    "reason": {"type": "string"},
                    "row": {"type": "integer"},
                },
            },
        },
    },
}
# In the order of the page.
TAGS = [
    {"name": "predict", "description": "Rows in, predictions out."},
    {"name": "model", "description": "What is served."},
    {"name": "operations", "description": "For load balancers and Prometheus."},
    {"name": "MLflow", "description": "MLflow's scoring protocol, for its clients."},
    {"name": "Open Inference", "description": "The protocol's version 2 over JSON."},
    {"name": "administration", "description": "With an administrator's key."},
]
REFUSALS = {
    "400": "The body is no JSON.",
    "401": "No key, or one that is not known.",
    "403": "For administrators.",
    "404": "There is no such thing.",
    "408": "The request came too slowly.",
    "409": "Something else is on its way, or does not fit what is served.",
    "413": "More bytes or rows than the server takes.",
    "415": "The body is not application/json.",
    "422": "A field is missing, unknown or of the wrong type, or a feature has no usable value.",
    "503": "Overloaded, or the online store does not answer; see Retry-After.",
    "504": "The answer took too long.",
}


def build_api(served: HasDeployment, lifespan: Lifespan, *, limits: Limits) -> FastAPI:
    """Make the application; its lifespan loads the fleet, which every route then asks `served` for."""
    app = FastAPIOffline(
        title="Lodestar",
        version=lodestar.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=_refusals(),
    )
    install_problem_handlers(app)
    add_docs_page(app)

    @app.get("/metadata", summary="What the served models are", tags=["model"])
    async def metadata() -> dict[str, Any]:
        versions = served.fleet.versions()
        return {
            "versions": [described_version(version, role) for role, version in versions],
            "deployment": described_deployment(served.deployment),
        }

    add_administration(app, served)
    add_explanations(app, served)
    for add in (add_mlflow_protocol, add_inference_protocol):
        add(app, served, most_rows=limits.rows, version=lodestar.__version__)
    app.openapi = _document(app, served)  # type: ignore[method-assign]  # as FastAPI documents it
    return app


def _document(app: FastAPI, served: HasFleet) -> Callable[[], dict[str, Any]]:
    """Add the hot routes, which do not go through FastAPI, to its document."""

    def made() -> dict[str, Any]:
        fleet = served.fleet
        contents = fleet.champion.version.contents
        document = get_openapi(
            title=f"{contents.recipe_name}: {contents.target.task}",
            version=app.version,
            description=_description(fleet),
            routes=app.routes,
            tags=TAGS,
        )
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(_schemas(fleet))
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["paths"] = _hot_paths() | document["paths"]
        return document

    return made


def _schemas(fleet: Fleet) -> dict[str, Any]:
    """What the hot routes take and answer."""
    _, schemas = msgspec.json.schema_components(
        [PredictionBody, RowProblem, BatchBody], ref_template=COMPONENTS
    )
    schemas["PredictionRequest"] = fleet.champion.version.request.json_schema()
    schemas["BatchRequest"] = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {"rows": {"type": "array", "items": _reference("PredictionRequest")}},
    }
    schemas["Problem"] = PROBLEM
    schemas["RowProblem"]["properties"]["error"] = _reference("Problem")
    schemas["BatchBody"]["properties"]["rows"]["items"] = {
        "anyOf": [_reference("PredictionBody"), _reference("RowProblem")]
    }
    return schemas


def _hot_paths() -> dict[str, Any]:
    return {
        "/predict": _post("Predict one row", "PredictionRequest", "PredictionBody"),
        "/predict/batch": _post("Predict many rows", "BatchRequest", "BatchBody"),
        "/health/live": _health("operations", "The process runs"),
        "/health/ready": _health("operations", "It takes requests: loaded, verified, not draining"),
        "/ping": _health("MLflow", "It takes requests"),
        "/v2/health/live": _health("Open Inference", "The process runs"),
        "/v2/health/ready": _health("Open Inference", "It takes requests"),
        "/metrics": _metrics(),
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": COMPONENTS.format(name=name)}


def _refusals() -> dict[int | str, dict[str, Any]]:
    """Any route may answer these."""
    return {
        status: {
            "description": text,
            "content": {"application/problem+json": {"schema": _reference("Problem")}},
        }
        for status, text in REFUSALS.items()
    }


def _post(summary: str, request: str, answer: str) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "tags": ["predict"],
            "operationId": request,
            **json_body(_reference(request)),
            "responses": {
                "200": {
                    "description": "The answer.",
                    "content": {"application/json": {"schema": _reference(answer)}},
                },
                **_refusals(),
            },
        }
    }


def _health(tag: str, summary: str) -> dict[str, Any]:
    words = {"200": "Yes.", "503": "No."}
    return {
        "get": {
            "summary": summary,
            "tags": [tag],
            "responses": {status: {"description": text} for status, text in words.items()},
        }
    }


def _metrics() -> dict[str, Any]:
    return {
        "get": {
            "summary": "Counters and histograms for Prometheus",
            "tags": ["operations"],
            "responses": {
                "200": {
                    "description": "The text format.",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                }
            },
        }
    }


def _description(fleet: Fleet) -> str:
    version = fleet.champion.version
    fields = ", ".join(f"`{field.name}`" for field in version.request.fields)
    return (
        f"Served by Lodestar from run `{version.run.run_id}` ({version.run.run_name}). "
        f"A request has the fields {fields}; features are looked up in the online store."
    )
