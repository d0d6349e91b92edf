"""What administrators may do: bring in another champion, take it back, see what all workers serve."""

import asyncio
from dataclasses import asdict
from time import monotonic
from typing import Any, Protocol

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from lodestar.serving.deployment import Deployment
from lodestar.serving.desk import ADMIN_SECONDS
from lodestar.serving.fleet import HasFleet
from lodestar.serving.problems import ProblemError
from lodestar.serving.swaps import Swapped, Swaps

__all__ = ["HasDeployment", "add_administration", "described_deployment"]

LONGEST_REFERENCE = 310
ACCEPTED = 202
# The answer comes so long before the edge would say that it is late.
SPARE_SECONDS = 5.0


class HasDeployment(HasFleet, Protocol):
    """Whoever holds a worker's models and may change them."""

    @property
    def deployment(self) -> Deployment:
        """This worker's part in what all workers serve."""
        ...

    @property
    def swaps(self) -> Swaps:
        """What changes the champion of all workers."""
        ...


class SwapRequest(BaseModel):
    """Which run: its id, a prefix of it, or an alias."""

    model_config = ConfigDict(extra="forbid")

    run_id: str = Field(min_length=1, max_length=LONGEST_REFERENCE, examples=["champion"])


def add_administration(app: FastAPI, served: HasDeployment) -> None:
    """Add the routes; the edge lets administrators alone ask them."""
    under_way: set[asyncio.Task[Swapped]] = set()

    def ended(task: asyncio.Task[Swapped]) -> None:
        under_way.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ProblemError):
            served.deployment.log.event("swap failed", level="error", error=error)

    @app.post("/admin/swap", summary="Make another run the champion", tags=["administration"])
    async def swap(body: SwapRequest) -> Response:
        task = asyncio.get_running_loop().create_task(served.swaps.swap(body.run_id))
        under_way.add(task)
        task.add_done_callback(ended)
        await asyncio.wait({task}, timeout=ADMIN_SECONDS - SPARE_SECONDS)
        if not task.done():
            return JSONResponse({"swap": "under way", "state": "/admin/state"}, ACCEPTED)
        return JSONResponse(_said(task.result()))

    @app.post("/admin/rollback", summary="Take the champion back", tags=["administration"])
    async def rollback() -> dict[str, Any]:
        state = await served.swaps.roll_back()
        return {**state.champion.plain(), "generation": state.generation, "said": state.said}

    @app.get("/admin/state", summary="What all workers serve", tags=["administration"])
    async def state() -> dict[str, Any]:
        shared = served.deployment.shared
        return {
            **described_deployment(served.deployment),
            "swap_under_way": shared.is_swapping(),
            "workers": [
                {"process": process, "generation": generation}
                for process, generation in sorted(shared.generations().items())
            ],
        }


def described_deployment(deployment: Deployment) -> dict[str, Any]:
    """The champion's history, what this worker found when it watched it, and what its shadow said."""
    state, shadow, watch = deployment.shared.read(), deployment.fleet.shadow, deployment.watch
    return {
        "generation": state.generation,
        "cause": state.cause,
        "since": state.since,
        "champion": state.champion.plain(),
        "former": state.former.plain() if state.former else None,
        "rollback": {"reason": state.reason, "said": state.said} if state.reason else None,
        "refused": state.refused or None,
        "follows": deployment.follows,
        "traffic": deployment.traffic,
        "watch": None
        if watch is None
        else {
            "seconds_left": round(max(watch.ends - monotonic(), 0.0), 1),
            "windows": watch.windows,
            "last": None if watch.last is None else asdict(watch.last),
        },
        "shadow": None
        if shadow is None
        else {
            **shadow.compared.rows,
            "largest_difference": shadow.compared.largest_difference,
        },
    }


def _said(swapped: Swapped) -> dict[str, Any]:
    return {
        **swapped.run.plain(),
        "was": swapped.was.run_id,
        "generation": swapped.generation,
        "workers": {"all": swapped.workers, "answering_with_it": swapped.on_it},
    }
