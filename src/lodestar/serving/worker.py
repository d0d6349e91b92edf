"""What uvicorn runs: the edge in front of the hot routes and the FastAPI application."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from lodestar.factory.alerts import Alerting
from lodestar.factory.environment import EnvironmentFactory
from lodestar.serving.access_log import Log
from lodestar.serving.alerting import ServedAlerts, ServedRole
from lodestar.serving.api import build_api
from lodestar.serving.deployment import Deployment
from lodestar.serving.drifting import SETTLE_SECONDS
from lodestar.serving.edge import Edge
from lodestar.serving.fleet import Fleet
from lodestar.serving.following import Following
from lodestar.serving.loading import VersionLoader
from lodestar.serving.order import ORDER, ServeOrder
from lodestar.serving.predict import Predictor
from lodestar.serving.prediction_log import PredictionLogger
from lodestar.serving.swaps import Swaps
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.tracing import RequestTraces
from lodestar.settings.loading import Environment

__all__ = ["Served", "app"]

# Of requests whose trace begins here, where neither the config nor OpenTelemetry's variables say.
SAMPLED = 0.1


class Served:
    """One worker's models, and what changes them."""

    def __init__(
        self,
        order: ServeOrder,
        environment: Environment,
        loader: VersionLoader,
        log: Log,
        logger: PredictionLogger | None = None,
        traces: RequestTraces | None = None,
    ) -> None:
        self.deployment = deployment = Deployment(order, environment, loader, log)
        self.swaps = swaps = Swaps(deployment, environment)
        self._log = log
        self._logger = logger
        self._traces = traces
        self._duties: list[Callable[[], Coroutine[Any, Any, None]]] = [deployment.keep_up]
        if environment.config.drift.enabled:
            self._duties.append(self._watch_drift)
        if environment.config.alerts.rules:
            self._duties.append(self._watch_alerts)
        self._environment = environment
        if order.follow is not None:
            shared = deployment.shared
            self._duties.append(Following(order.follow, environment, swaps, shared, log).run)

    @property
    def fleet(self) -> Fleet:
        """The models, once they are loaded."""
        return self.deployment.fleet

    async def _watch_drift(self) -> None:
        """Have a thread count and judge what was asked, until this is cancelled."""
        while True:
            await asyncio.sleep(SETTLE_SECONDS)
            for _, version in self.fleet.versions():
                if version.drift is not None:
                    try:
                        await asyncio.to_thread(
                            version.drift.settle, self.deployment.telemetry, version.run.run_id
                        )
                    except Exception as error:  # noqa: BLE001 -- an edge: the worker serves on without it
                        self._log.event("drift was not judged", level="error", error=error)

    async def _watch_alerts(self) -> None:
        """Judge the config's alert rules by what all workers answer, if no other worker does."""
        section, deployment = self._environment.config.alerts, self.deployment
        alerts = ServedAlerts(
            Alerting(self._environment),
            deployment.telemetry,
            self._log,
            seconds=section.check_seconds,
        )
        await alerts.run(deployment.shared.lead, self._roles)

    def _roles(self) -> list[ServedRole]:
        return [
            ServedRole(role, version.run.run_id, version.contents.recipe_name)
            for role, version in self.fleet.versions()
        ]

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Load before the first request, let go after the last."""
        del app
        await self.deployment.open()
        tasks = [asyncio.create_task(duty()) for duty in self._duties]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.deployment.close()
            if self._logger is not None:
                self._logger.close()
            if self._traces is not None and not await asyncio.to_thread(self._traces.close):
                self._log.event("traces were not delivered")
            self._log.close()


def app() -> Edge:
    """Make this worker's application from what the environment variable orders."""
    order = ServeOrder.from_json(os.environ[ORDER])
    environment = order.load_environment(os.environ)
    settings = environment.config.serving
    telemetry, log = Telemetry(), Log()
    loader = VersionLoader(
        EnvironmentFactory(environment),
        settings,
        telemetry,
        order.project,
        order.clock(),
        environment.config.drift,
        traced=environment.config.tracing.enabled,
    )
    most_rows, section = settings.limits.rows, settings.prediction_log
    logger = None
    if section is not None:
        folder = environment.project / section.folder
        logger = PredictionLogger(section, folder, telemetry, log)
    traces = _traces(environment)
    served = Served(order, environment, loader, log, logger, traces)
    predictor = Predictor(served, most_rows=most_rows, logger=logger)
    routes = {
        ("POST", "/predict"): predictor.one,
        ("POST", "/predict/batch"): predictor.many,
    }
    api = build_api(served, served.lifespan, limits=settings.limits)
    return Edge(routes, api, settings, telemetry, log, traces)


def _traces(environment: Environment) -> RequestTraces | None:
    """None where the config does not ask for them: OpenTelemetry is then not imported."""
    section = environment.config.tracing
    if not section.enabled:
        return None
    from lodestar.adapters.otlp import Traces

    return RequestTraces(Traces(section, share=SAMPLED, service="lodestar-serve"))
