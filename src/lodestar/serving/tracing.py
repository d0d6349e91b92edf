"""A request's span, and which parts of answering it took how long.

Nothing of this is asked where tracing is off: requests have no span, and rows are plain ones.
"""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lodestar.interface.tracing import Span
from lodestar.serving.scoring import Row

if TYPE_CHECKING:
    from lodestar.adapters.otlp import Traces

__all__ = ["RequestTraces", "SpannedRow", "Stages", "spanned"]

SERVER_FAULT = 500
GONE = 499
SHUTDOWN_SECONDS = 2.0


class SpannedRow(tuple[Any, ...]):  # noqa: SLOT001 -- a tuple cannot have any
    """A row that knows the span of the request that asked it."""

    span: Span


def spanned(row: Row, span: Span) -> SpannedRow:
    """The same row."""
    made = SpannedRow(row)
    made.span = span
    return made


class Stages:
    """When the parts of a micro-batch began and ended (perf_counter); told to each request's span."""

    def __init__(self, began: float, read: float, scored: float, *, reads: bool) -> None:
        now, here = time.time_ns(), time.perf_counter()
        self._began, self._read, self._scored = (
            now - round((here - at) * 1e9) for at in (began, read, scored)
        )
        self._reads = reads

    def tell(self, rows: Iterable[Row]) -> None:
        """Give every recorded request among those asked together its parts."""
        asked: dict[int, tuple[Span, int]] = {}
        together = 0
        for row in rows:
            together += 1
            if isinstance(row, SpannedRow):
                span, count = asked.get(id(row.span), (row.span, 0))
                asked[id(row.span)] = span, count + 1
        for span, count in asked.values():
            said = {"lodestar.rows": count, "lodestar.batch_rows": together}
            if self._reads:
                span.part("read features", self._began, self._read, said)
            span.part("predict", self._read, self._scored, said)


class RequestTraces:
    """Begins and ends the spans of requests."""

    def __init__(self, traces: "Traces") -> None:
        self._traces = traces

    def begin(self, method: str, route: str, request_id: str, fields: "dict[bytes, bytes]") -> Span:
        """From its headers; a W3C traceparent of the client's is gone on with."""
        carrier = {
            name: value.decode("latin-1")
            for name in ("traceparent", "tracestate")
            if (value := fields.get(name.encode())) is not None
        }
        said = {
            "http.request.method": method,
            "http.route": route,
            "lodestar.request_id": request_id,
        }
        return self._traces.begin(f"{method} {route}", kind="server", carrier=carrier, said=said)

    @staticmethod
    def end(span: Span, route: str, status: int, versions: Sequence[str]) -> None:
        """With its answer."""
        if span.recorded:
            said: dict[str, str | float] = {
                "http.route": route,
                "http.response.status_code": status,
            }
            if versions:
                said["lodestar.run_id"] = ",".join(versions)
            span.say(said)
            if status >= SERVER_FAULT or status == GONE:
                span.fail(str(status))
        span.end()

    def close(self) -> bool:
        """Send what is left; whether all of it arrived."""
        return self._traces.close(seconds=SHUTDOWN_SECONDS)
