"""A real OTLP receiver on 127.0.0.1: takes HTTP, decodes the protobuf, keeps spans."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.local_servers import answering

__all__ = ["Receiver", "Seen", "receiver"]


@dataclass(frozen=True)
class Seen:
    """One span as it arrived."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent: str
    began: int
    ended: int
    failed: bool
    said: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Receiver:
    """What came, in order; `status` is what is answered."""

    port: int = 0
    status: int = 200
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    spans: list[Seen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def children(self, of: Seen) -> list[str]:
        """Names of the parts of a span, by when they began."""
        parts = [span for span in self.spans if span.parent == of.span_id]
        return [span.name for span in sorted(parts, key=lambda span: span.began)]


@contextmanager
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            found.paths.append(self.path)
            found.headers.append({name.lower(): value for name, value in self.headers.items()})
            if found.status == 200:
                found.spans += _decoded(body)
            said = ExportTraceServiceResponse().SerializeToString()
            self.send_response(found.status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as it is called there
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.port = server.server_address[1]
    with answering(server):
        yield found


def _decoded(body: bytes) -> list[Seen]:
    return [
        Seen(
            span.name,
            span.kind,
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code == span.status.STATUS_CODE_ERROR,
            _said(span.attributes),
            _said(of.resource.attributes),
        )
        for of in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in of.scope_spans
        for span in scope.spans
    ]


def _said(attributes: Any) -> dict[str, Any]:  # noqa: ANN401 -- protobuf's
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
