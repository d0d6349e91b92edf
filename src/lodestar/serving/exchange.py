"""One request on its way through the edge, and where its path leads."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lodestar.serving.http import Answer, Handler, Request

__all__ = ["UNKNOWN", "Exchange", "Route"]

UNKNOWN = "(unknown)"


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path: a hot handler, `at_once` without waiting, or the fallback application.

    `public`: without authentication, and while draining. `admin`: administrators alone. `page`: an HTML
    page, which may load its scripts. `counted`: it takes a place among those worked on at once.
    `traced`: it has a span, where requests have any.
    """

    template: str
    handler: Handler | None = None
    at_once: Callable[[], Answer] | None = None
    public: bool = False
    admin: bool = False
    page: bool = False
    counted: bool = True
    traced: bool = True


class Exchange:
    """A request, the answer that it may have got already, and what cut it short.

    `last`: the connection ends with its answer. `due` is when its answer is late, `began` when its
    headers had come (monotonic seconds).
    """

    __slots__ = (
        "answer",
        "began",
        "client",
        "cut",
        "due",
        "last",
        "request",
        "route",
        "size",
        "task",
        "template",
        "turn",
        "working",
    )

    def __init__(self, request: Request, route: Route, client: str, began: float) -> None:
        self.request = request
        self.route = route
        self.template = route.template
        self.client = client
        self.began = began
        self.due = began
        self.answer: Answer | None = None
        self.last = False
        self.size = 0
        self.turn: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self.working = False
        self.cut: Literal["late", "gone"] | None = None
