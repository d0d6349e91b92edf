"""FastAPI's own refusals as the problems that the rest of the API speaks."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from lodestar.errors import LodestarError
from lodestar.serving.failures import problem_of
from lodestar.serving.problems import PROBLEM, FieldProblem, ProblemError, problem_body

__all__ = ["install_problem_handlers"]

FIELD_LETTERS = 100
NO_PATH = "There is no such path; /docs lists those that there are."
# The text of these is whatever a validator wrote.
FREE_TEXT = ("value_error", "assertion_error")


def install_problem_handlers(app: FastAPI) -> None:
    """Make every refusal of the application a problem document; none repeats a value.

    Also switches off the redirects that add or take a slash: they would echo the Host header.
    """
    app.router.redirect_slashes = False
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(LodestarError, _unless_ours)


async def _problem(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    return Response(
        problem_body(problem, request.state.request_id),
        problem.status,
        headers={name.decode(): value.decode() for name, value in problem.headers},
        media_type=PROBLEM,
    )


async def _unless_ours(request: Request, error: Exception) -> Response:
    """What is the server's own fault goes on to the edge, which logs it."""
    if problem_of(error).status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error
    return await _problem(request, error)


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    kind = phrase.lower().replace(" ", "-")
    given: object = error.detail  # FastAPI's own may have anything
    detail = given if isinstance(given, str) else phrase
    if (error.status_code, detail) == (HTTPStatus.NOT_FOUND, phrase):
        detail = NO_PATH
    headers = [(name.encode(), value.encode()) for name, value in (error.headers or {}).items()]
    return await _problem(request, ProblemError(error.status_code, kind, detail, headers=headers))


async def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [
        FieldProblem(
            ".".join(map(str, item["loc"]))[:FIELD_LETTERS],
            item["type"] if item["type"] in FREE_TEXT else item["msg"],
        )
        for item in error.errors()
    ]
    problem = ProblemError(422, "invalid-request", "The request does not fit.", fields=fields)
    return await _problem(request, problem)
