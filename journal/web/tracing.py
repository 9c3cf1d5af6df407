"""Tracing: spans of requests and of what takes long in them, sent to an OpenTelemetry collector.

The rule: it is loaded only where `--trace-to` asks for it, and what a request brings along besides its route and its
journal's name is in no span. The SDK's own settings (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER …) hold.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

import journal
from journal.core.names import journal_ok
from journal.store.origin import REQUEST_ID
from journal.store.spans import TRACED
from journal.web.routing import Handler

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Tracing:
    """Where a process's spans go."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("journal", journal.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def span(self, name: str) -> AbstractContextManager[object]:
        """A child of the span that is going on."""
        return self._tracer.start_as_current_span(name)

    def past(self, name: str, began: float, ended: float) -> None:
        """A child that is over."""
        now, here = time.time_ns(), time.monotonic()
        span = self._tracer.start_span(name, start_time=now - round((here - began) * 1e9))
        span.end(end_time=now - round((here - ended) * 1e9))

    def traced(self, method: str, route: str, handler: Handler) -> Handler:
        """The handler, in a span of its own for each request."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        name = f"{method} {route}"

        async def traced(request: web.Request) -> web.StreamResponse:
            parent = self._propagator.extract(request.headers)
            facts = {"http.request.method": request.method, "http.route": route}
            journal_name = request.match_info.get("j", "")
            if journal_ok(journal_name):
                facts["journal.name"] = journal_name
            with self._tracer.start_as_current_span(
                name, context=parent, kind=SpanKind.SERVER, attributes=facts
            ) as span, _told_to(self):  # fmt: skip
                response = await handler(request)
                span.set_attribute("http.response.status_code", response.status)
                span.set_attribute("journal.request_id", REQUEST_ID.get(""))
                if response.status >= 500:
                    span.set_status(Status(StatusCode.ERROR))
                return response

        return traced

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


@contextmanager
def _told_to(tracing: Tracing) -> Iterator[None]:
    token = TRACED.set(tracing)
    try:
        yield
    finally:
        TRACED.reset(token)


def to(endpoint: str) -> Tracing:
    """To a collector that takes OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.version": journal.__version__})
    if resource.attributes.get("service.name", "").startswith("unknown_service"):  # type: ignore[union-attr]
        resource = resource.merge(Resource({"service.name": "journal"}))
    provider = TracerProvider(resource=resource)
    where = endpoint.rstrip("/")
    exporter = OTLPSpanExporter(endpoint=where if where.endswith("/v1/traces") else f"{where}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)
