"""What a failure says to the client: little; the log has the rest."""

from lodestar.errors import DataError, ExternalError, LodestarError
from lodestar.serving.http import Answer
from lodestar.serving.problems import PROBLEM, ProblemError, problem_body

__all__ = ["RETRY", "overloaded", "problem_answer", "problem_of"]

RETRY = ((b"retry-after", b"1"),)
MEDIA = PROBLEM.encode()
# For whatever nobody foresaw; the request id leads to the log's trace.
SILENT = "Something went wrong here; the log has the rest under this request id."


def problem_of(error: Exception) -> ProblemError:
    """The problem that an error is to a client: our own words only where they were made for clients."""
    if isinstance(error, ProblemError):
        return error
    if isinstance(error, DataError):
        return ProblemError(422, "unusable-data", error.what)
    if isinstance(error, ExternalError):
        return ProblemError(
            503, "dependency-unavailable", "Something this needs does not answer.", headers=RETRY
        )
    kind = "failed" if isinstance(error, LodestarError) else "internal-error"
    return ProblemError(500, kind, SILENT)


def overloaded(detail: str = "More requests wait than may; try again.") -> ProblemError:
    """The refusal of a request that there is no room for."""
    return ProblemError(503, "overloaded", detail, headers=RETRY)


def problem_answer(problem: ProblemError, request_id: str) -> Answer:
    """A problem as an answer."""
    return Answer(problem_body(problem, request_id), problem.status, MEDIA, problem.headers)
