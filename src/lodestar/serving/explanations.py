"""`POST /explain`: why the model says what it says of one row, where the model supports it.

Contributions come from the estimator itself, which the fast way of scoring does without: it is loaded
when the first explanation is asked for, in a thread.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from lodestar.artifact.wrapper import PyfuncWrapper, load_wrapper
from lodestar.core.explaining import Explanation, explain
from lodestar.serving.documented import json_body
from lodestar.serving.fleet import HasFleet, Lane
from lodestar.serving.plan.generic import batch_of
from lodestar.serving.problems import ProblemError
from lodestar.serving.scoring import Row
from lodestar.serving.version import RowAnswer

__all__ = ["add_explanations"]

BODY = json_body({"$ref": "#/components/schemas/PredictionRequest"})
# Versions whose estimators are kept: champion, challenger, and whoever is on the way in or out.
MOST_KEPT = 3


def add_explanations(app: FastAPI, served: HasFleet) -> None:
    """Add its route."""
    explainer = _Explainer()

    @app.post("/explain", tags=["predict"], summary="Explain one prediction", openapi_extra=BODY)
    async def explain_row(request: Request) -> Response:
        fleet = served.fleet
        row = fleet.champion.version.request.one(await request.body())
        lane, reply = await fleet.ask(row)
        if isinstance(reply, ProblemError):
            raise reply
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            explainer.thread, explainer.explained, lane, reply.inputs
        )
        if found is None:
            raise ProblemError(
                422, "not-explainable", "This kind of model gives no exact contributions."
            )
        body = _body(lane, reply, found) | {"request_id": request.state.request_id}
        return Response(msgspec.json.encode(body), media_type="application/json")


class _Explainer:
    """Keeps the estimators of the versions that were asked about."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._wrappers: dict[str, PyfuncWrapper] = {}

    def explained(self, lane: Lane, inputs: Row) -> Explanation | None:
        """Explain a row of model inputs; runs in the thread."""
        run = lane.version.run
        wrapper = self._wrappers.get(run.digest)
        if wrapper is None:
            wrapper, _ = load_wrapper(run.folder, digest=run.digest)
            while len(self._wrappers) >= MOST_KEPT:
                self._wrappers.pop(next(iter(self._wrappers)))
            self._wrappers[run.digest] = wrapper
        schema = wrapper.contents.feature_schema
        return explain(wrapper.fitted, schema.conform(batch_of(schema, [inputs])))


def _body(lane: Lane, reply: RowAnswer, found: Explanation) -> dict[str, Any]:
    return {
        "prediction": reply.prediction,
        "unit": found.unit,
        "label": found.label,
        "base": found.base,
        "contributions": found.contributions,
        "output": found.output,
        "run_id": lane.version.run.run_id,
        "artifact_digest": lane.version.run.digest,
    }
