"""Traces by OpenTelemetry's SDK, sent in the background by OTLP over HTTP.

The provider is our own, not the process's global one: what other libraries (MLflow) trace goes where
they say.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import lodestar
from lodestar.errors import ExternalError
from lodestar.settings.tracing import Tracing

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )
    from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("opentelemetry"):
        raise
    raise ExternalError(
        f"traces need the Python package {error.name}, which is not installed",
        where="config:tracing.enabled",
        hint="pip install 'lodestar-ml[otel]'",
    ) from error

__all__ = ["OtelSpan", "Traces"]

PATH = "/v1/traces"
KINDS = {"server": SpanKind.SERVER, "internal": SpanKind.INTERNAL}
PROPAGATOR = TraceContextTextMapPropagator()
Said = str | float


class OtelSpan:
    """OpenTelemetry's span as our port has it."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        context = span.get_span_context()
        self.recorded = span.is_recording()
        self.trace_id = f"{context.trace_id:032x}"
        self.traceparent = (
            f"00-{self.trace_id}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        )

    @contextmanager
    def child(self, name: str) -> "Iterator[OtelSpan]":
        """A part of it, which takes as long as the block; what is raised there is noted and raised."""
        span = OtelSpan(self._tracer, self._tracer.start_span(name, self._within()))
        try:
            yield span
        except BaseException as error:
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()

    def part(
        self,
        name: str,
        began: int,
        ended: int,
        said: Mapping[str, Said],
        *,
        failed: bool = False,
    ) -> None:
        """A part of it that is over (ns since 1970)."""
        span = self._tracer.start_span(name, self._within(), attributes=said, start_time=began)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(ended)

    def say(self, said: Mapping[str, Said]) -> None:
        """Say something about it."""
        self._span.set_attributes(dict(said))

    def fail(self, why: str) -> None:
        """It did not come to what it should."""
        self._span.set_status(Status(StatusCode.ERROR, why))

    def end(self) -> None:
        """It is over."""
        self._span.end()

    def _within(self) -> Any:  # noqa: ANN401 -- their context
        return trace.set_span_in_context(self._span)


class Traces:
    """Begins traces and sends what is recorded. `delivered` is whether the last sending arrived."""

    def __init__(self, section: Tracing, *, share: float, service: str) -> None:
        self._exporter = _Heard(_exporter(section))
        self._provider = TracerProvider(
            sampler=_sampler(section, share),
            resource=_resource(section, service),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("lodestar", lodestar.__version__)

    @property
    def delivered(self) -> bool:
        """Whether what was sent last has arrived, as far as anything was."""
        return self._exporter.delivered

    def begin(
        self,
        name: str,
        *,
        kind: Literal["server", "internal"] = "internal",
        carrier: Mapping[str, str] | None = None,
        said: Mapping[str, Said] | None = None,
    ) -> OtelSpan:
        """A trace's first span here; the one of a `carrier` (traceparent, tracestate) goes on."""
        context = PROPAGATOR.extract(carrier) if carrier else None
        span = self._tracer.start_span(
            name, context or trace.set_span_in_context(trace.INVALID_SPAN), KINDS[kind], said
        )
        return OtelSpan(self._tracer, span)

    def close(self, *, seconds: float) -> bool:
        """Send what is left, unless that takes longer; whether all of it arrived."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(seconds)
        return not thread.is_alive() and self.delivered


class _Heard(SpanExporter):
    """Sends, and remembers how that ended; the exporter itself would write it to stderr."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.delivered = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them."""
        self.delivered = False
        result = self._exporter.export(spans)
        self.delivered = result is SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held here."""
        return self._exporter.force_flush(timeout_millis)


def _exporter(section: Tracing) -> SpanExporter:
    # It would say addresses and answers of the receiver on stderr, once for each try.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    endpoint = None
    if section.endpoint is not None:
        base = section.endpoint.rstrip("/")
        endpoint = base if base.endswith(PATH) else base + PATH
    headers = {name: value.get_secret_value() for name, value in section.headers.items()}
    return OTLPSpanExporter(endpoint=endpoint, headers=headers or None)


def _sampler(section: Tracing, share: float) -> Sampler | None:
    """What the config says; else OpenTelemetry's variable; else this share."""
    if section.sample is None and "OTEL_TRACES_SAMPLER" in os.environ:
        return None
    return ParentBased(TraceIdRatioBased(share if section.sample is None else section.sample))


def _resource(section: Tracing, service: str) -> Resource:
    """Whose traces these are; OpenTelemetry's variables stand behind the config, before `service`."""
    given = Resource.create({})
    if section.service_name is not None:
        return given.merge(Resource({"service.name": section.service_name}))
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return given if named else given.merge(Resource({"service.name": service}))
