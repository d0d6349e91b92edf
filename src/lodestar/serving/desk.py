"""Everything that holds for every request, whichever way it comes in and whatever answers it.

A request goes through `open` (headers), `begin` (body complete), `answer`, and `finish` (sent).
`protocol.py` takes it there from uvicorn, at little cost, and `edge.py` from any other server.
"""

import asyncio
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, Literal

from lodestar.serving.access_log import Log
from lodestar.serving.admission import Admission, FullError
from lodestar.serving.authentication import Gate
from lodestar.serving.deadlines import Deadlines
from lodestar.serving.exchange import UNKNOWN, Exchange, Route
from lodestar.serving.failures import RETRY, overloaded, problem_answer, problem_of
from lodestar.serving.fallback import App, replay
from lodestar.serving.http import JSON, Answer, Request, Routes
from lodestar.serving.limits import check_headers, deeper_than
from lodestar.serving.problems import ProblemError
from lodestar.serving.readiness import Readiness
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.tracing import RequestTraces
from lodestar.serving.wire import check_extra
from lodestar.settings.serving import Serving

__all__ = ["ADMIN_SECONDS", "Desk"]

SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch
# FastAPI's own, which do not tell their templates.
PAGES = {
    "/openapi.json": Route("/openapi.json"),
    **{path: Route(path, page=True) for path in ("/docs", "/redoc", "/docs/oauth2-redirect")},
}
# What load balancers ask, and what they are told.
LIVE = {"/health/live": b'{"status":"live"}', "/v2/health/live": b'{"live":true}'}
READY = {
    "/health/ready": b'{"status":"ready"}',
    "/v2/health/ready": b'{"ready":true}',
    "/ping": b"\n",
}
# How many bodies of the largest size are held at once, before more of them are turned away.
LARGEST_BODIES = 64
GONE = 499  # nginx's number for a client that did not wait; only in the log and the metrics
FORBIDDEN = (401, 403)
WITHOUT_TYPE = "/v2/"
ADMIN_SECONDS = 120.0  # an administrator waits until a model is loaded and tried

ELSEWHERE = Route(UNKNOWN)
ADMIN = Route(UNKNOWN, admin=True, counted=False)  # a rollback has to get through an overload


