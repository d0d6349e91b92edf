"""The hot routes: keys in JSON in, predictions in JSON out."""

from typing import Any

import msgspec

from lodestar.serving.fleet import HasFleet, Lane
from lodestar.serving.http import Answer, Request
from lodestar.serving.prediction_log import PredictionLogger
from lodestar.serving.problems import ProblemError
from lodestar.serving.scoring import Row
from lodestar.serving.tracing import spanned
from lodestar.serving.version import RowAnswer

__all__ = ["BatchBody", "PredictionBody", "Predictor", "RowProblem"]


class PredictionBody(msgspec.Struct, omit_defaults=True):
    """What is said of one row, and by which artifact.

    Causal models: `uplift` is the prediction, and `recommended_action` treats where it is above 0.
    `degraded`: a policy of the recipe filled the features `missing` (unknown to the online store) or
    `stale` (older than their max_age).
    """

    prediction: Any
    run_id: str
    artifact_digest: str
    request_id: str = ""
    probabilities: dict[str, float] | None = None
    uplift: float | None = None
    recommended_action: str | None = None
    degraded: bool = False
    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


class RowProblem(msgspec.Struct):
    """A row of a batch that could not be answered, and why."""

    error: dict[str, Any]


class BatchBody(msgspec.Struct):
    """Per row, in the order asked, a PredictionBody or a RowProblem; `failed` counts the latter."""

    request_id: str
    rows: list[Any]
    failed: int


class Predictor:
    """Answers `POST /predict` and `POST /predict/batch`."""

    def __init__(
        self, served: HasFleet, *, most_rows: int, logger: PredictionLogger | None = None
    ) -> None:
        self._served = served
        self._logger = logger
        self._most_rows = most_rows
        self._encode = msgspec.json.Encoder().encode

    async def one(self, request: Request) -> Answer:
        """One row: `{field: value, …}`."""
        fleet = self._served.fleet
        takes = fleet.champion.version.request
        span = request.span
        if span is None or not span.recorded:
            row = takes.one(request.body)
        else:
            with span.child("parse"):
                row = spanned(takes.one(request.body), span)
        lane, reply = await fleet.ask(row)
        if isinstance(reply, ProblemError):
            raise reply
        if self._logger is not None:
            self._logger.add(lane.version, request.request_id, row, reply)
        body = said(lane, reply)
        body.request_id = request.request_id
        return Answer(self._encode(body), versions=(body.run_id,))

    async def many(self, request: Request) -> Answer:
        """Many rows: `{"rows": [{field: value, …}, …]}`."""
        fleet = self._served.fleet
        takes = fleet.champion.version.request
        span = request.span
        if span is None or not span.recorded:
            asked = takes.rows(request.body, most=self._most_rows)
        else:
            with span.child("parse"):
                asked = [
                    row if isinstance(row, ProblemError) else spanned(row, span)
                    for row in takes.rows(request.body, most=self._most_rows)
                ]
        good: list[Row] = [row for row in asked if not isinstance(row, ProblemError)]
        told = iter(await fleet.ask_all(good))
        rows: list[PredictionBody | RowProblem] = []
        versions: set[str] = set()
        for place, row in enumerate(asked):
            if isinstance(row, ProblemError):
                rows.append(RowProblem(row.plain(request.request_id)))
                continue
            lane, reply = next(told)
            versions.add(lane.version.run.run_id)
            if isinstance(reply, ProblemError):
                rows.append(RowProblem(reply.plain(request.request_id)))
                continue
            if self._logger is not None:
                self._logger.add(lane.version, request.request_id, row, reply, place=place)
            rows.append(said(lane, reply))
        failed = sum(isinstance(row, RowProblem) for row in rows)
        body = self._encode(BatchBody(request.request_id, rows, failed))
        return Answer(body, versions=sorted(versions))


def said(lane: Lane, reply: RowAnswer) -> PredictionBody:
    """A row's answer as it is sent, without the request's id."""
    version = lane.version
    body = PredictionBody(
        reply.prediction,
        version.run.run_id,
        version.run.digest,
        probabilities=reply.probabilities,
        degraded=reply.degraded,
        missing=reply.missing,
        stale=reply.stale,
    )
    target = version.contents.target
    if target.task == "causal":
        body.uplift = reply.prediction
        treats = reply.prediction > 0
        body.recommended_action = str(target.treatment_value) if treats else "no treatment"
    return body
