"""A small application behind the real edge, and the process that serves it.

`python -m tests.serving_app`: the first argument is the serving section of a config in JSON. The
address comes on stdout.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from lodestar.errors import ArtifactError, DataError, ExternalError, LodestarError, SettingsError
from lodestar.serving import http
from lodestar.serving.access_log import Log
from lodestar.serving.api_problems import install_problem_handlers
from lodestar.serving.edge import Edge
from lodestar.serving.problems import FieldProblem, ProblemError
from lodestar.serving.server import serve
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.tracing import RequestTraces
from lodestar.settings.serving import Serving

__all__ = ["ORDER", "SECRET", "app", "made_edge"]

ORDER = "TEST_SERVING_SETTINGS"
# How the application fails when it starts: artifact, settings, bug, die, or not at all.
STARTS = "TEST_SERVING_STARTS"
SECRET = "/home/me/secret.sql"  # noqa: S105 -- stands for what no client may see

ERRORS: dict[str, Callable[[], BaseException]] = {
    "data": lambda: DataError("the rows are empty", where=SECRET),
    "external": lambda: ExternalError(f"cannot reach {SECRET}"),
    "lodestar": lambda: ArtifactError(f"tampered: {SECRET}"),
    "bug": lambda: ZeroDivisionError(SECRET),
    "recursion": lambda: RecursionError(SECRET),
    "cancelled": asyncio.CancelledError,
}


def failure(how: str) -> BaseException:
    """A fresh error of a kind."""
    return ERRORS[how]()


async def predict(request: http.Request) -> http.Answer:
    """Do what the body says, and answer how it was understood."""
    try:
        asked = msgspec.json.decode(request.body, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ProblemError(400, "not-json", "The body is no JSON.") from None
    does, seconds = asked.get("do"), float(str(asked.get("seconds", 0)))
    _tell(asked.get("begun"))
    if does in ERRORS:
        raise failure(str(does))
    if does == "problem":
        fields = [FieldProblem("age", "must be a number", row=3)]
        raise ProblemError(422, "invalid", "A field is wrong.", fields=fields)
    if does == "inject":
        return http.Answer(b"{}", headers=((b"x-y", b"1\r\nset-cookie: a=b"),))
    if does == "big":
        return http.Answer(b" " * int(seconds))
    if does == "die":
        os._exit(9)
    if does == "threads":
        return http.Answer(json.dumps(_threads()).encode())
    if does == "block":
        time.sleep(seconds)  # noqa: ASYNC251 -- a handler that blocks the loop is the test
    while does == "wait" and not _told(asked["until"]):  # noqa: ASYNC110 -- by another process
        await asyncio.sleep(0.02)
    await asyncio.sleep(seconds if does == "sleep" else 0)
    told: dict[str, object] = {
        "pid": os.getpid(),
        "bytes": len(request.body),
        "admin": request.admin,
    }
    told["headers"] = [name.decode() for name, _ in request.headers]
    return http.Answer(json.dumps(told).encode(), versions=("run-1",))


def _tell(path: object) -> None:
    """Leave a file for the test to see that this request is worked on."""
    if path is not None:
        Path(str(path)).touch()


def _told(path: object) -> bool:
    return Path(str(path)).exists()


def _threads() -> list[int]:
    """What OpenMP, BLAS and joblib would use here."""
    import ctypes

    import joblib
    import numpy as np
    import threadpoolctl  # type: ignore[import-untyped]  # has no types

    assert np.ones((2, 2)).sum() == 4  # BLAS is loaded with it
    # The one that scikit-learn brings: importing all of it takes long.
    (openmp,) = Path(joblib.__file__).parent.parent.glob("scikit_learn.libs/libgomp-*.so*")
    threads = int(ctypes.CDLL(str(openmp)).omp_get_max_threads())
    blas = [int(one["num_threads"]) for one in threadpoolctl.threadpool_info()]
    return [joblib.cpu_count(), threads, *blas]


def made_edge(settings: Serving, log: Log, traces: RequestTraces | None = None) -> Edge:
    """The edge in front of the hot route and a FastAPI application."""
    routes = {("POST", "/predict"): predict, ("POST", "/predict/batch"): predict}
    return Edge(routes, _fastapi(), settings, Telemetry(), log, traces)


def app() -> Edge:
    """What each worker makes."""
    settings = Serving.model_validate(json.loads(os.environ[ORDER]))
    return made_edge(settings, Log())


def _fastapi() -> FastAPI:
    api = FastAPI(lifespan=_lifespan)
    install_problem_handlers(api)

    @api.get("/items/{number}")
    async def item(number: int, request: Request, word: str = "") -> dict[str, object]:
        parent = request.headers.get("traceparent")
        state = {"id": request.state.request_id, "traceparent": parent}
        return {"number": number, "word": word, **state}

    @api.get("/fails/{how}")
    async def fails(how: str) -> None:
        raise failure(how)

    @api.get("/text")
    async def text() -> Response:
        return PlainTextResponse("é", headers={"server": "x", "x-own": "1"})

    @api.post("/admin/swap")
    async def swap(request: Request) -> dict[str, object]:
        return {"admin": request.state.admin, "body": (await request.body()).decode()}

    return api


@asynccontextmanager
async def _lifespan(api: FastAPI) -> AsyncIterator[None]:
    del api
    starts = os.environ.get(STARTS)
    if starts == "artifact":
        raise ArtifactError("the artifact was tampered with", hint="train again")
    if starts == "settings":
        raise SettingsError.one("no such key", where="base.yaml:3:key")
    if starts == "bug":
        raise ZeroDivisionError
    if starts == "die":
        os._exit(9)
    yield
    if starts == "never ends":
        await asyncio.sleep(3600)


def main() -> int:
    """As the command does: our errors are a line and an exit code."""
    settings = Serving.model_validate(json.loads(sys.argv[1]))
    environ = {ORDER: sys.argv[1]}

    def started(address: str) -> None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()

    try:
        return serve("tests.serving_app:app", settings, environ=environ, started=started)
    except LodestarError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
