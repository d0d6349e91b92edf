"""What the API answers when it cannot do what it is asked: problem details (RFC 9457)."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

__all__ = ["PROBLEM", "FieldProblem", "ProblemError", "problem_body"]

PROBLEM = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Too slow",
    409: "Conflict",
    411: "Length required",
    413: "Too large",
    415: "Unsupported media type",
    422: "Not a valid request",
    429: "Too many requests",
    431: "Headers too large",
    500: "Internal error",
    503: "Not available",
    504: "Took too long",
}


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with a field of the request; never its value. `row` counts from 0 in a batch."""

    field: str
    reason: str
    row: int | None = None


class ProblemError(Exception):
    """Ends a request with a problem. `kind` is a stable slug for programs, `detail` is for people.

    Neither holds SQL, a path, a trace or what the client sent.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        fields: Sequence[FieldProblem] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.fields = tuple(fields)
        self.headers = tuple(headers)

    def plain(self, request_id: str) -> dict[str, object]:
        """The members of the problem document."""
        value: dict[str, object] = {
            "type": f"urn:lodestar:problem:{self.kind}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.fields:
            value["errors"] = [
                {"field": item.field, "reason": item.reason}
                | ({} if item.row is None else {"row": item.row})
                for item in self.fields
            ]
        return value


def problem_body(problem: ProblemError, request_id: str) -> bytes:
    """The problem document as JSON."""
    return msgspec.json.encode(problem.plain(request_id))
