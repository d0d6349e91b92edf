"""What uvicorn runs: the edge in front of the hot routes and the FastAPI application."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from lodestar.factory.environment import EnvironmentFactory
from lodestar.serving.access_log import Log
from lodestar.serving.api import build_api
from lodestar.serving.edge import Edge
from lodestar.serving.fleet import Fleet, Lane
from lodestar.serving.loading import VersionLoader
from lodestar.serving.order import ORDER, ServeOrder
from lodestar.serving.predict import Predictor
from lodestar.serving.prediction_log import PredictionLogger
from lodestar.serving.telemetry import Telemetry

__all__ = ["Served", "app"]


class Served:
    """One worker's models, from the order that the server was started with."""

    def __init__(
        self,
        order: ServeOrder,
        loader: VersionLoader,
        log: Log,
        logger: PredictionLogger | None = None,
    ) -> None:
        self._order = order
        self._loader = loader
        self._log = log
        self._logger = logger
        self._fleet: Fleet | None = None

    @property
    def fleet(self) -> Fleet:
        """The models, once they are loaded; the edge lets no request in before."""
        if self._fleet is None:
            raise RuntimeError("asked before the models were loaded")
        return self._fleet

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Load before the first request, let go after the last."""
        del app
        self._fleet = fleet = Fleet(self._lane("champion"))
        try:
            yield
        finally:
            await fleet.close()
            if self._logger is not None:
                self._logger.close()
            self._log.close()

    def _lane(self, role: str) -> Lane:
        run = self._order.champion
        version, notes = self._loader.load(run)
        for note in notes:
            self._log.event(note, run_id=run.run_id, role=role)
        self._loader.telemetry.model(role, run.run_id, run.digest)
        return Lane.of(version, most=self._loader.settings.batching.rows)


def app() -> Edge:
    """Make this worker's application from what the environment variable orders."""
    order = ServeOrder.from_json(os.environ[ORDER])
    environment = order.load_environment(os.environ)
    settings = environment.config.serving
    telemetry, log = Telemetry(), Log()
    loader = VersionLoader(EnvironmentFactory(environment), settings, telemetry)
    most_rows, section = settings.limits.rows, settings.prediction_log
    logger = None
    if section is not None:
        folder = environment.project / section.folder
        logger = PredictionLogger(section, folder, telemetry, log)
    served = Served(order, loader, log, logger)
    predictor = Predictor(served, most_rows=most_rows, logger=logger)
    routes = {
        ("POST", "/predict"): predictor.one,
        ("POST", "/predict/batch"): predictor.many,
    }
    api = build_api(served, served.lifespan, most_rows=most_rows)
    return Edge(routes, api, settings, telemetry, log)
