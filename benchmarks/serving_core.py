"""Our core without our server: request model, online read, policies and scorer, for a peer to host."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lodestar.factory.environment import EnvironmentFactory
from lodestar.serving.loading import VersionLoader
from lodestar.serving.problems import ProblemError
from lodestar.serving.references import resolve
from lodestar.serving.state import ServedRun
from lodestar.serving.telemetry import Telemetry
from lodestar.settings.loading import load_config

__all__ = ["Core"]


class Core:
    """What `lodestar serve-api` answers with, on an event loop of its own."""

    def __init__(self, run_id: str) -> None:
        environment = load_config(Path.cwd(), os.environ["APP_ENV"], variables=os.environ)
        (run,) = resolve(environment, [run_id])
        factory = EnvironmentFactory(environment)
        serving = environment.config.serving
        loader = VersionLoader(factory, serving, Telemetry(), environment.project)
        self._version, _ = loader.load(ServedRun.of(run))
        self._loop = asyncio.new_event_loop()

    def answer(self, keys: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
        """One answer per entity, in order.

        Raises:
            ProblemError: one of them cannot be answered.
        """
        rows = [self._version.request.of_mapping(one) for one in keys]
        told = self._loop.run_until_complete(self._version.answer(rows))
        answers = []
        for reply in told:
            if isinstance(reply, ProblemError):
                raise reply
            answers.append({"prediction": reply.prediction, "probabilities": reply.probabilities})
        return answers
