"""Requests and answers of the hot routes: plain values between the edge and what answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from lodestar.interface.tracing import Span

__all__ = ["JSON", "Answer", "Handler", "Request", "Routes"]

JSON = b"application/json"


@dataclass(slots=True)
class Request:
    """One request whose body was read whole, within the limits, from a caller who may ask.

    `admin` says whether it may also change what is served. `span` is None where nothing is traced.
    """

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    request_id: str
    admin: bool = False
    query: bytes = b""
    span: Span | None = None


@dataclass(slots=True)
class Answer:
    """What goes back. `versions` names, for the log, the runs that made it."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()
    versions: Sequence[str] = field(default=())


# Raises ProblemError for what cannot be answered.
Handler: TypeAlias = Callable[[Request], Awaitable[Answer]]
# (method, path) → what answers it.
Routes: TypeAlias = Mapping[tuple[str, str], Handler]