class Desk:
    """Answers hot routes itself and hands everything else to `fallback`, an ASGI application.

    Its own are `/metrics` and what load balancers ask, by our names for it, MLflow's and the Open
    Inference Protocol's: that needs no key, says nothing of what is served, and is answered while
    draining. Paths below `/admin/` are for administrators. `state` is what the application's lifespan
    gave for its requests.
    """

    def __init__(
        self,
        routes: Routes,
        fallback: App,
        settings: Serving,
        telemetry: Telemetry,
        log: Log,
        traces: RequestTraces | None = None,
    ) -> None:
        self.limits = limits = settings.limits
        self.telemetry = telemetry
        self.log = log
        self.readiness = Readiness()
        self.deadlines = Deadlines(limits)
        self.in_flight = 0
        self.held = 0
        self.most_held = LARGEST_BODIES * limits.body_bytes
        self.state: Mapping[str, Any] = {}
        self.fallback = fallback
        self._traces = traces
        self._gate = Gate(settings.authentication)
        self._admission = Admission(limits.concurrency, limits.queue, telemetry.queue)
        self._routes = self._all_routes(routes)
        self._other_methods = _other_methods(self._routes)
        self._id_prefix = os.urandom(6).hex()
        self._ids = itertools.count(1)

    def open(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        client: str,
    ) -> Exchange:
        """Look at a request's headers, whose names are in lower case; its body comes later.

        What is refused has its `answer` already; where it is also the `last`, the rest of the request
        is not worth reading.
        """
        fields = dict(headers)
        given = fields.get(b"x-request-id")
        request_id = given.decode() if given is not None and SAFE_ID(given) else self._fresh_id()
        route = self._routes.get((method, path)) or self._elsewhere(method, path)
        request = Request(method, path, headers, b"", request_id, False, query)  # noqa: FBT003 -- hot
        exchange = Exchange(request, route, client, monotonic())
        self.in_flight += 1
        if self._traces is not None and route.traced:
            request.span = self._traces.begin(method, route.template, request_id, fields)
        try:
            if not route.public:
                self._check_draining()
                request.admin = self._gate.admit(fields, admin=route.admin)
            named = not path.startswith(WITHOUT_TYPE)
            check_headers(headers, fields, body_bytes=self.limits.body_bytes, named=named)
        except ProblemError as problem:
            self.refuse(exchange, problem)
        return exchange

    def unreadable(self, problem: ProblemError, client: str) -> Exchange:
        """What stands for a request that could not be read as far as its headers' end."""
        request = Request("-", UNKNOWN, (), b"", self._fresh_id())
        exchange = Exchange(request, ELSEWHERE, client, monotonic())
        self.in_flight += 1
        self.refuse(exchange, problem)
        return exchange

    def refuse(self, exchange: Exchange, problem: ProblemError) -> None:
        """Answer with a problem, whatever else may still come of the request."""
        request_id = exchange.request.request_id
        exchange.answer = problem_answer(problem, request_id)
        exchange.last |= problem.status in {400, 408, 413, 431} or self.readiness.draining
        if problem.status in FORBIDDEN:
            self.log.event(
                "refused",
                status=problem.status,
                client=exchange.client,
                route=exchange.route.template,
                request_id=request_id,
            )

    def begin(self, exchange: Exchange) -> Answer | None:
        """The body is there: answer at once, or say (None) that `answer` has to be awaited."""
        route, request = exchange.route, exchange.request
        try:
            if route.at_once is not None:
                return route.at_once()
            if request.body and deeper_than(request.body, self.limits.depth):
                raise ProblemError(
                    422, "nested-too-deeply", f"JSON may be nested {self.limits.depth} deep."
                )
            if route.counted:
                exchange.turn = self._admission.ask()
        except ProblemError as problem:
            return problem_answer(problem, request.request_id)
        except FullError:
            self.telemetry.shed("queue")
            return problem_answer(overloaded(), request.request_id)
        seconds = ADMIN_SECONDS if route.admin else self.limits.answer_seconds
        exchange.due = monotonic() + seconds
        return None

    async def answer(self, exchange: Exchange) -> Answer:
        """Wait for a turn and let the route's handler answer; its failures are answers too."""
        if exchange.turn is not None and not await self._has_its_turn(exchange, exchange.turn):
            return self._cut_short(exchange)
        route, request = exchange.route, exchange.request
        exchange.working = True
        try:
            if route.handler is None:
                answer = await replay(self.fallback, exchange, self.state)
            else:
                answer = await route.handler(request)
            if request.span is not None:
                trace = (b"traceresponse", request.span.traceparent.encode())
                answer.headers = (*answer.headers, trace)
            if answer.headers:
                check_extra(answer.headers)
        except asyncio.CancelledError:
            return self._cut_short(exchange)
        except Exception as error:  # noqa: BLE001 -- an edge: every failure becomes a problem
            return self._failed(exchange, error)
        else:
            return answer
        finally:
            if route.counted:
                self._admission.leave()

    def cut(self, exchange: Exchange, why: Literal["late", "gone"]) -> bool:
        """End it before its time: its answer is late, or its client has gone.

        A handler that already works for a client that has gone is left to end by itself: what it asked
        for together with others is asked already. Returns whether anything was cut.
        """
        if exchange.cut is not None:
            return False
        if not exchange.working:
            if exchange.turn is None:
                return False
            exchange.cut = why
            self._admission.give_up(exchange.turn)
            return True
        if why == "gone" or exchange.task is None:
            return False
        exchange.cut = why
        return exchange.task.cancel()

    def finish(self, exchange: Exchange, answer: Answer, sent: int | None) -> None:
        """It was answered with so many bytes; None: there was nobody left to answer."""
        self.in_flight -= 1
        self.held -= exchange.size
        seconds = monotonic() - exchange.began
        status = GONE if sent is None else answer.status
        request = exchange.request
        self.telemetry.request(exchange.template, request.method, status, seconds)
        self.log.request(
            request.request_id,
            request.method,
            exchange.template,
            status,
            seconds,
            bytes_in=exchange.size,
            bytes_out=sent or 0,
            client=exchange.client,
            versions=answer.versions,
            trace_id=None if request.span is None else request.span.trace_id,
        )
        if request.span is not None:
            RequestTraces.end(request.span, exchange.template, status, answer.versions)

    async def _has_its_turn(self, exchange: Exchange, turn: "asyncio.Future[None]") -> bool:
        """Wait for it; False if something cut the wait short, and the turn is given up."""
        try:
            await turn
        except asyncio.CancelledError:
            if exchange.cut is None:  # the server cancels what runs
                self._admission.give_up(turn)
            return False
        return exchange.cut is None

    def _check_draining(self) -> None:
        if self.readiness.draining:
            self.telemetry.shed("draining")
            raise ProblemError(503, "draining", "The server is ending; ask another.", headers=RETRY)

    def _failed(self, exchange: Exchange, error: Exception) -> Answer:
        problem = problem_of(error)
        request_id = exchange.request.request_id
        if problem.status >= 500 and problem is not error:  # noqa: PLR2004 -- the server's own fault
            self.log.event(
                problem.kind,
                level="error",
                error=error,
                request_id=request_id,
                route=exchange.template,
            )
        return problem_answer(problem, request_id)

    def _cut_short(self, exchange: Exchange) -> Answer:
        """The answer of one that was cancelled."""
        task, request_id = asyncio.current_task(), exchange.request.request_id
        if exchange.cut == "gone":
            return Answer(b"", GONE)
        if exchange.cut == "late":
            problem = ProblemError(504, "too-slow", "The answer took too long.", headers=RETRY)
            self.telemetry.shed("deadline")
        elif self.readiness.draining:
            problem = ProblemError(503, "draining", "The server is ending.", headers=RETRY)
        elif task is not None and task.cancelling():
            raise asyncio.CancelledError
        else:
            return self._failed(exchange, RuntimeError("a handler was cancelled from within"))
        if task is not None and task.cancelling():
            task.uncancel()
        return problem_answer(problem, request_id)

    def _fresh_id(self) -> str:
        return f"{self._id_prefix}{next(self._ids):08x}"

    def _elsewhere(self, method: str, path: str) -> Route:
        others = self._other_methods.get(path)
        if others is not None:
            return others[method == "OPTIONS"]
        if path in PAGES:
            return PAGES[path]
        return ADMIN if path == "/admin" or path.startswith("/admin/") else ELSEWHERE

    def _all_routes(self, routes: Routes) -> dict[tuple[str, str], Route]:
        found = {("GET", "/metrics"): Route("/metrics", self._metrics, counted=False, traced=False)}
        for path, yes in LIVE.items():
            found["GET", path] = _probed(path, partial(_alive, yes))
        for path, yes in READY.items():
            found["GET", path] = _probed(path, partial(self._ready, yes))
        for (method, path), handler in routes.items():
            found[method, path] = Route(path, handler, admin=path.startswith("/admin/"))
        for (method, path), route in list(found.items()):
            if method == "GET":
                found.setdefault(("HEAD", path), route)
        return found

    def _ready(self, yes: bytes) -> Answer:
        if not self.readiness.ready:
            raise ProblemError(503, "not-ready", self.readiness.words, headers=RETRY)
        return Answer(yes, content_type=_type_of(yes))

    async def _metrics(self, request: Request) -> Answer:
        del request
        loop = asyncio.get_running_loop()
        body, media = await loop.run_in_executor(None, self.telemetry.render)
        return Answer(body, content_type=media.encode())


def _probed(path: str, at_once: Callable[[], Answer]) -> Route:
    """What load balancers ask, all the time."""
    return Route(path, at_once=at_once, public=True, traced=False)


def _alive(yes: bytes) -> Answer:
    return Answer(yes)


def _type_of(body: bytes) -> bytes:
    return JSON if body.startswith(b"{") else b"text/plain; charset=utf-8"


def _other_methods(routes: Mapping[tuple[str, str], Route]) -> dict[str, tuple[Route, Route]]:
    """Per path, what answers methods that it does not have, and what answers OPTIONS."""
    found = {}
    for path in {path for _, path in routes}:
        methods = sorted(method for method, its_path in routes if its_path == path)
        allow = ((b"allow", ", ".join([*methods, "OPTIONS"]).encode()),)
        public = routes[methods[0], path].public
        found[path] = (
            Route(path, at_once=partial(_not_with_this_method, allow), public=public),
            Route(path, at_once=partial(Answer, b"", 204, headers=allow), public=public),
        )
    return found


def _not_with_this_method(allow: Sequence[tuple[bytes, bytes]]) -> Answer:
    raise ProblemError(405, "method-not-allowed", "Not with this method.", headers=allow)
