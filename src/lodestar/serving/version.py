"""One artifact, loaded and ready to answer: request model, features, policies, scorer."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from lodestar.artifact.contents import ArtifactContents
from lodestar.artifact.register import OpenedRun
from lodestar.core.policies import RowPolicies
from lodestar.core.results import Predictions
from lodestar.errors import DataError, ExternalError
from lodestar.interface.features import OnlineReader
from lodestar.serving.drifting import DriftWindows
from lodestar.serving.problems import FieldProblem, ProblemError
from lodestar.serving.request_model import RequestModel
from lodestar.serving.scoring import Row, RowScorer
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.tracing import Stages

__all__ = ["Parts", "RowAnswer", "ServedVersion"]

RETRY = ((b"retry-after", b"1"),)


@dataclass(frozen=True, slots=True)
class RowAnswer:
    """What the model says of one row. `value` is a number to watch: see `ServedVersion`."""

    prediction: Any
    probabilities: dict[str, float] | None
    value: float
    inputs: Row
    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def degraded(self) -> bool:
        """Whether a policy filled a feature that was missing or stale."""
        return bool(self.missing or self.stale)


@dataclass(frozen=True)
class Parts:
    """What a version is put together from.

    `degrade`: where the online store does not answer, the policies for missing features decide. `drift`
    compares what is asked with the training; None where that is off, or the artifact has no sketches.
    `traced`: rows may know the span of their request.
    """

    request: RequestModel
    scorer: RowScorer
    reader: OnlineReader | None
    policies: RowPolicies | None
    degrade: bool
    drift: DriftWindows | None = None
    traced: bool = False


class ServedVersion:
    """Answers rows of its request model, many at a time.

    The number that is watched for drift is the probability of the last (the positive) class, and the
    prediction itself where there are no probabilities.
    """

    def __init__(
        self,
        run: OpenedRun,
        contents: ArtifactContents,
        parts: Parts,
        telemetry: Telemetry,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.run = run
        self.contents = contents
        self.request = request = parts.request
        self.scorer = scorer = parts.scorer
        self._reader = reader = parts.reader
        self._policies = parts.policies
        self._degrade = parts.degrade
        self._traced = parts.traced
        self.drift = parts.drift
        self._telemetry = telemetry
        self._clock = clock
        selection = contents.augmenter_config_snapshot.get("features", ())
        self._features = tuple(name for item in selection for name in item["features"])
        self._event_times = tuple(_event_times(selection))
        self._keys = _picker([request.names.index(key) for key in (reader.keys if reader else ())])
        together = [*request.names, *self._features]
        self._inputs = _picker([together.index(name) for name in contents.roles.inputs])
        self._labels = tuple(map(str, contents.target.classes))
        # A model that scores slowly must not keep the loop from answering others.
        self._thread = ThreadPoolExecutor(1) if scorer.name == "generic" else None

    async def answer(self, rows: Sequence[Row]) -> list[RowAnswer | ProblemError]:
        """Score rows; what is wrong with one of them is a problem in its place.

        Raises:
            ProblemError: 503 where the online store does not answer, and the config says to refuse.
        """
        began = time.perf_counter()
        settled = await self._augmented(rows)
        read = time.perf_counter()
        replies: list[RowAnswer | ProblemError | None] = [None] * len(rows)
        good: list[int] = []
        for at, one in enumerate(settled):
            problem = one if isinstance(one, ProblemError) else self._refused(one.inputs)
            replies[at] = problem
            if problem is None:
                good.append(at)
        if good:
            told = await self._scored([settled[at] for at in good])  # type: ignore[misc]  # no problems
            for at, reply in zip(good, told, strict=True):
                replies[at] = reply
        self._telemetry.batch(len(rows))
        self._telemetry.stage("online", read - began)
        scored = time.perf_counter()
        self._telemetry.stage("score", scored - read)
        if self._traced:
            Stages(began, read, scored, reads=self._reader is not None).tell(rows)
        return replies  # type: ignore[return-value]  # every place was filled

    async def warm(self) -> None:
        """Ask the online store for an entity that nobody has, so that the first request waits less.

        Raises:
            ExternalError: it does not answer.
        """
        if self._reader is not None:
            examples = {field.name: field.example for field in self.request.fields}
            await self._reader.read([self._keys(self.request.of_mapping(examples))])

    async def close(self) -> None:
        """Let go of the online store and the thread."""
        if self._reader is not None:
            await self._reader.close()
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _augmented(self, rows: Sequence[Row]) -> "list[_Augmented | ProblemError]":
        if self._reader is None or self._policies is None:
            return [_Augmented(self._inputs(tuple(row))) for row in rows]
        try:
            found = await self._reader.read([self._keys(row) for row in rows])
        except ExternalError as error:
            self._telemetry.online_failed()
            if not self._degrade:
                raise ProblemError(
                    503,
                    "online-store-unavailable",
                    "The features cannot be read now.",
                    headers=RETRY,
                ) from error
            found = [self._policies.nothing] * len(rows)
        now = self._clock() // 1_000
        for namespace, place in self._event_times if found else ():
            if (happened := found[0][place]) is not None:
                self._telemetry.feature_age(namespace, (now - happened) / 1e6)
        settle = self._policies.settle
        out: list[_Augmented | ProblemError] = []
        for row, values in zip(rows, found, strict=True):
            one = settle(values, now)
            if one.missing or one.stale or one.refused:
                self._count(one.missing, one.stale)
            if one.refused:
                out.append(_lacking(one.refused))
            else:
                inputs = self._inputs((*row, *one.values))
                out.append(_Augmented(inputs, one.missing, one.stale))
        return out

    def _count(self, missing: tuple[str, ...], stale: tuple[str, ...]) -> None:
        for name in missing:
            self._telemetry.missing(name)
        for name in stale:
            self._telemetry.stale(name)

    def _refused(self, inputs: Row) -> ProblemError | None:
        refusal = self.scorer.refusal(inputs)
        if refusal is None:
            return None
        return _unscored([FieldProblem(refusal.column, refusal.reason)])

    async def _scored(self, rows: "Sequence[_Augmented]") -> list[RowAnswer | ProblemError]:
        inputs = [row.inputs for row in rows]
        try:
            if self._thread is None:
                scores = self.scorer.score(inputs)
            else:
                loop = asyncio.get_running_loop()
                scores = await loop.run_in_executor(self._thread, self.scorer.score, inputs)
        except DataError:
            if len(rows) == 1:
                return [_unscored()]
            return [(await self._scored([row]))[0] for row in rows]
        for column, count in scores.unknown.items():
            self._telemetry.unknown_categories(column, count)
        answers = self._answers(rows, scores.predictions)
        labels = [str(answer.prediction) for answer in answers] if self._labels else ()
        self._telemetry.predicted(self.run.run_id, [answer.value for answer in answers], labels)
        if self.drift is not None:
            self.drift.offer(answers)
        return list(answers)

    def _answers(self, rows: "Sequence[_Augmented]", made: Predictions) -> list[RowAnswer]:
        values = made.values.tolist()
        if not made.classes:
            return [
                RowAnswer(value, None, value, row.inputs, row.missing, row.stale)
                for row, value in zip(rows, values, strict=True)
            ]
        classes = made.classes
        if made.probabilities is None:
            return [
                RowAnswer(classes[at], None, float(at), row.inputs, row.missing, row.stale)
                for row, at in zip(rows, values, strict=True)
            ]
        labels = self._labels
        return [
            RowAnswer(
                classes[at],
                dict(zip(labels, shares, strict=True)),
                shares[-1],
                row.inputs,
                row.missing,
                row.stale,
            )
            for row, at, shares in zip(rows, values, made.probabilities.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Augmented:
    """The model's inputs of one row, and which of its features a policy filled."""

    inputs: Row
    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


def _event_times(selection: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    """Each namespace, and where its event time stands in what an online reader answers."""
    place = 0
    for item in selection:
        yield item["feature_namespace"], place
        place += 1 + len(item["features"])


def _picker(places: Sequence[int]) -> Callable[[Any], tuple[Any, ...]]:
    """Picks these places out of a tuple, as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda _: ()
    only = places[0]
    return lambda row: (row[only],)


def _lacking(names: Sequence[str]) -> ProblemError:
    return ProblemError(
        422,
        "feature-missing",
        "A feature that the model needs is missing or too old.",
        fields=[FieldProblem(name, "no usable value in the online store") for name in names],
    )


def _unscored(fields: Sequence[FieldProblem] = ()) -> ProblemError:
    return ProblemError(
        422, "invalid-value", "The model does not take a value of this row.", fields=fields
    )
